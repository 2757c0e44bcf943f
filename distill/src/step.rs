//! One optimiser step: its micro-batches are put together, ahead of time in a training, and given to the learner, which
//! then takes the step.
//!
//! The training loop and `distill bench` take their steps here; which rows a step has, the learning rate and everything
//! around the steps is theirs.

use anyhow::Context;
use datasets::{Encodings, Masking, TokenBatch};
use nn::DropoutRng;

use crate::learner::{Learner, MicroBatch};
use crate::objective::{StepCounts, TeacherSignal};

/// What a step is made of.
pub(crate) struct Examples<'a> {
    pub(crate) encodings: &'a Encodings,
    pub(crate) labels: &'a [Option<u32>],
    /// What the teacher said of some rows; none if the objective does not read it.
    pub(crate) teacher: Option<&'a TeacherLookup<'a>>,
    /// How a masked-language model's rows are masked; then what stood there is what is learned, and not the labels.
    pub(crate) masking: Option<&'a Masking>,
}

/// Finds what the teacher said of rows; several threads ask at once.
pub(crate) type TeacherLookup<'a> = dyn Fn(&[u32]) -> anyhow::Result<TeacherSignal> + Sync + 'a;

/// Some of a step's rows, ready for the learner.
pub(crate) struct Prepared {
    batch: TokenBatch,
    /// Which tokens a masked-language model is to tell.
    positions: Option<Vec<u32>>,
    labels: Vec<Option<u32>>,
    teacher: Option<TeacherSignal>,
}

impl Examples<'_> {
    /// Puts the micro-batches of a step together, in this pass over the data.
    pub(crate) fn prepare(&self, pass: u64, micro_batches: &[Vec<u32>]) -> anyhow::Result<Vec<Prepared>> {
        micro_batches.iter().map(|rows| self.micro_batch(pass, rows)).collect()
    }

    fn micro_batch(&self, pass: u64, rows: &[u32]) -> anyhow::Result<Prepared> {
        let teacher = self.teacher.map(|teacher| teacher(rows)).transpose()?;
        Ok(match self.masking {
            None => {
                let labels = rows.iter().map(|&row| self.labels[row as usize]).collect();
                Prepared { batch: TokenBatch::gather(self.encodings, rows), positions: None, labels, teacher }
            }
            Some(masking) => {
                let masked = masking.gather(pass, self.encodings, rows);
                let labels = masked.originals.into_iter().map(Some).collect();
                Prepared { batch: masked.batch, positions: Some(masked.positions), labels, teacher }
            }
        })
    }
}

/// Takes the step of this number, from 0, on these micro-batches; returns how many rows they have. What the step found
/// is the learner's to say. `seed` is of the dropout masks.
pub(crate) fn take_step(
    number: usize,
    micro_batches: &[Prepared],
    seed: u64,
    learning_rate: f64,
    learner: &mut Learner<'_>,
) -> anyhow::Result<usize> {
    let counts = micro_batches.iter().map(|rows| StepCounts::of(&rows.labels)).sum();
    let (mut first_row, mut rows) = (0, 0);
    for (index, prepared) in micro_batches.iter().enumerate() {
        let micro_batch = MicroBatch {
            batch: &prepared.batch,
            positions: prepared.positions.as_deref(),
            first_row,
            labels: &prepared.labels,
            teacher: prepared.teacher.as_ref(),
            dropout: &DropoutRng::new(seed, number as u64, index as u64),
        };
        learner.micro_batch(&micro_batch, counts).with_context(|| format!("step {}", number + 1))?;
        first_row += prepared.labels.len();
        rows += prepared.batch.rows.len();
    }
    learner.step(number, counts, learning_rate)?;
    Ok(rows)
}
