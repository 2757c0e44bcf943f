//! What training minimises: terms in closed form, each with its gradient at the student's logits.
//!
//! A term gives a sum and a count, and the division happens once, by the counts of the whole optimiser step, so that
//! a step cut into micro-batches has the loss and the gradient of the step in one piece. Models know nothing of this.

mod hard_label;
mod soft_target;
mod softmax;

use std::iter::Sum;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::signal::{TeacherRow, TeacherSignal};

/// A weighted sum of terms over rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Objective {
    terms: Vec<LossTermRecipe>,
}

/// One term, as a recipe writes it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "term", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum LossTermRecipe {
    /// `weight * temperature^2 * KL(teacher || student)` of the softened distributions: see [`soft_target`].
    SoftTarget {
        /// What the term is multiplied by.
        weight: f64,
        /// What both models' logits are divided by.
        temperature: f64,
    },
    /// `weight * cross-entropy` with the label: see [`hard_label`].
    HardLabel {
        /// What the term is multiplied by.
        weight: f64,
    },
}

/// The rows of one micro-batch as the objective sees them.
///
/// # Shapes
/// - `student_logits`: `[B, K]`, before softmax, with `K = classes`
/// - `labels`: `[B]`, class ids below `K` or none
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectiveRows<'a> {
    /// Number of the first of these rows within the optimiser step, for messages.
    pub(crate) first_row: usize,
    /// `K`.
    pub(crate) classes: usize,
    /// What the student says.
    pub(crate) student_logits: &'a [f32],
    /// What the teacher said; needed if [`Objective::needs_teacher`].
    pub(crate) teacher: Option<&'a TeacherSignal>,
    /// The rows' labels.
    pub(crate) labels: &'a [Option<u32>],
}

/// What the terms of one optimiser step, all its micro-batches together, are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepCounts {
    /// All rows: what the soft term is averaged over.
    pub(crate) rows: usize,
    /// Rows with a label: what the hard term is averaged over.
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
    /// An objective of these terms. Refuses an empty one and values that no training survives.
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

    /// Whether a term reads the teacher's logits.
    pub(crate) fn needs_teacher(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, LossTermRecipe::SoftTarget { .. }))
    }

    /// The temperatures that the teacher's softmax is read at.
    pub(crate) fn temperatures(&self) -> impl Iterator<Item = f64> + '_ {
        self.terms.iter().filter_map(|term| match *term {
            LossTermRecipe::SoftTarget { temperature, .. } => Some(temperature),
            LossTermRecipe::HardLabel { .. } => None,
        })
    }

    /// The report of no rows at all, to add micro-batches to.
    pub(crate) fn no_loss(&self) -> LossReport {
        LossReport::new(&self.terms)
    }

    /// The objective in the one form that a GPU computes without the host: at most one term of each kind.
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

    /// The report of a whole step from the sums of its soft and of its hard term.
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

    /// Evaluates every term on a micro-batch and writes the gradient of the step's loss at the student's logits.
    ///
    /// # Shapes
    /// - `d_logits`: `[B, K]`, overwritten; weighted, and divided by `step`'s counts, so that micro-batches add up
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

/// The weights of an objective with at most one term of each kind; a missing term's is 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FusedLoss {
    pub(crate) soft_weight: f64,
    pub(crate) temperature: f64,
    pub(crate) hard_weight: f64,
}

impl LossTermRecipe {
    /// The term's name in recipes, messages and `metrics.jsonl`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::SoftTarget { .. } => "soft_target",
            Self::HardLabel { .. } => "hard_label",
        }
    }

    /// What the term is multiplied by.
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

/// A sum over rows and how many they were: divided once, when all micro-batches are in.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Weighted {
    /// Sum over the rows.
    pub(crate) sum: f64,
    /// Rows in the sum.
    pub(crate) count: usize,
}

impl Weighted {
    /// The mean; 0 over no rows, since a term without rows adds nothing to the loss.
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
    /// Which term.
    pub(crate) term: LossTermRecipe,
    /// Its value, not yet multiplied by its weight.
    pub(crate) loss: Weighted,
}

/// The value of every term over a micro-batch, or over several added up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LossReport {
    /// One entry a term, in the objective's order.
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

/// Why an objective cannot be made or evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ObjectiveError {
    /// Nothing to minimise.
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
    /// The teacher's answers are stored for other temperatures.
    #[error(
        "`soft_target` reads the teacher at temperature {found}, which is not among those that the cache was made for"
    )]
    UnknownTemperature {
        /// The temperature.
        found: f64,
    },
    /// The soft term has nothing to read.
    #[error("`soft_target` needs the teacher's logits, and this batch has none")]
    NoTeacher,
    /// A slice that does not fit the rows.
    #[error("{what}: {found} values, expected {expected} (rows times classes)")]
    Size {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// Rows times classes.
        expected: usize,
    },
    /// A label without a class.
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
