//! One optimiser step: forward, loss and backward of its micro-batches, then clipping and AdamW.
//!
//! The training loop and `distill bench` take their steps here; which rows a step has, the learning rate and everything
//! around the steps is theirs.

use anyhow::{Context, bail};
use datasets::{Encodings, TokenBatch};
use nn::{AdamW, Capture, DropoutRng, Gradients, Mode};
use student::Student;

use crate::inference::packed;
use crate::objective::{LossReport, Objective, ObjectiveRows, StepCounts};

/// What is the same in every step.
pub(crate) struct Stepper<'a> {
    pub(crate) objective: &'a Objective,
    pub(crate) encodings: &'a Encodings,
    pub(crate) labels: &'a [Option<u32>],
    /// The teacher's logits of some rows, `[B, K]`; asked if the objective needs them.
    pub(crate) teacher_logits: &'a dyn Fn(&[u32]) -> anyhow::Result<Vec<f32>>,
    /// Of the dropout masks.
    pub(crate) seed: u64,
    pub(crate) max_gradient_norm: f64,
}

/// What a step moves: the student is borrowed, since others read it between steps.
pub(crate) struct Moved<'a> {
    pub(crate) student: &'a mut Student,
    pub(crate) gradients: &'a mut Gradients,
    pub(crate) optimizer: &'a mut AdamW,
}

/// What a step found.
pub(crate) struct Stepped {
    pub(crate) loss: LossReport,
    /// Before clipping.
    pub(crate) gradient_norm: f64,
    pub(crate) rows: usize,
}

/// Some of a step's rows.
struct MicroBatch {
    batch: TokenBatch,
    /// Number of the first of them within the step.
    first_row: usize,
    /// Of the whole step.
    counts: StepCounts,
}

impl Stepper<'_> {
    /// Takes the step of this number, from 0, on the rows of these micro-batches.
    pub(crate) fn step(
        &self,
        number: usize,
        micro_batches: &[Vec<u32>],
        learning_rate: f64,
        moved: Moved<'_>,
    ) -> anyhow::Result<Stepped> {
        let Moved { student, gradients, optimizer } = moved;
        let counts = self.counts(micro_batches);
        let mut loss = self.objective.no_loss();
        let mut first_row = 0;
        for (index, rows) in micro_batches.iter().enumerate() {
            let dropout = DropoutRng::new(self.seed, number as u64, index as u64);
            let batch = TokenBatch::gather(self.encodings, rows);
            optimizer.look_up(student.parameters_mut(), &batch.input_ids);
            let rows = MicroBatch { batch, first_row, counts };
            let found = self.micro_batch(student, &rows, &dropout, gradients);
            loss += &found.with_context(|| format!("step {number}"))?;
            first_row += rows.batch.rows.len();
        }
        let norm = gradients.norm();
        if !norm.is_finite() {
            bail!("step {number}: the gradient's norm is {norm}; lower --learning-rate, or check the data");
        }
        let clip = (self.max_gradient_norm / (norm + 1e-6)).min(1.0) as f32;
        optimizer.step(student.parameters_mut(), gradients, learning_rate, clip);
        Ok(Stepped { loss, gradient_norm: norm, rows: counts.rows })
    }

    fn counts(&self, micro_batches: &[Vec<u32>]) -> StepCounts {
        let rows = micro_batches.iter().flatten();
        let labels: Vec<_> = rows.map(|&row| self.labels[row as usize]).collect();
        StepCounts::of(&labels)
    }

    /// Forward, loss and backward of some of a step's rows.
    fn micro_batch(
        &self,
        student: &mut Student,
        micro_batch: &MicroBatch,
        dropout: &DropoutRng,
        gradients: &mut Gradients,
    ) -> anyhow::Result<LossReport> {
        let &MicroBatch { ref batch, first_row, counts } = micro_batch;
        let rows = &batch.rows;
        let teacher_logits = match self.objective.needs_teacher() {
            true => Some((self.teacher_logits)(rows)?),
            false => None,
        };
        let labels: Vec<_> = rows.iter().map(|&row| self.labels[row as usize]).collect();
        let output = student.forward(packed(batch), Capture::LOGITS, Mode::Train(dropout))?;
        let mut d_logits = vec![0.0; output.logits.len()];
        let loss = self.objective.evaluate(
            &ObjectiveRows {
                first_row,
                classes: student.config().labels.len(),
                student_logits: &output.logits,
                teacher_logits: teacher_logits.as_deref(),
                labels: &labels,
            },
            counts,
            &mut d_logits,
        )?;
        student.backward(&d_logits, gradients)?;
        Ok(loss)
    }
}
