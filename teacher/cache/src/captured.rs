//! What is stored of each answer: which logits in which form, and which hidden states.

use safetensors::Dtype as TensorType;
use serde::{Deserialize, Serialize};

/// What a row of a cache holds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// Logits of one output: classes, or words.
    pub width: usize,
    /// How many outputs a row has.
    pub outputs: Outputs,
    /// What is stored of each output.
    pub logits: LogitForm,
    /// Hidden states beside the logits.
    pub hidden_states: Option<HiddenStates>,
}

/// How many outputs a row has.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Outputs {
    /// One: classes of a text.
    Row,
    /// One for each of its tokens: words of a masked-language model, classes of tokens.
    Token,
}

/// What is stored of the logits of an output.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "form", rename_all = "snake_case", deny_unknown_fields)]
pub enum LogitForm {
    /// All of them.
    Dense {
        /// In this number format.
        dtype: Dtype,
    },
    /// The largest, and at each temperature the logarithm of the sum of what the others contribute to the softmax.
    TopK {
        /// How many.
        k: usize,
        /// In this number format.
        dtype: Dtype,
        /// The temperatures at which the rest is summed, and so the only ones that a student can be trained at.
        temperatures: Vec<f64>,
    },
    /// Words drawn from the softmax at one temperature, with replacement: each draw stands for one part in `draws`.
    Sample {
        /// How many.
        draws: usize,
        /// The only temperature that a student can be trained at.
        temperature: f64,
        /// Together with a row's key it decides what is drawn.
        seed: u64,
    },
}

/// Hidden states beside the logits, in f16, each row compressed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct HiddenStates {
    /// Which, ascending: 0 is the output of the embeddings, 1 of the first layer.
    pub layers: Vec<usize>,
    /// Of which tokens.
    pub tokens: HiddenTokens,
    /// Values of a hidden state.
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

/// Whose hidden states are stored.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum HiddenTokens {
    /// The first token's.
    First,
    /// Every token's.
    All,
}

/// The number format of stored logits.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32 bits: as they were computed.
    F32,
    /// 16 bits, 11 of them significant; up to 65,504.
    F16,
    /// 16 bits, 8 of them significant.
    Bf16,
}

impl Dtype {
    /// Bytes of a number.
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
    /// All logits of texts, as they were computed.
    pub fn dense(width: usize, dtype: Dtype) -> Self {
        Self { width, outputs: Outputs::Row, logits: LogitForm::Dense { dtype }, hidden_states: None }
    }

    /// Refuses what cannot be stored, with the reason.
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

    /// Bytes of an output's logits, indices and tails.
    pub fn output_bytes(&self) -> usize {
        let index = if self.short_indices() { 2 } else { 4 };
        match &self.logits {
            LogitForm::Dense { dtype } => self.width * dtype.bytes(),
            LogitForm::TopK { k, dtype, temperatures } => k * (dtype.bytes() + index) + 4 * temperatures.len(),
            LogitForm::Sample { draws, .. } => draws * index,
        }
    }
}
