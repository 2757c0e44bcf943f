//! The teacher of a capture, and the outputs read from its passes.

use cache::{Captured, HiddenStates, HiddenTokens, LogitForm, Outputs};
use datasets::TokenBatch;
use nn::hf::HfConfig;
use nn::{Compute, Mode, Model, PackedInput, Parameters, Tap, TopK};

use super::writing::{Answers, Logits};
use crate::inference::{forward_ahead, packed};
use crate::interrupt;

/// A teacher with the outputs to read.
pub(crate) struct Asked {
    pub(crate) teacher: Model,
    captured: Captured,
    /// Set if only the top k is stored; a device that can select them does.
    top: Option<TopK>,
}

impl Asked {
    /// What is stored of its answers.
    pub(crate) fn captured(&self) -> &Captured {
        &self.captured
    }

    pub(crate) fn new(
        compute: &Compute,
        config: HfConfig,
        parameters: Parameters,
        captured: &Captured,
    ) -> anyhow::Result<Self> {
        let top = match &captured.logits {
            LogitForm::TopK { k, temperatures, .. } => Some(TopK { k: *k, temperatures: temperatures.clone() }),
            LogitForm::Dense { .. } | LogitForm::Sample { .. } => None,
        };
        Ok(Self { teacher: Model::on(compute, config, parameters)?, captured: captured.clone(), top })
    }

    /// Runs batches and passes on the outputs to store.
    pub(crate) fn each(
        &mut self,
        batches: impl Iterator<Item = TokenBatch>,
        mut then: impl FnMut(Answers) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Captured { outputs, hidden_states, .. } = self.captured.clone();
        let of_tokens = outputs == Outputs::Token;
        let answers = |batch: &TokenBatch, logits: Logits| {
            let outputs = if of_tokens { lengths(batch) } else { Vec::new() };
            Answers { rows: batch.rows.clone(), logits, outputs, ..Answers::default() }
        };
        let Some(form) = hidden_states else {
            let top = self.top.as_ref();
            let submit = |model: &mut Model, batch: &TokenBatch| {
                let positions = positions(batch, of_tokens);
                let input = PackedInput { positions: positions.as_deref(), ..packed(batch) };
                match top {
                    Some(top) if model.submit_top(input, top)? => Ok(()),
                    _ => model.submit(input),
                }
            };
            let collect = |model: &mut Model, behind: usize| {
                Ok(match model.collect_top(behind)? {
                    Some(top) => Some(Logits::Top(top)),
                    // Of a vocabulary's, one batch is enough to keep.
                    None => model.collect(if of_tokens { 0 } else { behind })?.map(Logits::All),
                })
            };
            return forward_ahead(&mut self.teacher, batches, submit, collect, |batch, logits| {
                then(answers(&batch, logits))
            });
        };
        batches.into_iter().try_for_each(|batch| {
            interrupt::check()?;
            let positions = positions(&batch, of_tokens);
            let input = PackedInput { positions: positions.as_deref(), ..packed(&batch) };
            let (logits, states) = self.logits_and_states(input, &form.layers)?;
            let (hidden, hidden_sizes) = gather_hidden(&states, &batch, &form);
            then(Answers { hidden, hidden_sizes, ..answers(&batch, logits) })
        })
    }

    /// The logits of a batch, and the hidden states of these layers.
    fn logits_and_states(
        &mut self,
        input: PackedInput<'_>,
        layers: &[usize],
    ) -> anyhow::Result<(Logits, Vec<Vec<f32>>)> {
        let taps: Vec<Tap> = layers.iter().map(|&layer| Tap::Hidden(layer)).collect();
        let mut pass = self.teacher.forward(input, &[&[Tap::Logits], taps.as_slice()].concat(), Mode::Eval)?;
        let top = self.top.as_ref().map(|top| self.teacher.read_top(&mut pass, top)).transpose()?.flatten();
        let logits = match top {
            Some(top) => Logits::Top(top),
            None => Logits::All(self.teacher.read(&mut pass, Tap::Logits)?),
        };
        let states = taps.into_iter().map(|tap| self.teacher.read(&mut pass, tap));
        Ok((logits, states.collect::<Result<_, _>>()?))
    }
}

/// The positions to compute logits for: all tokens, or `None` for one output per row.
fn positions(batch: &TokenBatch, of_tokens: bool) -> Option<Vec<u32>> {
    of_tokens.then(|| (0..batch.input_ids.len() as u32).collect())
}

/// Tokens of each row.
fn lengths(batch: &TokenBatch) -> Vec<usize> {
    batch.starts.windows(2).map(|bounds| (bounds[1] - bounds[0]) as usize).collect()
}

/// The hidden states of a batch, one layer to store after another, to be stored row by row `[layers, tokens, width]`, and
/// how many values each row has.
fn gather_hidden(states: &[Vec<f32>], batch: &TokenBatch, form: &HiddenStates) -> (Vec<f32>, Vec<usize>) {
    let mut hidden = Vec::new();
    let mut sizes = Vec::with_capacity(batch.rows.len());
    for bounds in batch.starts.windows(2) {
        let before = hidden.len();
        let (first, end) = (bounds[0] as usize, bounds[1] as usize);
        let end = if form.tokens == HiddenTokens::First { first + 1 } else { end };
        for state in states {
            hidden.extend_from_slice(&state[first * form.width..end * form.width]);
        }
        sizes.push(hidden.len() - before);
    }
    (hidden, sizes)
}
