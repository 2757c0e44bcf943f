//! What a cache stores for each row: which logits in which form, and which hidden states.

use safetensors::Dtype as TensorType;
use serde::{Deserialize, Serialize};

/// What a cache stores for each row.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// Logits per output: the number of classes, or the vocabulary size.
    pub width: usize,
    /// Whether there is one output per row or per token.
    pub outputs: Outputs,
    /// How the logits of an output are stored.
    pub logits: LogitForm,
    /// Hidden states stored as well.
    pub hidden_states: Option<HiddenStates>,
}

/// Whether there is one output per row or per token.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Outputs {
    /// One per row: logits over the classes of a text.
    Row,
    /// One per token: logits over the vocabulary of a masked-language model, or over classes of tokens.
    Token,
}

/// How the logits of an output are stored.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "form", rename_all = "snake_case", deny_unknown_fields)]
pub enum LogitForm {
    /// All logits.
    Dense {
        /// The number format.
        dtype: Dtype,
    },
    /// The `k` largest, and for each temperature `T` a tail: `log(sum(exp(z / T)))` over the other logits `z`.
    TopK {
        /// How many logits are kept.
        k: usize,
        /// The number format.
        dtype: Dtype,
        /// The temperatures of the tails, and so the only ones at which a student can be trained.
        temperatures: Vec<f64>,
    },
    /// Classes (or words) sampled from the softmax at one temperature, with replacement: each draw counts as
    /// probability `1 / draws`.
    Sample {
        /// How many draws.
        draws: usize,
        /// The temperature of the softmax, and the only one at which a student can be trained.
        temperature: f64,
        /// The random seed; draws also depend on the row's key.
        seed: u64,
    },
}

/// Hidden states, in f16, compressed per row.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct HiddenStates {
    /// The layers, ascending: 0 is the output of the embeddings, 1 that of the first layer.
    pub layers: Vec<usize>,
    /// The tokens.
    pub tokens: HiddenTokens,
    /// The hidden size.
    pub width: usize,
}

impl HiddenStates {
    /// How many values a row has to have a multiple of, where so many are no row.
    pub(crate) fn misfit(&self, values: usize) -> Option<usize> {
        let token = self.layers.len() * self.width;
        let fits = match self.tokens {
            HiddenTokens::First => values == token,
            HiddenTokens::All => values > 0 && values.is_multiple_of(token),
        };
        (!fits).then_some(token)
    }
}

/// The tokens whose hidden states are stored.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum HiddenTokens {
    /// Only the first token.
    First,
    /// Every token.
    All,
}

/// The number format of stored logits.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32 bits, as computed by the teacher.
    F32,
    /// IEEE half precision: 11 significant bits, up to 65,504.
    F16,
    /// bfloat16: 8 significant bits.
    Bf16,
}

impl Dtype {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    pub(crate) fn tensor_type(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::BF16,
        }
    }
}

impl Captured {
    /// All `width` logits of each row in this number format; no hidden states.
    pub fn dense(width: usize, dtype: Dtype) -> Self {
        Self { width, outputs: Outputs::Row, logits: LogitForm::Dense { dtype }, hidden_states: None }
    }

    /// An error with the reason if this cannot be stored.
    pub fn check(&self) -> Result<(), String> {
        let good = |temperature: f64| temperature > 0.0 && temperature.is_finite();
        if self.width == 0 || self.width > u32::MAX as usize {
            return Err(format!("{} logits an output: give a number from 1 to {}", self.width, u32::MAX));
        }
        if let Some(HiddenStates { layers, width, .. }) = &self.hidden_states {
            if !layers.is_sorted_by(|one, next| one < next) || layers.is_empty() {
                return Err(format!("hidden states of layers {layers:?}: give each once, ascending"));
            }
            if *width == 0 {
                return Err("hidden states of 0 values".to_owned());
            }
        }
        match &self.logits {
            LogitForm::Dense { .. } => Ok(()),
            LogitForm::TopK { .. } if self.width == 1 => Err("the largest of 1 logit: store it dense".to_owned()),
            LogitForm::TopK { k, .. } if *k == 0 || *k >= self.width => {
                Err(format!("the {k} largest of {} logits: give a number from 1 to {}", self.width, self.width - 1))
            }
            LogitForm::TopK { temperatures, .. } => {
                match temperatures.iter().find(|&&temperature| !good(temperature)) {
                    _ if temperatures.iter().enumerate().any(|(at, one)| temperatures[..at].contains(one)) => {
                        Err(format!("temperatures {temperatures:?}: give each once"))
                    }
                    _ if temperatures.is_empty() => Err("no temperature for the rest of the logits".to_owned()),
                    Some(wrong) => Err(format!("temperature {wrong}: a temperature is a number above 0")),
                    None => Ok(()),
                }
            }
            LogitForm::Sample { draws: 0, .. } => Err("a sample of 0 draws".to_owned()),
            LogitForm::Sample { temperature, .. } if !good(*temperature) => {
                Err(format!("temperature {temperature}: a temperature is a number above 0"))
            }
            LogitForm::Sample { .. } => Ok(()),
        }
    }

    /// Whether an index of a logit takes two bytes, and not four.
    pub(crate) fn short_indices(&self) -> bool {
        self.width <= 1 << 16
    }

    /// Bytes of an output: logits, indices and tails.
    pub fn output_bytes(&self) -> usize {
        let index = if self.short_indices() { 2 } else { 4 };
        match &self.logits {
            LogitForm::Dense { dtype } => self.width * dtype.bytes(),
            LogitForm::TopK { k, dtype, temperatures } => k * (dtype.bytes() + index) + 4 * temperatures.len(),
            LogitForm::Sample { draws, .. } => draws * index,
        }
    }
}
