//! The terms of a loss as a recipe has them, and what is refused of them before there are any rows.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::attention_kl::AttentionKl;
use super::attention_scores_mse::AttentionScoresMse;
use super::decoupled::Decoupled;
use super::dist::Dist;
use super::error::ObjectiveError;
use super::feature_map::FeatureMap;
use super::hard_label::HardLabel;
use super::hidden_cosine::HiddenCosine;
use super::hidden_mse::HiddenMse;
use super::layers::LayerMap;
use super::logits_mse::LogitsMse;
use super::pkd::Pkd;
use super::qkv_relations::QkvRelations;
use super::r_drop::RDrop;
use super::rkd::Rkd;
use super::soft_target::SoftTarget;
use super::term::{Term, above_zero, zero_or_more};
use super::value_relation::ValueRelation;

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
    FeatureMap(FeatureMap),
    Pkd(Pkd),
    Rkd(Rkd),
    AttentionScoresMse(AttentionScoresMse),
    AttentionKl(AttentionKl),
    ValueRelation(ValueRelation),
    QkvRelations(QkvRelations),
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

    /// The term as it is after this part of the training; `None` if it stays as it is.
    pub(super) fn at(&self, part: f64) -> Option<Self> {
        match self {
            Self::SoftTarget(term) if term.final_weight.is_some() || term.final_temperature.is_some() => {
                Some(Self::SoftTarget(term.at(part)))
            }
            Self::HardLabel(term) if term.final_weight.is_some() => Some(Self::HardLabel(term.at(part))),
            _ => None,
        }
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
            Self::FeatureMap(term) => term,
            Self::Pkd(term) => term,
            Self::Rkd(term) => term,
            Self::AttentionScoresMse(term) => term,
            Self::AttentionKl(term) => term,
            Self::ValueRelation(term) => term,
            Self::QkvRelations(term) => term,
        }
    }

    /// The term at one layer of the student, counted from 0, and at those of its teacher that it is compared with, for models
    /// with so many layers; `None` if that layer has no part in it.
    pub(crate) fn of_layer(&self, models: [usize; 2], layer: usize) -> Result<Option<Self>, ObjectiveError> {
        let name = self.name();
        let Some(compares) = self.term().compares() else { return Err(ObjectiveError::OfNoLayer { term: name }) };
        let of_layer = compares.layers.of_layer(compares.counted, models, layer);
        let of_layer = of_layer.map_err(|why| ObjectiveError::Models { term: name, why })?;
        let mut term = self.clone();
        Ok(of_layer.map(|of_layer| {
            term.layers().into_iter().for_each(|layers| *layers = of_layer.clone());
            term
        }))
    }

    /// The layers that a term on tokens compares.
    fn layers(&mut self) -> Option<&mut LayerMap> {
        match self {
            Self::HiddenMse(term) => Some(&mut term.layers),
            Self::HiddenCosine(term) => Some(&mut term.layers),
            Self::FeatureMap(term) => Some(&mut term.layers),
            Self::Pkd(term) => Some(&mut term.layers),
            Self::Rkd(term) => Some(&mut term.layers),
            Self::AttentionScoresMse(term) => Some(&mut term.layers),
            Self::AttentionKl(term) => Some(&mut term.layers),
            Self::ValueRelation(term) => Some(&mut term.layers),
            Self::QkvRelations(term) => Some(&mut term.layers),
            Self::SoftTarget(_)
            | Self::LogitsMse(_)
            | Self::Decoupled(_)
            | Self::Dist(_)
            | Self::HardLabel(_)
            | Self::RDrop(_) => None,
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

/// The first option of these terms that is about the classes of rows, by the name of its flag.
pub(crate) fn about_classes(terms: &[LossTermRecipe]) -> Option<&'static str> {
    terms.iter().find_map(|term| match term {
        LossTermRecipe::HardLabel(HardLabel { class_weights: Some(_), .. }) => Some("--class-weights"),
        LossTermRecipe::HardLabel(hard) if hard.focal_gamma > 0.0 => Some("--focal-gamma"),
        LossTermRecipe::HardLabel(hard) if hard.label_smoothing > 0.0 => Some("--label-smoothing"),
        LossTermRecipe::RDrop(_) => Some("--r-drop"),
        _ => None,
    })
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
        // A weight may rise from nothing, or fall to it.
        match term.final_weight() {
            None => above_zero(term.name(), "weight", term.weight())?,
            Some(last) => {
                zero_or_more(term.name(), "weight", term.weight())?;
                zero_or_more(term.name(), "final_weight", last)?;
                above_zero(term.name(), "larger of weight and final_weight", term.weight().max(last))?;
            }
        }
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
