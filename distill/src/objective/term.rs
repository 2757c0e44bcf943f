//! What the objective asks of a term, and what a term sees of a row.

use rayon::prelude::*;

use super::error::ObjectiveError;
use super::tokens::{BatchRow, Compares, TokenRow};
use crate::signal::TeacherRow;

/// What the objective asks of a term.
pub(super) trait Term: Sync {
    /// Its name in recipes, messages and `metrics.jsonl`.
    fn name(&self) -> &'static str;

    /// What its mean over the rows is multiplied by in the loss.
    fn weight(&self) -> f64;

    /// What the weight moves to along a line, if it does.
    fn final_weight(&self) -> Option<f64> {
        None
    }

    /// Refuses settings that make no sense.
    fn check(&self) -> Result<(), ObjectiveError> {
        Ok(())
    }

    /// What it reads of the teacher's logits.
    fn reads(&self) -> Option<Reads> {
        None
    }

    /// How much a row with this label counts in its mean.
    fn row_weight(&self, label: Option<u32>, class_weights: Option<&[f64]>) -> f64 {
        let _ = (label, class_weights);
        1.0
    }

    /// Of a term on logits: adds `scale` times the gradient of a row to `gradient`, `[V, K]`, and returns the row's loss times
    /// its weight. The scale is the term's weight, divided by the sum of the step's row weights.
    fn add_row(&self, row: &TermRow<'_>, scale: f64, gradient: &mut [f64]) -> f64 {
        let _ = (row, scale, gradient);
        0.0
    }

    /// What it compares of the values of tokens; `None` of a term on logits.
    fn compares(&self) -> Option<Compares<'_>> {
        None
    }

    /// Of a term on tokens: how much a row of so many counts in its mean.
    fn token_weight(&self, tokens: usize) -> f64 {
        tokens as f64
    }

    /// Of a term on tokens: adds `scale` times the gradient of a row at one pair of layers to `gradient`, `[T, width]` of each
    /// kind of values, and returns the row's loss times its weight.
    fn add_tokens(&self, row: &TokenRow<'_>, scale: f64, gradient: &mut [&mut [f32]]) -> f64 {
        let _ = (row, scale, gradient);
        0.0
    }

    /// For a term between the rows of a step: adds to `gradient`, `[B, K]`, and returns the loss of all rows times their
    /// number, besides what [`add_row`](Self::add_row) returns.
    fn add_step(&self, rows: &[TermRow<'_>], scale: f64, gradient: &mut [f64]) -> f64 {
        let _ = (rows, scale, gradient);
        0.0
    }

    /// Whether it has a part between the rows of a step, which a step of several micro-batches does not have at once.
    fn couples_rows(&self) -> bool {
        false
    }

    /// Of a term on tokens: the same for all rows of a micro-batch. Rows are computed side by side, each by itself, so that bits
    /// do not depend on the number of threads; a term between rows does otherwise.
    fn add_batch(&self, rows: Vec<BatchRow<'_>>, scale: f64) -> f64 {
        let add = |(row, mut gradient): BatchRow<'_>| self.add_tokens(&row, scale, &mut gradient);
        let losses: Vec<f64> = rows.into_par_iter().map(add).collect();
        losses.iter().sum()
    }

    /// The term in a sentence of a model card.
    fn words(&self) -> String;
}

/// What a term reads of a teacher's logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reads {
    /// Their softmax at this temperature, in whatever form it is stored.
    Softmax(f64),
    /// All of them; what is made of them is at this temperature.
    All(f64),
}

/// A row as a term sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TermRow<'a> {
    /// `[V, K]`, before softmax, finite.
    pub(super) student: &'a [f32],
    /// `K`
    pub(super) classes: usize,
    /// At the term's temperature; there if the term reads it.
    pub(super) teacher: Option<TeacherRow<'a>>,
    pub(super) label: Option<usize>,
    /// `[K]`
    pub(super) class_weights: Option<&'a [f64]>,
}

impl TermRow<'_> {
    /// The mean of a term over the views of the row, `add` being the term of a single view.
    pub(super) fn over_views(
        &self,
        scale: f64,
        gradient: &mut [f64],
        mut add: impl FnMut(&[f32], f64, &mut [f64]) -> f64,
    ) -> f64 {
        let share = self.classes as f64 / self.student.len() as f64;
        let views = self.student.chunks_exact(self.classes).zip(gradient.chunks_exact_mut(self.classes));
        share * views.map(|(student, gradient)| add(student, share * scale, gradient)).sum::<f64>()
    }

    /// The teacher's logits, `[K]`; none unless all are stored.
    pub(super) fn teacher_logits(&self) -> &[f32] {
        match self.teacher {
            Some(TeacherRow::Dense(logits)) => logits,
            _ => &[],
        }
    }
}

/// A value that moves along a line to its last one, after this part of the way.
pub(super) fn between(first: f64, last: Option<f64>, part: f64) -> f64 {
    last.map_or(first, |last| first + part * (last - first))
}

/// The same in words.
pub(super) fn along(first: f64, last: Option<f64>) -> String {
    last.map_or(first.to_string(), |last| format!("{first} to {last}"))
}

/// Refuses a setting that is not a number above 0.
pub(super) fn above_zero(term: &'static str, setting: &'static str, found: f64) -> Result<(), ObjectiveError> {
    match found > 0.0 && found.is_finite() {
        true => Ok(()),
        false => Err(ObjectiveError::Setting { term, setting, found, expected: "a number above 0" }),
    }
}

/// Refuses a setting that is not a number, 0 or more.
pub(super) fn zero_or_more(term: &'static str, setting: &'static str, found: f64) -> Result<(), ObjectiveError> {
    match found >= 0.0 && found.is_finite() {
        true => Ok(()),
        false => Err(ObjectiveError::Setting { term, setting, found, expected: "a number, 0 or more" }),
    }
}
