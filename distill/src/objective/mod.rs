//! The training loss: a weighted sum of terms in closed form, each with its gradient with respect to the student's
//! logits.
//!
//! A term returns a sum and a count. The division happens once, by the counts of the whole optimiser step, so splitting
//! a step into micro-batches changes neither loss nor gradient.

mod hard_label;
mod soft_target;
pub(crate) mod softmax;

use std::iter::Sum;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::signal::{TeacherRow, TeacherSignal};

/// The training loss: a weighted sum of terms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Objective {
    terms: Vec<LossTermRecipe>,
}

/// One loss term, as in a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "term", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum LossTermRecipe {
    /// `weight * temperature^2 * KL(teacher || student)`, both softened by the temperature: see [`soft_target`].
    SoftTarget {
        /// Weight of the term.
        weight: f64,
        /// The logits of both models are divided by it.
        temperature: f64,
    },
    /// `weight * cross-entropy` with the label: see [`hard_label`].
    HardLabel {
        /// Weight of the term.
        weight: f64,
    },
}

/// The inputs of the loss for one micro-batch.
///
/// # Shapes
/// - `student_logits`: `[B, K]`, before softmax, with `K = classes`
/// - `labels`: `[B]`, class ids below `K` or none
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectiveRows<'a> {
    /// Index of the first of these rows within the optimiser step, for messages.
    pub(crate) first_row: usize,
    /// Number of classes, `K`.
    pub(crate) classes: usize,
    /// The student's logits.
    pub(crate) student_logits: &'a [f32],
    /// The teacher's stored outputs; required if [`Objective::needs_teacher`].
    pub(crate) teacher: Option<&'a TeacherSignal>,
    /// The labels.
    pub(crate) labels: &'a [Option<u32>],
}

/// The divisors of the loss terms, over all micro-batches of one optimiser step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepCounts {
    /// Number of rows, over which the soft term is averaged.
    pub(crate) rows: usize,
    /// Number of rows with a label, over which the hard term is averaged.
    pub(crate) labelled: usize,
}

impl StepCounts {
    /// Counts the rows of a step from their labels.
    pub(crate) fn of(labels: &[Option<u32>]) -> Self {
        Self { rows: labels.len(), labelled: labels.iter().flatten().count() }
    }
}

impl Sum for StepCounts {
    /// Of micro-batches.
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        let none = Self { rows: 0, labelled: 0 };
        parts.fold(none, |sum, part| Self { rows: sum.rows + part.rows, labelled: sum.labelled + part.labelled })
    }
}

impl Objective {
    /// A loss with these terms. An error if there are none, or if a weight or temperature is not a finite number above
    /// 0.
    pub(crate) fn new(terms: Vec<LossTermRecipe>) -> Result<Self, ObjectiveError> {
        if terms.is_empty() {
            return Err(ObjectiveError::Empty);
        }
        for term in &terms {
            let weight = term.weight();
            if !(weight > 0.0 && weight.is_finite()) {
                return Err(ObjectiveError::Weight { term: term.name(), found: weight });
            }
            if let LossTermRecipe::SoftTarget { temperature, .. } = *term
                && !(temperature > 0.0 && temperature.is_finite())
            {
                return Err(ObjectiveError::Temperature { found: temperature });
            }
        }
        Ok(Self { terms })
    }

    /// Whether a term needs the teacher's logits.
    pub(crate) fn needs_teacher(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, LossTermRecipe::SoftTarget { .. }))
    }

    /// The temperatures at which the teacher's softmax is needed.
    pub(crate) fn temperatures(&self) -> impl Iterator<Item = f64> + '_ {
        self.terms.iter().filter_map(|term| match *term {
            LossTermRecipe::SoftTarget { temperature, .. } => Some(temperature),
            LossTermRecipe::HardLabel { .. } => None,
        })
    }

    /// A report over no rows, to add micro-batches to.
    pub(crate) fn no_loss(&self) -> LossReport {
        LossReport::new(&self.terms)
    }

    /// The loss in the form that a GPU can compute: at most one term of each kind. `None` if there are more.
    pub(crate) fn fused(&self) -> Option<FusedLoss> {
        let mut fused = FusedLoss { soft_weight: 0.0, temperature: 1.0, hard_weight: 0.0 };
        let (mut soft, mut hard) = (0, 0);
        for term in &self.terms {
            match *term {
                LossTermRecipe::SoftTarget { weight, temperature } => {
                    soft += 1;
                    (fused.soft_weight, fused.temperature) = (weight, temperature);
                }
                LossTermRecipe::HardLabel { weight } => {
                    hard += 1;
                    fused.hard_weight = weight;
                }
            }
        }
        (soft <= 1 && hard <= 1).then_some(fused)
    }

    /// The report of a step, from the sums of its soft and its hard term.
    pub(crate) fn report(&self, [soft, hard]: [f64; 2], step: StepCounts) -> LossReport {
        let mut report = self.no_loss();
        for term in &mut report.terms {
            term.loss = match term.term {
                LossTermRecipe::SoftTarget { .. } => Weighted { sum: soft, count: step.rows },
                LossTermRecipe::HardLabel { .. } => Weighted { sum: hard, count: step.labelled },
            };
        }
        report
    }

    /// Evaluates every term on a micro-batch and writes the gradient of the step's loss with respect to the student's
    /// logits.
    ///
    /// # Shapes
    /// - `d_logits`: `[B, K]`, overwritten; weighted and divided by `step`'s counts, so that micro-batches can be
    ///   summed
    pub(crate) fn evaluate(
        &self,
        rows: &ObjectiveRows<'_>,
        step: StepCounts,
        d_logits: &mut [f32],
    ) -> Result<LossReport, ObjectiveError> {
        rows.check(self.needs_teacher(), d_logits.len())?;
        let mut report = LossReport::new(&self.terms);
        let mut gradient = vec![0.0_f64; rows.classes];
        for (row, &label) in rows.labels.iter().enumerate() {
            let span = row * rows.classes..(row + 1) * rows.classes;
            let student = finite(&rows.student_logits[span.clone()], "student", rows.first_row + row)?;
            gradient.fill(0.0);
            for (term, loss) in self.terms.iter().zip(&mut report.terms) {
                match (*term, rows.teacher, label) {
                    (LossTermRecipe::SoftTarget { weight, temperature }, Some(teacher), _) => {
                        let Some(teacher) = teacher.row(row, rows.classes, temperature) else {
                            return Err(ObjectiveError::UnknownTemperature { found: temperature });
                        };
                        let scale = weight / step.rows as f64;
                        loss.loss += match teacher {
                            TeacherRow::Dense(teacher) => {
                                let teacher = finite(teacher, "teacher", rows.first_row + row)?;
                                soft_target::add_row(student, teacher, temperature, scale, &mut gradient)
                            }
                            TeacherRow::TopK { indices, logits, tail } => {
                                let teacher = soft_target::TopK { indices, logits, tail };
                                soft_target::add_top_k_row(student, &teacher, temperature, scale, &mut gradient)
                            }
                            TeacherRow::Sample(drawn) => {
                                soft_target::add_sample_row(student, drawn, temperature, scale, &mut gradient)
                            }
                        };
                    }
                    (LossTermRecipe::HardLabel { weight }, _, Some(label)) => {
                        let scale = weight / step.labelled as f64;
                        loss.loss += hard_label::add_row(student, label as usize, scale, &mut gradient);
                    }
                    // A row without a label takes the other terms alone.
                    (LossTermRecipe::HardLabel { .. }, _, None) | (LossTermRecipe::SoftTarget { .. }, None, _) => {}
                }
            }
            for (d_logit, &value) in d_logits[span].iter_mut().zip(&gradient) {
                *d_logit = value as f32;
            }
        }
        Ok(report)
    }
}

/// The weights of a loss with at most one term of each kind; 0 for a missing term.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FusedLoss {
    pub(crate) soft_weight: f64,
    pub(crate) temperature: f64,
    pub(crate) hard_weight: f64,
}

impl LossTermRecipe {
    /// The weight of each term where nobody gives one.
    pub(crate) const DEFAULT_WEIGHT: f64 = 0.5;

    /// The temperature of the soft term where nobody gives one.
    pub(crate) const DEFAULT_TEMPERATURE: f64 = 2.0;

    /// The term's name in recipes, messages and `metrics.jsonl`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::SoftTarget { .. } => "soft_target",
            Self::HardLabel { .. } => "hard_label",
        }
    }

    /// The term's weight.
    pub(crate) fn weight(&self) -> f64 {
        match *self {
            Self::SoftTarget { weight, .. } | Self::HardLabel { weight } => weight,
        }
    }
}

impl ObjectiveRows<'_> {
    fn check(&self, needs_teacher: bool, d_logits: usize) -> Result<(), ObjectiveError> {
        let expected = self.labels.len() * self.classes;
        for (what, found) in [("student logits", self.student_logits.len()), ("gradient", d_logits)] {
            if found != expected {
                return Err(ObjectiveError::Size { what, found, expected });
            }
        }
        if let Some(teacher) = self.teacher {
            let (per_row, found) = teacher.size(self.classes);
            let expected = self.labels.len() * per_row;
            if found != expected {
                return Err(ObjectiveError::Size { what: "teacher logits", found, expected });
            }
        } else if needs_teacher {
            return Err(ObjectiveError::NoTeacher);
        }
        for (row, label) in self.labels.iter().enumerate() {
            if let Some(label) = label.filter(|&label| label as usize >= self.classes) {
                let row = self.first_row + row;
                return Err(ObjectiveError::Label { row, label, classes: self.classes });
            }
        }
        Ok(())
    }
}

/// A sum over rows and their number, divided once, after all micro-batches.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Weighted {
    /// Sum over the rows.
    pub(crate) sum: f64,
    /// Number of rows in the sum.
    pub(crate) count: usize,
}

impl Weighted {
    /// The mean; 0 if there are no rows, since a term without rows adds nothing to the loss.
    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }
}

impl AddAssign<f64> for Weighted {
    /// Adds the value of one row.
    fn add_assign(&mut self, row: f64) {
        self.sum += row;
        self.count += 1;
    }
}

impl AddAssign for Weighted {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// The value of one term.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TermLoss {
    /// The term.
    pub(crate) term: LossTermRecipe,
    /// Its value, before multiplication by its weight.
    pub(crate) loss: Weighted,
}

/// The value of every term over one or more micro-batches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LossReport {
    /// One entry per term, in the order of the loss.
    pub(crate) terms: Vec<TermLoss>,
}

impl LossReport {
    fn new(terms: &[LossTermRecipe]) -> Self {
        Self { terms: terms.iter().map(|&term| TermLoss { term, loss: Weighted::default() }).collect() }
    }

    /// The loss over the rows reported so far: each term's mean times its weight.
    pub(crate) fn total(&self) -> f64 {
        self.terms.iter().map(|term| term.term.weight() * term.loss.mean()).sum()
    }
}

impl AddAssign<&LossReport> for LossReport {
    /// Adds another micro-batch of the same objective.
    fn add_assign(&mut self, other: &Self) {
        for (ours, theirs) in self.terms.iter_mut().zip(&other.terms) {
            ours.loss += theirs.loss;
        }
    }
}

/// Why a loss cannot be created or evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ObjectiveError {
    /// There are no terms.
    #[error("the objective has no term: at least one of weight_soft and weight_hard must be above 0")]
    Empty,
    /// A weight that is not a number above 0.
    #[error("the weight of `{term}` is {found}: it must be a number above 0")]
    Weight {
        /// Name of the term.
        term: &'static str,
        /// Its weight.
        found: f64,
    },
    /// A temperature that is not a number above 0.
    #[error("the temperature of `soft_target` is {found}: it must be a number above 0")]
    Temperature {
        /// The temperature.
        found: f64,
    },
    /// The cache has no data for this temperature.
    #[error(
        "`soft_target` reads the teacher at temperature {found}, which is not among those that the cache was made for"
    )]
    UnknownTemperature {
        /// The temperature.
        found: f64,
    },
    /// The soft term has no teacher outputs.
    #[error("`soft_target` needs the teacher's logits, and this batch has none")]
    NoTeacher,
    /// A slice has the wrong length.
    #[error("{what}: {found} values, expected {expected} (rows times classes)")]
    Size {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The expected length.
        expected: usize,
    },
    /// A label that is not a class id.
    #[error("row {row} of this step: label {label}, but there are {classes} classes, counted from 0")]
    Label {
        /// Row within the step.
        row: usize,
        /// Its label.
        label: u32,
        /// How many classes there are.
        classes: usize,
    },
    /// A logit that is infinite or not a number.
    #[error("row {row} of this step: the {model}'s logit of class {class} is {value}{}",
        if *model == "student" { "; the training diverged: try a lower learning rate" } else { "" })]
    NotFinite {
        /// Row within the step.
        row: usize,
        /// `student` or `teacher`.
        model: &'static str,
        /// Class id.
        class: usize,
        /// The logit.
        value: f32,
    },
}

fn finite<'a>(logits: &'a [f32], model: &'static str, row: usize) -> Result<&'a [f32], ObjectiveError> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        Some(class) => Err(ObjectiveError::NotFinite { row, model, class, value: logits[class] }),
        None => Ok(logits),
    }
}

#[cfg(test)]
mod tests;
