//! Mean squared error between hidden states (Jiao et al., 2020, "TinyBERT: Distilling BERT for Natural Language
//! Understanding").

use serde::{Deserialize, Serialize};

use super::layers::{Counted, LayerMap};
use super::term::Term;
use super::tokens::{Compares, Kind, Needs, TokenRow};

/// `weight * mean((student - teacher)^2)` over all tokens and dimensions, summed over the pairs of layers: `loss_mse` of
/// TinyBERT's `rep_loss`, where it has no padding, and `hidden_mse` of TextBrewer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HiddenMse {
    /// Weight of the term.
    weight: f64,
    /// Hidden states that are compared.
    #[serde(default = "LayerMap::uniform")]
    pub(super) layers: LayerMap,
}

impl Term for HiddenMse {
    fn name(&self) -> &'static str {
        "hidden_mse"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn compares(&self) -> Option<Compares<'_>> {
        let (kinds, counted, needs) = (&[Kind::Hidden], Counted::HiddenStates, Needs::Width);
        Some(Compares { kinds, layers: &self.layers, counted, needs, first_tokens: false })
    }

    fn add_tokens(&self, row: &TokenRow<'_>, scale: f64, gradient: &mut [&mut [f32]]) -> f64 {
        let part = row.tokens as f64 / row.student[0].len() as f64;
        let factor = (2.0 * scale * part) as f32;
        let mut loss = 0.0;
        for ((student, teacher), gradient) in row.student[0].iter().zip(row.teacher[0]).zip(gradient[0].iter_mut()) {
            let difference = student - teacher;
            loss += f64::from(difference * difference);
            *gradient += factor * difference;
        }
        part * loss
    }

    fn words(&self) -> String {
        format!("{} × mean squared error of hidden states ({})", self.weight, self.layers)
    }
}
