//! One optimiser step: its micro-batches are prepared, in training ahead of time, and passed to the learner, which
//! takes the step.
//!
//! Used by the training loop and by `distill bench`, which decide on rows, learning rate and everything around a step.
//! On a GPU the host does not wait for a step, so its outcome is known only while the next one runs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::Context;
use datasets::{Encodings, TokenBatch};
use nn::{AdamW, Clip, DropoutRng, Mode, Model, PackedInput, SoftHardLoss, StepRates, Tap};
use tracing::debug_span;

use super::rows::ReadByTeacher;
use crate::inference::{announce, packed};
use crate::objective::{FusedLoss, LossReport, Objective, ObjectiveRows, Projections, StepCounts, TokenValues};
use crate::signal::TeacherSignal;
use crate::tasks::{Questions, Targets};

#[cfg(test)]
mod tests;

/// The data that steps are prepared from.
pub(crate) struct Examples<'a> {
    pub(crate) encodings: &'a Encodings,
    pub(crate) labels: &'a [Option<u32>],
    /// Looks up the teacher's outputs for what some rows are asked; `None` if the loss does not need them.
    pub(crate) teacher: Option<&'a TeacherLookup<'a>>,
    /// The targets of the rows.
    pub(crate) targets: &'a Targets,
    /// The rows as a teacher beside the student reads them, if there is one.
    pub(crate) read_by_teacher: Option<&'a ReadByTeacher>,
    /// Looks up the teacher's hidden states for some rows, where they are stored.
    pub(crate) hidden_states: Option<&'a HiddenLookup<'a>>,
    /// How many times each row is in its step: see [`Objective::views`].
    pub(crate) views: usize,
}

/// Looks up the teacher's outputs for rows and what they are asked; called from several threads.
pub(crate) type TeacherLookup<'a> = dyn Fn(&[u32], &Questions) -> anyhow::Result<TeacherSignal> + Sync + 'a;

/// Looks up the teacher's hidden states for rows; called from several threads.
pub(crate) type HiddenLookup<'a> = dyn Fn(&[u32]) -> anyhow::Result<BTreeMap<Tap, Vec<f32>>> + Sync + 'a;

/// A prepared micro-batch.
pub(crate) struct Prepared {
    questions: Questions,
    teacher: Option<TeacherSignal>,
    /// For a teacher beside the student.
    read_by_teacher: Option<TokenBatch>,
    /// The teacher's stored hidden states.
    hidden_states: BTreeMap<Tap, Vec<f32>>,
}

impl Examples<'_> {
    /// Prepares the micro-batches of a step in this pass over the data.
    pub(crate) fn prepare(&self, pass: u64, micro_batches: &[Vec<u32>]) -> anyhow::Result<Vec<Prepared>> {
        micro_batches.iter().map(|rows| self.micro_batch(pass, rows)).collect()
    }

    fn micro_batch(&self, pass: u64, rows: &[u32]) -> anyhow::Result<Prepared> {
        let questions = self.targets.ask(pass, self.encodings, self.labels, rows, self.views);
        let teacher = self.teacher.map(|teacher| teacher(rows, &questions)).transpose()?;
        let read_by_teacher = self.read_by_teacher.map(|read| match read {
            ReadByTeacher::Rows(encodings) => TokenBatch::gather(encodings, rows),
            ReadByTeacher::Masked => questions.batch.clone(),
        });
        let hidden_states = self.hidden_states.map(|lookup| lookup(rows)).transpose()?.unwrap_or_default();
        Ok(Prepared { questions, teacher, read_by_teacher, hidden_states })
    }
}

/// A model in training, with its loss.
pub(crate) struct Learner<'a> {
    pub(crate) model: &'a mut Model,
    /// Runs beside it on the same rows.
    teacher: Option<&'a mut Model>,
    objective: Cow<'a, Objective>,
    /// Of hidden states to the teacher's width, where terms need it.
    pub(crate) projections: Projections,
    projection_rates: ProjectionRates,
    clip: Clip,
    /// The loss in the form that a device can compute; otherwise the host computes it.
    fused: Option<FusedLoss>,
    /// Whether the teacher's rows have all logits.
    whole_rows: bool,
    /// Whether the device computed the latest loss.
    on_device: bool,
    /// The loss of the step so far, if the host computes it.
    loss: LossReport,
    /// Steps whose outcome is not yet known.
    open: VecDeque<Open<'a>>,
}

/// How projections are trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ProjectionRates {
    /// What the student's learning rate is multiplied by.
    pub(crate) factor: f64,
    pub(crate) weight_decay: f64,
}

impl Default for ProjectionRates {
    fn default() -> Self {
        Self { factor: 1.0, weight_decay: 0.0 }
    }
}

struct Open<'a> {
    counts: StepCounts,
    learning_rate: f64,
    loss: Loss<'a>,
}

enum Loss<'a> {
    Known(LossReport),
    /// The device adds up the sums of this one's terms.
    OnDevice(Cow<'a, Objective>),
}

/// The outcome of a step.
pub(crate) struct Outcome {
    /// From 0.
    pub(crate) step: usize,
    pub(crate) loss: LossReport,
    /// L2 norm before clipping; if it is not finite, the step was skipped.
    pub(crate) gradient_norm: f64,
    pub(crate) learning_rate: f64,
}

impl<'a> Learner<'a> {
    /// A model with the optimiser in this state. `whole_rows`: the teacher's rows have all logits, which the loss on a
    /// GPU requires.
    pub(crate) fn new(
        model: &'a mut Model,
        objective: &'a Objective,
        optimizer: AdamW,
        clip: Clip,
        whole_rows: bool,
    ) -> anyhow::Result<Self> {
        announce(&model.compute());
        let fused = objective.fused().filter(|_| whole_rows);
        model.begin(optimizer)?;
        let loss = objective.no_loss();
        let (projections, projection_rates) = (objective.projections(0), ProjectionRates::default());
        Ok(Self {
            model,
            teacher: None,
            objective: Cow::Borrowed(objective),
            projections,
            projection_rates,
            clip,
            fused,
            whole_rows,
            on_device: false,
            loss,
            open: VecDeque::new(),
        })
    }

    /// With a teacher that runs beside the student, without dropout, on what [`Examples::read_by_teacher`] says.
    pub(crate) fn beside(mut self, teacher: Option<&'a mut Model>) -> Self {
        self.teacher = teacher;
        self
    }

    /// With these projections, trained at these rates.
    pub(crate) fn projecting(mut self, projections: Projections, rates: ProjectionRates) -> Self {
        (self.projections, self.projection_rates) = (projections, rates);
        self
    }

    /// From now on with the loss of this part of the training: see [`Objective::at`].
    pub(crate) fn learn(&mut self, objective: Objective) {
        self.fused = objective.fused().filter(|_| self.whole_rows);
        self.loss = objective.no_loss();
        self.objective = Cow::Owned(objective);
    }

    /// Takes step `number`, counted from 0, on these micro-batches; returns their number of rows. `seed` is for the
    /// dropout masks.
    pub(crate) fn take_step(
        &mut self,
        number: usize,
        micro_batches: &[Prepared],
        seed: u64,
        learning_rate: f64,
    ) -> anyhow::Result<usize> {
        let _span = debug_span!("step", step = number + 1).entered();
        let (counts, rows) = self.add_up(number, micro_batches, seed, None)?;
        let rates = StepRates { learning_rate, clip: self.clip };
        debug_span!("update").in_scope(|| self.model.step(number as u64, rates))?;
        let ProjectionRates { factor, weight_decay } = self.projection_rates;
        self.projections.step(factor * learning_rate, weight_decay, self.clip);
        let loss = std::mem::replace(&mut self.loss, self.objective.no_loss());
        let loss = if self.on_device { Loss::OnDevice(self.objective.clone()) } else { Loss::Known(loss) };
        self.open.push_back(Open { counts, learning_rate, loss });
        Ok(rows)
    }

    /// The share of each term in the gradient of a step that is not taken: the norms of the terms' gradients over all
    /// parameters, divided by their sum. Empty where there is a single term.
    pub(crate) fn shares(
        &mut self,
        number: usize,
        micro_batches: &[Prepared],
        seed: u64,
    ) -> anyhow::Result<Vec<(String, f64)>> {
        let terms = self.objective.no_loss().terms;
        if terms.len() < 2 {
            return Ok(Vec::new());
        }
        let _span = debug_span!("gradient of each term", step = number + 1).entered();
        let mut norms = Vec::new();
        for term in 0..terms.len() {
            self.add_up(number, micro_batches, seed, Some(term))?;
            let squares = self.model.gradients()?.flat().iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
            norms.push(squares.sqrt());
            self.model.clear_gradients()?;
            self.projections.clear();
            self.loss = self.objective.no_loss();
        }
        let sum: f64 = norms.iter().sum();
        let share = |norm: f64| if sum > 0.0 { norm / sum } else { 0.0 };
        Ok(terms.iter().zip(norms).map(|(term, norm)| (term.name.to_owned(), share(norm))).collect())
    }

    /// Accumulates the gradient of a step over its micro-batches, of one of its terms if `only` says so; returns its counts
    /// and the number of rows.
    fn add_up(
        &mut self,
        number: usize,
        micro_batches: &[Prepared],
        seed: u64,
        only: Option<usize>,
    ) -> anyhow::Result<(StepCounts, usize)> {
        let mut counts = self.objective.counts(micro_batches.iter().flat_map(|rows| &rows.questions.answers));
        for Prepared { questions, .. } in micro_batches {
            self.objective.count_tokens(&mut counts, &questions.batch.starts);
        }
        let counts = only.iter().fold(counts, |counts, term| counts.of_term(*term));
        let (mut first_answer, mut rows, mut tokens) = (0, 0, 0);
        let masks = DropoutRng::new(seed, number as u64, 0);
        for prepared in micro_batches {
            let masks = masks.behind(rows, tokens);
            let taken = self.micro_batch(prepared, first_answer, &counts, &masks);
            taken.with_context(|| format!("step {}", number + 1))?;
            let Questions { batch, answers, .. } = &prepared.questions;
            first_answer += answers.len();
            rows += batch.rows.len();
            tokens += batch.input_ids.len();
        }
        Ok((counts, rows / self.objective.views()))
    }

    /// Forward, loss and backward of a micro-batch. `first_answer` is the index of its first row of logits within the
    /// step.
    fn micro_batch(
        &mut self,
        Prepared { questions, teacher, read_by_teacher, hidden_states }: &Prepared,
        first_answer: usize,
        counts: &StepCounts,
        masks: &DropoutRng,
    ) -> anyhow::Result<()> {
        let Questions { batch, positions, answers } = questions;
        let [taps, teacher_taps] = self.objective.taps();
        let input = PackedInput { positions: positions.as_deref(), ..packed(batch) };
        let asked: Vec<Tap> = std::iter::once(Tap::Logits).chain(taps.iter().copied()).collect();
        let forward = || self.model.forward(input, &asked, Mode::Train(masks));
        let mut pass = debug_span!("forward").in_scope(forward)?;
        let (of_teacher, live) = match (&mut self.teacher, read_by_teacher) {
            (Some(model), Some(batch)) => {
                let logits = (teacher.is_none() && self.objective.needs_logits()).then_some(Tap::Logits);
                let taps = teacher_taps.into_iter().chain(logits).collect();
                let read = || read_all(model, PackedInput { positions: positions.as_deref(), ..packed(batch) }, &taps);
                let mut values = debug_span!("teacher").in_scope(read)?;
                let logits = values.remove(&Tap::Logits).map(TeacherSignal::Dense);
                (Cow::Owned(values), logits)
            }
            _ => (Cow::Borrowed(hidden_states), None),
        };
        let teacher = teacher.as_ref().or(live.as_ref());
        let loss_span = debug_span!("loss").entered();
        self.on_device = false;
        if let Some(fused) = self.fused.as_ref().filter(|_| !counts.of_one_term) {
            let labels: Vec<i32> = answers.iter().map(|answer| answer.map_or(-1, u32::cast_signed)).collect();
            let loss = SoftHardLoss {
                target_logits: teacher.and_then(TeacherSignal::dense),
                labels: &labels,
                soft_weight: fused.soft_weight / counts.rows as f64,
                temperature: fused.temperature,
                // A step without labels has no hard term.
                hard_weight: fused.hard_weight / counts.labelled.max(1) as f64,
            };
            self.on_device = self.model.soft_hard_loss(&mut pass, loss)?;
        }
        if !self.on_device {
            let logits = self.model.read(&mut pass, Tap::Logits)?;
            let mut d_logits = vec![0.0; logits.len()];
            let rows = ObjectiveRows {
                first_row: first_answer,
                classes: self.model.config().encoder.outputs(),
                student_logits: &logits,
                teacher,
                labels: answers,
            };
            self.loss += &self.objective.evaluate(&rows, counts, &mut d_logits)?;
            pass.enter(Tap::Logits, d_logits)?;
        }
        if !taps.is_empty() {
            let mut values = BTreeMap::new();
            for tap in taps {
                values.insert(tap, self.model.read(&mut pass, tap)?);
            }
            let values = TokenValues { starts: &batch.starts, student: &values, teacher: &of_teacher };
            for (tap, gradient) in
                self.objective.evaluate_tokens(&values, counts, &mut self.projections, &mut self.loss)
            {
                pass.enter(tap, gradient)?;
            }
        }
        drop(loss_span);
        Ok(debug_span!("backward").in_scope(|| self.model.backward(pass))?)
    }

    /// The outcomes of the steps since the last call: all of them or, on a GPU without `wait`, all but the latest.
    pub(crate) fn outcomes(&mut self, wait: bool) -> anyhow::Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for report in self.model.reports(usize::from(!wait))? {
            let Open { counts, learning_rate, loss } = self.open.pop_front().context("a step for each report")?;
            outcomes.push(Outcome {
                step: report.step as usize,
                loss: match loss {
                    Loss::Known(loss) => loss,
                    Loss::OnDevice(objective) => objective.report(report.losses, &counts),
                },
                gradient_norm: report.gradient_norm,
                learning_rate,
            });
        }
        Ok(outcomes)
    }
}

/// The values of a frozen model at some taps.
fn read_all(
    model: &mut Model,
    input: PackedInput<'_>,
    taps: &BTreeSet<Tap>,
) -> anyhow::Result<BTreeMap<Tap, Vec<f32>>> {
    let asked: Vec<Tap> = taps.iter().copied().collect();
    let mut pass = model.forward(input, &asked, Mode::Eval)?;
    let read = |tap: &Tap| Ok((*tap, model.read(&mut pass, *tap)?));
    asked.iter().map(read).collect()
}
