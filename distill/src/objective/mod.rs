//! The training loss: a weighted sum of terms in closed form, each with its gradient with respect to the student's logits,
//! or to its values at the taps that the term reads.
//!
//! A term returns a sum and a count. The division happens once, by the counts of the whole optimiser step, so splitting
//! a step into micro-batches changes neither loss nor gradient.
//!
//! With R-Drop each row is in the step in two views, one after the other, each with dropout masks of its own. Terms on
//! single views are averaged over them, and counts are of rows, whatever the number of views.

mod attention_kl;
mod attention_scores_mse;
mod class_weights;
mod correct;
mod decoupled;
mod dist;
mod error;
mod feature_map;
mod hard_label;
mod hidden_cosine;
mod hidden_mse;
mod layers;
mod logits_mse;
mod pkd;
mod projection;
mod projections;
mod qkv_relations;
mod r_drop;
mod relation;
mod rkd;
mod soft_target;
pub(crate) mod softmax;
mod term;
mod terms;
mod tokens;
mod value_relation;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use nn::{EncoderConfig, Tap};

use crate::signal::{TeacherRow, TeacherSignal};
pub(crate) use class_weights::ClassWeights;
pub(crate) use error::ObjectiveError;
pub(crate) use hard_label::HardLabel;
use projections::OfTerm;
pub(crate) use projections::{Maps, PROJECTIONS, Projections};
pub(crate) use r_drop::RDrop;
pub(crate) use soft_target::{Divergence, SoftTarget};
use term::{Reads, TermRow};
pub(crate) use terms::{LossTermRecipe, about_classes, check, needs_teacher, without_teacher};
use terms::{check_terms, is_r_drop};
pub(crate) use tokens::TokenValues;
use tokens::{BatchRow, Comparisons};

/// The training loss: a weighted sum of terms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Objective {
    terms: Vec<ResolvedTerm>,
}

/// A loss term for the classes of a model.
#[derive(Debug, Clone, PartialEq)]
struct ResolvedTerm {
    recipe: LossTermRecipe,
    /// The weight of each class, `[K]`, if the term has them.
    class_weights: Option<Vec<f64>>,
    /// What it compares of tokens; nothing before the models are known.
    comparisons: Comparisons,
}

/// The inputs of the loss for one micro-batch.
///
/// # Shapes
/// - `student_logits`: `[B, V, K]`, before softmax, with `V` the [views](Objective::views) of a row and `K = classes`
/// - `labels`: `[B]`, class ids below `K` or none
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectiveRows<'a> {
    /// Index of the first of these rows within the optimiser step, for messages.
    pub(crate) first_row: usize,
    /// Number of classes, `K`.
    pub(crate) classes: usize,
    /// The student's logits.
    pub(crate) student_logits: &'a [f32],
    /// The teacher's stored outputs; required if [`Objective::needs_logits`].
    pub(crate) teacher: Option<&'a TeacherSignal>,
    /// The labels.
    pub(crate) labels: &'a [Option<u32>],
}

/// The divisors of the loss terms, over all micro-batches of one optimiser step. Made by [`Objective::counts`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StepCounts {
    /// Number of rows.
    pub(crate) rows: usize,
    /// Number of rows with a label.
    pub(crate) labelled: usize,
    /// What each term is divided by, in the order of the terms: the sum of its rows' weights, so their number unless it
    /// has class weights.
    of_terms: Vec<f64>,
    /// Whether all terms but one are left out.
    pub(crate) of_one_term: bool,
}

impl StepCounts {
    /// For this term alone, by number in the loss.
    pub(crate) fn of_term(mut self, term: usize) -> Self {
        let others = self.of_terms.iter_mut().enumerate().filter(|(number, _)| *number != term);
        others.for_each(|(_, count)| *count = 0.0);
        Self { of_one_term: true, ..self }
    }
}

impl ResolvedTerm {
    fn is_on_tokens(&self) -> bool {
        self.recipe.term().compares().is_some()
    }

    /// How much rows with these offsets count in the mean of a term on tokens.
    fn token_weight(&self, starts: &[u32]) -> f64 {
        starts.windows(2).map(|ends| self.recipe.term().token_weight((ends[1] - ends[0]) as usize)).sum()
    }

    /// How much a row with this label counts in the term's mean.
    fn row_weight(&self, label: Option<u32>) -> f64 {
        self.recipe.term().row_weight(label, self.class_weights.as_deref())
    }

    /// A row as the term sees it.
    fn row<'a>(&'a self, rows: &ObjectiveRows<'a>, views: usize, row: usize) -> Result<TermRow<'a>, ObjectiveError> {
        let classes = rows.classes;
        let teacher = match (self.recipe.term().reads(), rows.teacher) {
            (Some(Reads::Softmax(temperature) | Reads::All(temperature)), Some(teacher)) => {
                let known = teacher.row(row, classes, temperature);
                Some(known.ok_or(ObjectiveError::UnknownTemperature { found: temperature })?)
            }
            _ => None,
        };
        match (teacher, self.recipe.term().reads()) {
            (Some(TeacherRow::Dense(logits)), _) => _ = finite(logits, "teacher", rows.first_row + row)?,
            (Some(_), Some(Reads::All(_))) => return Err(ObjectiveError::PartOfLogits { term: self.recipe.name() }),
            _ => {}
        }
        Ok(TermRow {
            student: &rows.student_logits[row * views * classes..(row + 1) * views * classes],
            classes,
            teacher,
            label: rows.labels[row].map(|label| label as usize),
            class_weights: self.class_weights.as_deref(),
        })
    }
}

impl Objective {
    /// A loss with these terms, for a model with these classes and training rows with these labels. An error if there is
    /// no term that something can be learned from, a weight, temperature or gamma is out of range, or there are more or
    /// fewer class weights than classes.
    pub(crate) fn new(
        terms: &[LossTermRecipe],
        classes: &[String],
        labels: &[Option<u32>],
    ) -> Result<Self, ObjectiveError> {
        check_terms(terms)?;
        let term = |recipe: &LossTermRecipe| {
            let class_weights = match recipe {
                LossTermRecipe::HardLabel(HardLabel { class_weights: Some(weights), .. }) => {
                    Some(weights.resolve(classes, labels)?)
                }
                _ => None,
            };
            Ok(ResolvedTerm { recipe: recipe.clone(), class_weights, comparisons: Comparisons::default() })
        };
        Ok(Self { terms: terms.iter().map(term).collect::<Result<_, _>>()? })
    }

    /// The same for a student and its teacher of these shapes. An error if a term cannot compare them.
    pub(crate) fn between(mut self, student: &EncoderConfig, teacher: &EncoderConfig) -> Result<Self, ObjectiveError> {
        for term in &mut self.terms {
            if let Some(compares) = term.recipe.term().compares() {
                term.comparisons = Comparisons::of(term.recipe.name(), compares, student, teacher)?;
            }
        }
        Ok(self)
    }

    /// The loss as it is after this part of the training, from 0 to 1; `None` if it is the same throughout.
    pub(crate) fn at(&self, part: f64) -> Option<Self> {
        self.recipes().any(|recipe| recipe.at(part).is_some()).then(|| {
            let term = |term: &ResolvedTerm| {
                let recipe = term.recipe.at(part).unwrap_or_else(|| term.recipe.clone());
                ResolvedTerm { recipe, ..term.clone() }
            };
            Self { terms: self.terms.iter().map(term).collect() }
        })
    }

    /// The first term on the values of tokens, which needs a teacher beside the student, or its stored hidden states.
    pub(crate) fn compares_tokens(&self) -> Option<&'static str> {
        self.recipes().find(|recipe| recipe.term().compares().is_some()).map(LossTermRecipe::name)
    }

    /// Whether all terms on tokens read the first ones of rows alone.
    pub(crate) fn compares_first_tokens_alone(&self) -> bool {
        self.recipes().filter_map(|recipe| recipe.term().compares()).all(|compares| compares.first_tokens)
    }

    /// New projections for the terms that need one.
    pub(crate) fn projections(&self, seed: u64) -> Projections {
        let of_terms = self.terms.iter().map(|term| OfTerm {
            term: term.recipe.name(),
            layers: &term.comparisons.layers,
            widths: term.comparisons.projected,
        });
        Projections::new(seed, of_terms)
    }

    /// The taps that terms on tokens read: the student's, and the teacher's.
    pub(crate) fn taps(&self) -> [BTreeSet<Tap>; 2] {
        let pairs = || self.terms.iter().flat_map(|term| &term.comparisons.pairs);
        [0, 1].map(|side| pairs().flat_map(|pair| pair[side].iter().copied()).collect())
    }

    fn recipes(&self) -> impl Iterator<Item = &LossTermRecipe> {
        self.terms.iter().map(|term| &term.recipe)
    }

    /// Whether a term needs the teacher's logits.
    pub(crate) fn needs_logits(&self) -> bool {
        self.recipes().any(|recipe| recipe.term().reads().is_some())
    }

    /// The first term that needs all of the teacher's logits, if one does.
    pub(crate) fn needs_all_logits(&self) -> Option<&'static str> {
        let needs = |recipe: &&LossTermRecipe| matches!(recipe.term().reads(), Some(Reads::All(_)));
        self.recipes().find(needs).map(LossTermRecipe::name)
    }

    /// The first term between the rows of a step, if there is one: it needs a step to be a single micro-batch.
    pub(crate) fn couples_rows(&self) -> Option<&'static str> {
        self.recipes().find(|recipe| recipe.term().couples_rows()).map(LossTermRecipe::name)
    }

    /// How many times each row is in a step, each time with other dropout masks.
    pub(crate) fn views(&self) -> usize {
        if self.recipes().any(is_r_drop) { 2 } else { 1 }
    }

    /// The temperatures at which the teacher's logits are read.
    pub(crate) fn temperatures(&self) -> impl Iterator<Item = f64> + '_ {
        let reads = self.recipes().filter_map(|recipe| recipe.term().reads());
        reads.map(|(Reads::Softmax(temperature) | Reads::All(temperature))| temperature)
    }

    /// Counts the rows of a step from the labels of all its micro-batches, each row once.
    pub(crate) fn counts<'a>(&self, labels: impl Iterator<Item = &'a Option<u32>>) -> StepCounts {
        let mut counts = StepCounts { rows: 0, labelled: 0, of_terms: vec![0.0; self.terms.len()], of_one_term: false };
        for &label in labels {
            counts.rows += 1;
            counts.labelled += usize::from(label.is_some());
            for (count, term) in counts.of_terms.iter_mut().zip(&self.terms).filter(|(_, term)| !term.is_on_tokens()) {
                *count += term.row_weight(label);
            }
        }
        counts
    }

    /// Counts the tokens of a micro-batch for terms on them, given the offsets of its rows.
    pub(crate) fn count_tokens(&self, counts: &mut StepCounts, starts: &[u32]) {
        for (count, term) in counts.of_terms.iter_mut().zip(&self.terms).filter(|(_, term)| term.is_on_tokens()) {
            *count += term.token_weight(starts);
        }
    }

    /// A report over no rows, to add micro-batches to.
    pub(crate) fn no_loss(&self) -> LossReport {
        let term = |recipe: &LossTermRecipe| TermLoss {
            name: recipe.name(),
            weight: recipe.weight(),
            loss: Weighted::default(),
        };
        LossReport { terms: self.recipes().map(term).collect() }
    }

    /// The loss in the form that a GPU can compute: at most one soft and one hard term, the latter as plain cross-entropy.
    /// `None` for any other.
    pub(crate) fn fused(&self) -> Option<FusedLoss> {
        let mut fused = FusedLoss { soft_weight: 0.0, temperature: 1.0, hard_weight: 0.0 };
        let (mut soft, mut hard) = (0, 0);
        for recipe in self.recipes() {
            match recipe {
                LossTermRecipe::SoftTarget(term) if term.is_plain() => {
                    soft += 1;
                    (fused.soft_weight, fused.temperature) = (term.weight, term.temperature);
                }
                LossTermRecipe::HardLabel(term) if term.is_plain() => {
                    hard += 1;
                    fused.hard_weight = term.weight;
                }
                _ => return None,
            }
        }
        (soft <= 1 && hard <= 1).then_some(fused)
    }

    /// The report of a step whose loss is [fused](Self::fused), from the sums of its soft and its hard term.
    pub(crate) fn report(&self, [soft, hard]: [f64; 2], step: &StepCounts) -> LossReport {
        let mut report = self.no_loss();
        for ((term, recipe), &count) in report.terms.iter_mut().zip(self.recipes()).zip(&step.of_terms) {
            let sum = if matches!(recipe, LossTermRecipe::SoftTarget(_)) { soft } else { hard };
            term.loss = Weighted { sum, count };
        }
        report
    }

    /// Evaluates every term on logits on a micro-batch and writes the gradient of the step's loss with respect to the
    /// student's logits.
    ///
    /// # Shapes
    /// - `d_logits`: `[B, V, K]`, overwritten; weighted and divided by `step`'s counts, so that micro-batches can be
    ///   summed
    pub(crate) fn evaluate(
        &self,
        rows: &ObjectiveRows<'_>,
        step: &StepCounts,
        d_logits: &mut [f32],
    ) -> Result<LossReport, ObjectiveError> {
        let (classes, views) = (rows.classes, self.views());
        rows.check(self.needs_logits(), views, d_logits.len())?;
        let mut report = self.no_loss();
        let width = views * classes;
        for (row, student) in rows.student_logits.chunks_exact(width.max(1)).enumerate() {
            for view in student.chunks_exact(classes) {
                finite(view, "student", rows.first_row + row)?;
            }
        }
        let between = self.between_rows(rows, step, &mut report)?;
        let mut gradient = vec![0.0_f64; width];
        for (row, &label) in rows.labels.iter().enumerate() {
            let span = row * width..(row + 1) * width;
            match &between {
                Some(between) => gradient.copy_from_slice(&between[span.clone()]),
                None => gradient.fill(0.0),
            }
            for ((term, loss), of_step) in self.terms.iter().zip(&mut report.terms).zip(&step.of_terms) {
                if term.is_on_tokens() {
                    continue;
                }
                let count = term.row_weight(label);
                if *of_step > 0.0 {
                    let scale = term.recipe.weight() / of_step;
                    let sum = term.recipe.term().add_row(&term.row(rows, views, row)?, scale, &mut gradient);
                    loss.loss += Weighted { sum, count };
                }
            }
            for (d_logit, &value) in d_logits[span].iter_mut().zip(&gradient) {
                *d_logit = value as f32;
            }
        }
        Ok(report)
    }

    /// Evaluates every term on tokens on a micro-batch and adds to the report; returns the gradient of the step's loss at the
    /// student's taps.
    pub(crate) fn evaluate_tokens(
        &self,
        values: &TokenValues<'_>,
        step: &StepCounts,
        projections: &mut Projections,
        report: &mut LossReport,
    ) -> BTreeMap<Tap, Vec<f32>> {
        let mut gradients = BTreeMap::new();
        let terms = self.terms.iter().zip(&mut report.terms).zip(&step.of_terms).zip(projections.of_terms());
        for (((term, loss), of_step), projection) in terms {
            if term.is_on_tokens() && *of_step > 0.0 {
                let scale = term.recipe.weight() / of_step;
                let add = |rows: Vec<BatchRow<'_>>| term.recipe.term().add_batch(rows, scale);
                let sum = term.comparisons.add(values, projection, &mut gradients, add);
                loss.loss += Weighted { sum, count: term.token_weight(values.starts) };
            }
        }
        gradients
    }

    /// The terms between the rows of a step: their gradient, `[B, V, K]`, if there are any.
    fn between_rows(
        &self,
        rows: &ObjectiveRows<'_>,
        step: &StepCounts,
        report: &mut LossReport,
    ) -> Result<Option<Vec<f64>>, ObjectiveError> {
        let Some(name) = self.couples_rows() else { return Ok(None) };
        if rows.labels.len() != step.rows {
            return Err(ObjectiveError::MicroBatches { term: name });
        }
        let mut gradient = vec![0.0; rows.student_logits.len()];
        for ((term, loss), of_step) in self.terms.iter().zip(&mut report.terms).zip(&step.of_terms) {
            if term.recipe.term().couples_rows() && *of_step > 0.0 {
                let all: Vec<TermRow<'_>> =
                    (0..rows.labels.len()).map(|row| term.row(rows, self.views(), row)).collect::<Result<_, _>>()?;
                let scale = term.recipe.weight() / of_step;
                loss.loss.sum += term.recipe.term().add_step(&all, scale, &mut gradient);
            }
        }
        Ok(Some(gradient))
    }
}

/// The weights of a loss with at most one term of each kind; 0 for a missing term.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FusedLoss {
    pub(crate) soft_weight: f64,
    pub(crate) temperature: f64,
    pub(crate) hard_weight: f64,
}

impl ObjectiveRows<'_> {
    fn check(&self, needs_teacher: bool, views: usize, d_logits: usize) -> Result<(), ObjectiveError> {
        let expected = self.labels.len() * views * self.classes;
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
    /// Sum over the rows, each times its weight.
    pub(crate) sum: f64,
    /// Number of rows in the sum, or the sum of their weights.
    pub(crate) count: f64,
}

impl Weighted {
    /// The mean; 0 if there are no rows, since a term without rows adds nothing to the loss.
    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0.0 { 0.0 } else { self.sum / self.count }
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
    /// The term's name.
    pub(crate) name: &'static str,
    /// Its weight in the loss.
    pub(crate) weight: f64,
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
    /// The loss over the rows reported so far: each term's mean times its weight.
    pub(crate) fn total(&self) -> f64 {
        self.terms.iter().map(|term| term.weight * term.loss.mean()).sum()
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

fn finite<'a>(logits: &'a [f32], model: &'static str, row: usize) -> Result<&'a [f32], ObjectiveError> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        Some(class) => Err(ObjectiveError::NotFinite { row, model, class, value: logits[class] }),
        None => Ok(logits),
    }
}

#[cfg(test)]
mod tests;
