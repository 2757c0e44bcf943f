//! A student with its optimiser, on the CPU or on a GPU: what the training loop asks of either.
//!
//! On a GPU nothing waits for a step to be done, so what it found comes while the next one runs.

use std::borrow::Cow;
use std::collections::VecDeque;

use anyhow::Context;
use datasets::TokenBatch;
use nn::cuda::{SoftHardLoss, StepRates};
use nn::{AdamW, Capture, Compute, DropoutRng, Gradients, Mode, PackedInput, Parameters};
use student::Student;

use crate::inference::{announce, packed};
use crate::objective::{FusedLoss, LossReport, Objective, ObjectiveRows, StepCounts, TeacherSignal};

#[cfg(test)]
mod tests;

/// A student in training.
pub(crate) struct Learner<'a> {
    pub(crate) student: &'a mut Student,
    objective: &'a Objective,
    weight_decay: f64,
    max_gradient_norm: f64,
    side: Side,
}

enum Side {
    Cpu {
        optimizer: AdamW,
        gradients: Gradients,
        /// Of the step so far.
        loss: LossReport,
        done: Vec<Outcome>,
    },
    Cuda {
        /// The objective as the GPU computes it; otherwise the host does.
        fused: Option<FusedLoss>,
        /// Of the step so far, where the host computes it.
        loss: LossReport,
        /// Steps asked for whose outcome is not known yet.
        open: VecDeque<Open>,
    },
}

struct Open {
    counts: StepCounts,
    learning_rate: f64,
    /// Where the host computed it.
    loss: Option<LossReport>,
}

/// Some of a step's rows.
pub(crate) struct MicroBatch<'a> {
    pub(crate) batch: &'a TokenBatch,
    /// Which tokens a masked-language model is to tell: see [`PackedInput::positions`].
    pub(crate) positions: Option<&'a [u32]>,
    /// Number of the first of these rows within the step.
    pub(crate) first_row: usize,
    pub(crate) labels: &'a [Option<u32>],
    pub(crate) teacher: Option<&'a TeacherSignal>,
    pub(crate) dropout: &'a DropoutRng,
}

/// What a step found.
pub(crate) struct Outcome {
    /// From 0.
    pub(crate) step: usize,
    pub(crate) loss: LossReport,
    /// Before clipping; where it is not finite, the step was not taken.
    pub(crate) gradient_norm: f64,
    pub(crate) learning_rate: f64,
}

impl<'a> Learner<'a> {
    /// A student with the optimiser in this state. `whole_rows` says that the teacher's rows have every logit, as a GPU's
    /// own loss needs them.
    pub(crate) fn new(
        student: &'a mut Student,
        objective: &'a Objective,
        optimizer: AdamW,
        weight_decay: f64,
        max_gradient_norm: f64,
        whole_rows: bool,
    ) -> anyhow::Result<Self> {
        let layout = student.parameters().layout().clone();
        let loss = objective.no_loss();
        let side = match student.cuda() {
            None => Side::Cpu { optimizer, gradients: Gradients::zeros(layout), loss, done: Vec::new() },
            Some(encoder) => {
                let (device, precision) = (encoder.device().clone(), encoder.precision());
                announce(&Compute::Cuda { device, precision });
                let (steps, first, second) = optimizer.state();
                encoder.restore_optimizer(steps, first, second)?;
                Side::Cuda { fused: objective.fused().filter(|_| whole_rows), loss, open: VecDeque::new() }
            }
        };
        Ok(Self { student, objective, weight_decay, max_gradient_norm, side })
    }

    /// Forward, loss and backward of some of a step's rows.
    pub(crate) fn micro_batch(&mut self, rows: &MicroBatch<'_>, counts: StepCounts) -> anyhow::Result<()> {
        let input = PackedInput { positions: rows.positions, ..packed(rows.batch) };
        let mode = Mode::Train(rows.dropout);
        if let Side::Cuda { fused: Some(fused), .. } = &self.side
            && let Some(encoder) = self.student.cuda()
        {
            encoder.forward(input, Capture::LOGITS, mode)?;
            let labels: Vec<i32> = rows.labels.iter().map(|label| label.map_or(-1, u32::cast_signed)).collect();
            encoder.soft_hard_loss(SoftHardLoss {
                teacher_logits: rows.teacher.and_then(TeacherSignal::dense),
                labels: &labels,
                soft_weight: fused.soft_weight / counts.rows as f64,
                temperature: fused.temperature,
                // A step without labels has no hard term.
                hard_weight: fused.hard_weight / counts.labelled.max(1) as f64,
            })?;
            return Ok(encoder.backward()?);
        }
        if let Side::Cpu { optimizer, .. } = &mut self.side {
            optimizer.look_up(self.student.parameters_mut(), input.input_ids);
        }
        let classes = self.student.config().encoder.outputs();
        let output = self.student.forward(input, Capture::LOGITS, mode)?;
        let mut d_logits = vec![0.0; output.logits.len()];
        let rows = ObjectiveRows {
            first_row: rows.first_row,
            classes,
            student_logits: &output.logits,
            teacher: rows.teacher,
            labels: rows.labels,
        };
        let found = self.objective.evaluate(&rows, counts, &mut d_logits)?;
        match &mut self.side {
            Side::Cpu { gradients, loss, .. } => {
                *loss += &found;
                self.student.backward(&d_logits, gradients)?;
            }
            Side::Cuda { loss, .. } => {
                *loss += &found;
                let encoder = self.student.cuda().context("a student on a GPU stays there")?;
                encoder.set_d_logits(&d_logits)?;
                encoder.backward()?;
            }
        }
        Ok(())
    }

    /// Takes the step that all micro-batches since the last one make, unless its gradient is not finite.
    pub(crate) fn step(&mut self, step: usize, counts: StepCounts, learning_rate: f64) -> anyhow::Result<()> {
        let no_loss = self.objective.no_loss();
        match &mut self.side {
            Side::Cpu { optimizer, gradients, loss, done } => {
                let gradient_norm = gradients.norm();
                if gradient_norm.is_finite() {
                    let clip = (self.max_gradient_norm / (gradient_norm + 1e-6)).min(1.0) as f32;
                    optimizer.step(self.student.parameters_mut(), gradients, learning_rate, clip);
                }
                done.push(Outcome { step, loss: std::mem::replace(loss, no_loss), gradient_norm, learning_rate });
            }
            Side::Cuda { fused, loss, open } => {
                let encoder = self.student.cuda().context("a student on a GPU stays there")?;
                let (weight_decay, max_gradient_norm) = (self.weight_decay, self.max_gradient_norm);
                encoder.step(step as u64, StepRates { learning_rate, weight_decay, max_gradient_norm })?;
                let loss = std::mem::replace(loss, no_loss);
                open.push_back(Open { counts, learning_rate, loss: fused.is_none().then_some(loss) });
            }
        }
        Ok(())
    }

    /// Brings weights that wait for their decay up to date, before they are read as a whole.
    pub(crate) fn settle(&mut self) {
        if let Side::Cpu { optimizer, .. } = &mut self.side {
            optimizer.settle(self.student.parameters_mut());
        }
    }

    /// What the steps since the last call found: all of them, or on a GPU, without `wait`, all but the latest.
    pub(crate) fn outcomes(&mut self, wait: bool) -> anyhow::Result<Vec<Outcome>> {
        match &mut self.side {
            Side::Cpu { done, .. } => Ok(std::mem::take(done)),
            Side::Cuda { open, .. } => {
                let encoder = self.student.cuda().context("a student on a GPU stays there")?;
                let mut outcomes = Vec::new();
                for report in encoder.reports(usize::from(!wait))? {
                    let Open { counts, learning_rate, loss } = open.pop_front().context("a step for each report")?;
                    outcomes.push(Outcome {
                        step: report.step as usize,
                        loss: loss.unwrap_or_else(|| self.objective.report(report.losses, counts)),
                        gradient_norm: report.gradient_norm,
                        learning_rate,
                    });
                }
                Ok(outcomes)
            }
        }
    }

    /// The student's weights and the optimiser's state, read back from a GPU.
    pub(crate) fn state(&mut self) -> anyhow::Result<(&Parameters, Cow<'_, AdamW>)> {
        self.student.read_back()?;
        let optimizer = match &self.side {
            Side::Cpu { optimizer, .. } => Cow::Borrowed(optimizer),
            Side::Cuda { .. } => {
                let layout = self.student.parameters().layout().clone();
                let encoder = self.student.cuda().context("a student on a GPU stays there")?;
                let (steps, first, second) = encoder.optimizer_state()?;
                let optimizer = AdamW::restore(layout, self.weight_decay, steps, first, second);
                Cow::Owned(optimizer.context("moments of the student's own layout")?)
            }
        };
        Ok((self.student.parameters(), optimizer))
    }
}
