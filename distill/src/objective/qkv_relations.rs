//! Divergence between relations of queries, of keys and of values (Wang et al., 2021, "MiniLMv2: Multi-Head Self-Attention
//! Relation Distillation for Compressing Pretrained Transformers").

use serde::{Deserialize, Serialize};

use super::layers::{Counted, LayerMap};
use super::relation::add_own;
use super::term::Term;
use super::tokens::{Compares, Kind, Needs, TokenRow};

/// `weight * (KL of Q-Q + KL of K-K + KL of V-V)`, each between `softmax(A A^T / sqrt(d))` of teacher and student, averaged
/// over relation heads and tokens, summed over the pairs of layers. Both models' queries, keys and values are split into the
/// same number of relation heads, whatever their own: 48 for the authors' models of BERT-base's width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QkvRelations {
    /// Weight of the term.
    weight: f64,
    /// Relation heads; if not given, the teacher's attention heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heads: Option<usize>,
    /// Layers that are compared; the authors take the last one of a base model, and an inner one of a large teacher.
    #[serde(default = "LayerMap::last")]
    pub(super) layers: LayerMap,
}

impl Term for QkvRelations {
    fn name(&self) -> &'static str {
        "qkv_relations"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn compares(&self) -> Option<Compares<'_>> {
        let (kinds, counted) = (&[Kind::Query, Kind::Key, Kind::Value], Counted::Layers);
        Some(Compares { kinds, layers: &self.layers, counted, needs: Needs::Divided(self.heads), first_tokens: false })
    }

    fn add_tokens(&self, row: &TokenRow<'_>, scale: f64, gradient: &mut [&mut [f32]]) -> f64 {
        let part = 1.0 / row.heads as f64;
        let kinds = row.student.iter().zip(&row.teacher).zip(gradient);
        part * kinds
            .map(|((student, teacher), gradient)| {
                add_own(student, teacher, row.tokens, row.heads, scale * part, gradient)
            })
            .sum::<f64>()
    }

    fn words(&self) -> String {
        format!("{} × KL divergence of query, key and value relations ({})", self.weight, self.layers)
    }
}
