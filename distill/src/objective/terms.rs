//! The terms of a loss as a recipe has them, and what is refused of them before there are any rows.

use serde::{Deserialize, Serialize};

use super::class_weights::ClassWeights;
use super::error::ObjectiveError;

/// One loss term, as in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "term", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum LossTermRecipe {
    /// `weight * temperature^2 * KL(teacher || student)`, both softened by the temperature: see [`soft_target`](super::soft_target).
    SoftTarget {
        /// Weight of the term.
        weight: f64,
        /// The logits of both models are divided by it.
        temperature: f64,
    },
    /// `weight * cross-entropy` with the label, or the focal loss: see [`hard_label`](super::hard_label).
    HardLabel {
        /// Weight of the term.
        weight: f64,
        // What is left out below has its default, so that records from before it was there say the same.
        /// The mean over the labels is weighted by them, as in `torch.nn.CrossEntropyLoss`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class_weights: Option<ClassWeights>,
        /// Exponent of the focal loss; 0 for the cross-entropy.
        #[serde(default, skip_serializing_if = "is_cross_entropy")]
        focal_gamma: f64,
    },
    /// `weight * 1/2 * (KL(p || q) + KL(q || p))` between two views of a row: see [`r_drop`](super::r_drop).
    RDrop {
        /// Weight of the term, the authors' alpha.
        weight: f64,
    },
}

impl LossTermRecipe {
    /// The weight of each term where nobody gives one.
    pub(crate) const DEFAULT_WEIGHT: f64 = 0.5;

    /// The temperature of the soft term where nobody gives one.
    pub(crate) const DEFAULT_TEMPERATURE: f64 = 2.0;

    /// The hard-label term as plain cross-entropy.
    pub(crate) const fn hard_label(weight: f64) -> Self {
        Self::HardLabel { weight, class_weights: None, focal_gamma: 0.0 }
    }

    /// The term's name in recipes, messages and `metrics.jsonl`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::SoftTarget { .. } => "soft_target",
            Self::HardLabel { .. } => "hard_label",
            Self::RDrop { .. } => "r_drop",
        }
    }

    /// The term's weight.
    pub(crate) fn weight(&self) -> f64 {
        match *self {
            Self::SoftTarget { weight, .. } | Self::HardLabel { weight, .. } | Self::RDrop { weight } => weight,
        }
    }
}

/// Whether a term needs the teacher's logits.
pub(crate) fn needs_teacher(terms: &[LossTermRecipe]) -> bool {
    terms.iter().any(|term| matches!(term, LossTermRecipe::SoftTarget { .. }))
}

/// The same loss for a student without its teacher: the hard term, its weights adding up to 1, and whatever else needs no
/// teacher.
pub(crate) fn without_teacher(terms: &[LossTermRecipe]) -> Vec<LossTermRecipe> {
    let is_hard = |term: &&LossTermRecipe| matches!(term, LossTermRecipe::HardLabel { .. });
    let of_labels: f64 = terms.iter().filter(is_hard).map(LossTermRecipe::weight).sum();
    let hard = if of_labels == 0.0 { vec![LossTermRecipe::hard_label(1.0)] } else { Vec::new() };
    let left = terms.iter().filter_map(|term| match term.clone() {
        LossTermRecipe::SoftTarget { .. } => None,
        LossTermRecipe::HardLabel { weight, class_weights, focal_gamma } => {
            Some(LossTermRecipe::HardLabel { weight: weight / of_labels, class_weights, focal_gamma })
        }
        LossTermRecipe::RDrop { weight } => Some(LossTermRecipe::RDrop { weight }),
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
        let weight = term.weight();
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(ObjectiveError::Weight { term: term.name(), found: weight });
        }
        match *term {
            LossTermRecipe::SoftTarget { temperature, .. } if !(temperature > 0.0 && temperature.is_finite()) => {
                return Err(ObjectiveError::Temperature { found: temperature });
            }
            LossTermRecipe::HardLabel { focal_gamma, .. } if !(focal_gamma >= 0.0 && focal_gamma.is_finite()) => {
                return Err(ObjectiveError::FocalGamma { found: focal_gamma });
            }
            _ => {}
        }
    }
    match terms.iter().all(is_r_drop) {
        true => Err(ObjectiveError::RDropAlone),
        false => Ok(()),
    }
}

pub(super) fn is_r_drop(term: &LossTermRecipe) -> bool {
    matches!(term, LossTermRecipe::RDrop { .. })
}

pub(super) fn is_cross_entropy(focal_gamma: &f64) -> bool {
    *focal_gamma == 0.0
}
