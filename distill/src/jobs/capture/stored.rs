//! The requested form of storage.

use anyhow::{Context, bail};
use cache::{Captured, Dtype, HiddenStates, HiddenTokens, LogitForm};
use nn::EncoderConfig;

use crate::tasks::{StoredByDefault, Task};

/// The requested form of storage; see [`StoredForm::captured`] for its defaults.
pub(crate) struct StoredForm {
    /// Number format of the logits; the task has a default.
    pub(crate) dtype: Option<Dtype>,
    /// Store only this many of the largest logits.
    pub(crate) top_k: Option<usize>,
    /// Temperatures of the tails for `top_k`; empty means 1, 2 and 4.
    pub(crate) temperatures: Vec<f64>,
    /// Store this many draws from the softmax instead of logits.
    pub(crate) sample: Option<usize>,
    pub(crate) sample_temperature: f64,
    /// Random seed of the draws.
    pub(crate) seed: u64,
    /// Layers whose hidden states are stored as well.
    pub(crate) hidden_states: Vec<usize>,
    /// Store hidden states of every token, not only of the first.
    pub(crate) all_tokens: bool,
}

impl StoredForm {
    /// Resolves the defaults for this task and teacher; an error for hidden states that it does not have.
    pub(crate) fn captured(&self, task: Task, encoder: &EncoderConfig) -> anyhow::Result<Captured> {
        let StoredByDefault { outputs, top_k, dtype } = task.stored_by_default();
        let dtype = self.dtype.unwrap_or(dtype);
        if self.top_k.is_none() && top_k.is_none() && !self.temperatures.is_empty() {
            bail!(
                "--temperatures goes with --top-k: where all logits are stored, a student may be trained at any temperature"
            );
        }
        let logits = match (self.top_k.or(top_k.filter(|_| self.sample.is_none())), self.sample) {
            (Some(k), _) => {
                let temperatures =
                    if self.temperatures.is_empty() { vec![1.0, 2.0, 4.0] } else { self.temperatures.clone() };
                LogitForm::TopK { k, dtype, temperatures }
            }
            (None, Some(draws)) => LogitForm::Sample { draws, temperature: self.sample_temperature, seed: self.seed },
            (None, None) => LogitForm::Dense { dtype },
        };
        let hidden_states = (!self.hidden_states.is_empty()).then(|| {
            let mut layers = self.hidden_states.clone();
            layers.sort_unstable();
            layers.dedup();
            let tokens = if self.all_tokens { HiddenTokens::All } else { HiddenTokens::First };
            HiddenStates { layers, tokens, width: encoder.hidden_size }
        });
        if let Some(form) = &hidden_states {
            check_hidden(form, encoder.num_layers)?;
        }
        let captured = Captured { width: encoder.outputs(), outputs, logits, hidden_states };
        captured.check().map_err(|finding| cache::Error::Captured { finding })?;
        Ok(captured)
    }
}

/// What the teacher would be asked for, with what it cannot answer refused.
fn check_hidden(form: &HiddenStates, layers: usize) -> anyhow::Result<()> {
    let too_deep = form.layers.iter().find(|&&layer| layer > layers);
    too_deep
        .map_or(Ok(()), |layer| {
            Err(anyhow::anyhow!(
                "--hidden-states {layer}: the teacher has {layers} layers; 0 is the embeddings' output, {layers} the last \
                 layer's"
            ))
        })
        .context("cannot capture")
}
