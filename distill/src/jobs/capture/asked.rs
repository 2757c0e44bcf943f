//! The teacher of a capture, and what is read of each of its passes.

use cache::{Captured, HiddenStates, HiddenTokens, Outputs};
use datasets::TokenBatch;
use nn::hf::HfConfig;
use nn::{Compute, Mode, Model, PackedInput, Parameters, Tap};

use super::writing::Answers;
use crate::inference::{forward_each, packed};
use crate::interrupt;

/// A teacher, and what is asked of it.
pub(crate) struct Asked {
    pub(crate) teacher: Model,
    captured: Captured,
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
        Ok(Self { teacher: Model::on(compute, config, parameters)?, captured: captured.clone() })
    }

    /// Runs batches and hands on what is to be stored of each.
    pub(crate) fn each(
        &mut self,
        batches: impl Iterator<Item = TokenBatch>,
        mut then: impl FnMut(Answers) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match (self.captured.outputs, self.captured.hidden_states.clone()) {
            (Outputs::Row, None) => forward_each(&mut self.teacher, batches, |rows, logits| {
                then(Answers { rows: rows.to_vec(), logits: logits.to_vec(), ..Answers::default() })
            }),
            (Outputs::Row, Some(form)) => batches.into_iter().try_for_each(|batch| {
                interrupt::check()?;
                let (logits, states) = self.logits_and_states(packed(&batch), &form.layers)?;
                let (hidden, hidden_sizes) = gather_hidden(&states, &batch, &form);
                then(Answers { rows: batch.rows, logits, hidden, hidden_sizes, ..Answers::default() })
            }),
            (Outputs::Token, form) => batches.into_iter().try_for_each(|batch| {
                interrupt::check()?;
                let positions: Vec<u32> = (0..batch.input_ids.len() as u32).collect();
                let input = PackedInput { positions: Some(&positions), ..packed(&batch) };
                let layers = form.as_ref().map_or(&[][..], |form| form.layers.as_slice());
                let (logits, states) = self.logits_and_states(input, layers)?;
                let outputs = batch.starts.windows(2).map(|bounds| (bounds[1] - bounds[0]) as usize).collect();
                let (hidden, hidden_sizes) =
                    form.as_ref().map_or_else(Default::default, |form| gather_hidden(&states, &batch, form));
                then(Answers { rows: batch.rows, logits, outputs, hidden, hidden_sizes, ..Answers::default() })
            }),
        }
    }

    /// What the teacher says of a batch, and the hidden states of these layers.
    fn logits_and_states(
        &mut self,
        input: PackedInput<'_>,
        layers: &[usize],
    ) -> anyhow::Result<(Vec<f32>, Vec<Vec<f32>>)> {
        let taps: Vec<Tap> = layers.iter().map(|&layer| Tap::Hidden(layer)).collect();
        let mut pass = self.teacher.forward(input, &[&[Tap::Logits], taps.as_slice()].concat(), Mode::Eval)?;
        let logits = self.teacher.read(&mut pass, Tap::Logits)?;
        let states = taps.into_iter().map(|tap| self.teacher.read(&mut pass, tap));
        Ok((logits, states.collect::<Result<_, _>>()?))
    }
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
