//! Mean squared error between attention scores (Jiao et al., 2020, "TinyBERT: Distilling BERT for Natural Language
//! Understanding").

use serde::{Deserialize, Serialize};

use super::attention_kl::add_attention;
use super::layers::{Counted, LayerMap};
use super::term::Term;
use super::tokens::{Compares, Kind, Needs, TokenRow};

/// `weight * mean((student - teacher)^2)` between attention scores before the softmax, over heads and pairs of tokens of a
/// row, summed over the pairs of layers: `att_loss` of TinyBERT, where it has no padding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttentionScoresMse {
    /// Weight of the term.
    weight: f64,
    /// Layers that are compared.
    #[serde(default = "LayerMap::uniform")]
    pub(super) layers: LayerMap,
}

impl Term for AttentionScoresMse {
    fn name(&self) -> &'static str {
        "attention_scores_mse"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn compares(&self) -> Option<Compares<'_>> {
        let (kinds, counted, needs) = (&[Kind::Query, Kind::Key], Counted::Layers, Needs::Heads);
        Some(Compares { kinds, layers: &self.layers, counted, needs, first_tokens: false })
    }

    fn token_weight(&self, tokens: usize) -> f64 {
        (tokens * tokens) as f64
    }

    fn add_tokens(&self, row: &TokenRow<'_>, scale: f64, gradient: &mut [&mut [f32]]) -> f64 {
        let part = 1.0 / row.heads as f64;
        let factor = (2.0 * scale * part) as f32;
        add_attention(row, gradient, |student, teacher| {
            let mut loss = 0.0;
            for (student, teacher) in student.iter_mut().zip(teacher.iter()) {
                let difference = *student - teacher;
                loss += f64::from(difference * difference);
                *student = factor * difference;
            }
            part * loss
        })
    }

    fn words(&self) -> String {
        format!("{} × mean squared error of attention scores ({})", self.weight, self.layers)
    }
}
