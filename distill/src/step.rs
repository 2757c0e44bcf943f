//! One optimiser step: its micro-batches are gathered and given to the learner, which then takes the step.
//!
//! The training loop and `distill bench` take their steps here; which rows a step has, the learning rate and everything
//! around the steps is theirs.

use anyhow::Context;
use datasets::{Encodings, TokenBatch};
use nn::DropoutRng;

use crate::learner::{Learner, MicroBatch};
use crate::objective::StepCounts;

/// What is the same in every step.
pub(crate) struct Stepper<'a> {
    pub(crate) encodings: &'a Encodings,
    pub(crate) labels: &'a [Option<u32>],
    /// The teacher's logits of some rows, `[B, K]`; asked if the objective needs them.
    pub(crate) teacher_logits: &'a dyn Fn(&[u32]) -> anyhow::Result<Vec<f32>>,
    /// Of the dropout masks.
    pub(crate) seed: u64,
}

impl Stepper<'_> {
    /// Takes the step of this number, from 0, on the rows of these micro-batches; returns how many they are. What the
    /// step found is the learner's to say.
    pub(crate) fn step(
        &self,
        number: usize,
        micro_batches: &[Vec<u32>],
        learning_rate: f64,
        learner: &mut Learner<'_>,
    ) -> anyhow::Result<usize> {
        let counts = StepCounts::of(&self.labels_of(micro_batches.iter().flatten()));
        let mut first_row = 0;
        for (index, rows) in micro_batches.iter().enumerate() {
            let teacher_logits = match learner.needs_teacher() {
                true => Some((self.teacher_logits)(rows)?),
                false => None,
            };
            let micro_batch = MicroBatch {
                batch: &TokenBatch::gather(self.encodings, rows),
                first_row,
                labels: &self.labels_of(rows),
                teacher_logits: teacher_logits.as_deref(),
                dropout: &DropoutRng::new(self.seed, number as u64, index as u64),
            };
            learner.micro_batch(&micro_batch, counts).with_context(|| format!("step {}", number + 1))?;
            first_row += rows.len();
        }
        learner.step(number, counts, learning_rate)?;
        Ok(counts.rows)
    }

    fn labels_of<'r>(&self, rows: impl IntoIterator<Item = &'r u32>) -> Vec<Option<u32>> {
        rows.into_iter().map(|&row| self.labels[row as usize]).collect()
    }
}
