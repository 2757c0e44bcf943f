//! The terms of a loss as a recipe has them, what each of them is asked, and what is refused of them before there are any
//! rows.

use std::collections::BTreeMap;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::attention_kl::AttentionKl;
use super::attention_scores_mse::AttentionScoresMse;
use super::decoupled::Decoupled;
use super::dist::Dist;
use super::error::ObjectiveError;
use super::hard_label::HardLabel;
use super::hidden_cosine::HiddenCosine;
use super::hidden_mse::HiddenMse;
use super::logits_mse::LogitsMse;
use super::pkd::Pkd;
use super::qkv_relations::QkvRelations;
use super::r_drop::RDrop;
use super::rkd::Rkd;
use super::soft_target::SoftTarget;
use super::tokens::{BatchRow, Compares, TokenRow};
use super::value_relation::ValueRelation;
use crate::signal::TeacherRow;

/// One loss term, as in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "term", rename_all = "snake_case")]
pub(crate) enum LossTermRecipe {
    SoftTarget(SoftTarget),
    LogitsMse(LogitsMse),
    Decoupled(Decoupled),
    Dist(Dist),
    HardLabel(HardLabel),
    RDrop(RDrop),
    HiddenMse(HiddenMse),
    HiddenCosine(HiddenCosine),
    Pkd(Pkd),
    Rkd(Rkd),
    AttentionScoresMse(AttentionScoresMse),
    AttentionKl(AttentionKl),
    ValueRelation(ValueRelation),
    QkvRelations(QkvRelations),
}

/// What the objective asks of a term.
pub(super) trait Term: Sync {
    /// Its name in recipes, messages and `metrics.jsonl`.
    fn name(&self) -> &'static str;

    /// What its mean over the rows is multiplied by in the loss.
    fn weight(&self) -> f64;

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

impl LossTermRecipe {
    /// The weights of the soft and of the hard term where nobody gives them: see docs/measurements.md.
    pub(crate) const DEFAULT_WEIGHTS: [f64; 2] = [0.9, 0.1];

    /// The temperature of the soft term where nobody gives one.
    pub(crate) const DEFAULT_TEMPERATURE: f64 = 4.0;

    /// The plain soft-target term.
    pub(crate) const fn soft_target(weight: f64, temperature: f64) -> Self {
        Self::SoftTarget(SoftTarget::plain(weight, temperature))
    }

    /// The hard-label term as plain cross-entropy.
    pub(crate) const fn hard_label(weight: f64) -> Self {
        Self::HardLabel(HardLabel::plain(weight))
    }

    pub(super) fn term(&self) -> &dyn Term {
        match self {
            Self::SoftTarget(term) => term,
            Self::LogitsMse(term) => term,
            Self::Decoupled(term) => term,
            Self::Dist(term) => term,
            Self::HardLabel(term) => term,
            Self::RDrop(term) => term,
            Self::HiddenMse(term) => term,
            Self::HiddenCosine(term) => term,
            Self::Pkd(term) => term,
            Self::Rkd(term) => term,
            Self::AttentionScoresMse(term) => term,
            Self::AttentionKl(term) => term,
            Self::ValueRelation(term) => term,
            Self::QkvRelations(term) => term,
        }
    }

    /// The term's name in recipes, messages and `metrics.jsonl`.
    pub(crate) fn name(&self) -> &'static str {
        self.term().name()
    }

    /// The term's weight.
    pub(crate) fn weight(&self) -> f64 {
        self.term().weight()
    }

    /// The term in a sentence of a model card.
    pub(crate) fn words(&self) -> String {
        self.term().words()
    }
}

impl FromStr for LossTermRecipe {
    type Err = String;

    /// The name with the keys of a recipe, such as `decoupled,weight=1,temperature=4`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, keys) = text.split_once(',').unwrap_or((text, ""));
        let keys = if keys.trim().is_empty() { String::new() } else { format!(", {keys}") };
        let table = format!("term = {:?}{keys}", name.trim());
        let read = toml::from_str::<BTreeMap<String, Self>>(&format!("of_flag = {{ {table} }}"));
        match read {
            Ok(mut read) => read.remove("of_flag").ok_or_else(|| "no term".to_owned()),
            Err(error) => Err(error.message().to_owned()),
        }
    }
}

/// Whether a term needs the teacher.
pub(crate) fn needs_teacher(terms: &[LossTermRecipe]) -> bool {
    terms.iter().any(|term| term.term().reads().is_some() || term.term().compares().is_some())
}

/// The same loss for a student without its teacher: the hard term, its weights adding up to 1, and whatever else needs no
/// teacher.
pub(crate) fn without_teacher(terms: &[LossTermRecipe]) -> Vec<LossTermRecipe> {
    let is_hard = |term: &&LossTermRecipe| matches!(term, LossTermRecipe::HardLabel(_));
    let of_labels: f64 = terms.iter().filter(is_hard).map(LossTermRecipe::weight).sum();
    let hard = if of_labels == 0.0 { vec![LossTermRecipe::hard_label(1.0)] } else { Vec::new() };
    let left = terms.iter().filter(|term| !needs_teacher(std::slice::from_ref(term))).map(|term| match term.clone() {
        LossTermRecipe::HardLabel(hard) => {
            LossTermRecipe::HardLabel(HardLabel { weight: hard.weight / of_labels, ..hard })
        }
        other => other,
    });
    hard.into_iter().chain(left).collect()
}

/// Refuses terms that make no loss, and R-Drop for a model without dropout, whose two views are the same.
pub(crate) fn check(terms: &[LossTermRecipe], dropout: f64) -> Result<(), ObjectiveError> {
    check_terms(terms)?;
    match terms.iter().any(is_r_drop) && dropout == 0.0 {
        true => Err(ObjectiveError::NoDropout),
        false => Ok(()),
    }
}

pub(super) fn check_terms(terms: &[LossTermRecipe]) -> Result<(), ObjectiveError> {
    if terms.is_empty() {
        return Err(ObjectiveError::Empty);
    }
    for term in terms {
        let term = term.term();
        above_zero(term.name(), "weight", term.weight())?;
        term.check()?;
    }
    let once = |term: &&dyn Term| term.couples_rows() || term.compares().is_some();
    let coupled = terms.iter().map(LossTermRecipe::term).find(once);
    match coupled {
        _ if terms.iter().all(is_r_drop) => Err(ObjectiveError::RDropAlone),
        Some(coupled) if terms.iter().any(is_r_drop) => Err(ObjectiveError::Views { term: coupled.name() }),
        _ => Ok(()),
    }
}

pub(super) fn is_r_drop(term: &LossTermRecipe) -> bool {
    matches!(term, LossTermRecipe::RDrop(_))
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
