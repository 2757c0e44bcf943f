//! Divergence between the relations of values (Wang et al., 2020, "MiniLM: Deep Self-Attention Distillation for Task-Agnostic
//! Compression of Pre-Trained Transformers").

use serde::{Deserialize, Serialize};

use super::layers::{Counted, LayerMap};
use super::relation::add_own;
use super::term::Term;
use super::tokens::{Compares, Kind, Needs, TokenRow};

/// `weight * KL(teacher || student)` between `softmax(V V^T / sqrt(d))` of both, averaged over heads and tokens, summed over
/// the pairs of layers: `L_VR` of MiniLM, where the tokens of all rows count alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValueRelation {
    /// Weight of the term.
    weight: f64,
    /// Layers that are compared; the last one, as in MiniLM.
    #[serde(default = "LayerMap::last")]
    pub(super) layers: LayerMap,
}

impl Term for ValueRelation {
    fn name(&self) -> &'static str {
        "value_relation"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn compares(&self) -> Option<Compares<'_>> {
        let (kinds, counted, needs) = (&[Kind::Value], Counted::Layers, Needs::Heads);
        Some(Compares { kinds, layers: &self.layers, counted, needs, first_tokens: false })
    }

    fn add_tokens(&self, row: &TokenRow<'_>, scale: f64, gradient: &mut [&mut [f32]]) -> f64 {
        let part = 1.0 / row.heads as f64;
        part * add_own(row.student[0], row.teacher[0], row.tokens, row.heads, scale * part, gradient[0])
    }

    fn words(&self) -> String {
        format!("{} × KL divergence of value relations ({})", self.weight, self.layers)
    }
}
