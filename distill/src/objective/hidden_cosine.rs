//! Cosine distance between hidden states (Sanh et al., 2019, "DistilBERT, a distilled version of BERT").

use serde::{Deserialize, Serialize};

use super::layers::{Counted, LayerMap};
use super::term::Term;
use super::tokens::{Compares, Kind, Needs, TokenRow};

/// As in `torch.nn.CosineEmbeddingLoss`.
const EPSILON: f64 = 1e-12;

/// `weight * mean(1 - cos(student, teacher))` over all tokens, summed over the pairs of layers: `loss_cos` of DistilBERT's
/// training code, `torch.nn.CosineEmbeddingLoss` with target 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HiddenCosine {
    /// Weight of the term.
    weight: f64,
    /// Hidden states that are compared.
    #[serde(default = "LayerMap::last")]
    pub(super) layers: LayerMap,
}

impl Term for HiddenCosine {
    fn name(&self) -> &'static str {
        "hidden_cosine"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn compares(&self) -> Option<Compares<'_>> {
        let (kinds, counted, needs) = (&[Kind::Hidden], Counted::HiddenStates, Needs::Width);
        Some(Compares { kinds, layers: &self.layers, counted, needs, first_tokens: false })
    }

    /// With `c` the cosine, the gradient is `c s / |s|^2 - t / (|s| |t|)`.
    fn add_tokens(&self, row: &TokenRow<'_>, scale: f64, gradient: &mut [&mut [f32]]) -> f64 {
        let width = row.student[0].len() / row.tokens;
        let mut loss = 0.0;
        let tokens = row.student[0].chunks_exact(width).zip(row.teacher[0].chunks_exact(width));
        for ((student, teacher), gradient) in tokens.zip(gradient[0].chunks_exact_mut(width)) {
            let squares = dot(student, student) + EPSILON;
            let of_both = (squares * (dot(teacher, teacher) + EPSILON)).sqrt();
            let cosine = dot(student, teacher) / of_both;
            loss += 1.0 - cosine;
            let [along, towards] = [scale * cosine / squares, scale / of_both].map(|factor| factor as f32);
            for ((student, teacher), gradient) in student.iter().zip(teacher).zip(gradient) {
                *gradient += along * student - towards * teacher;
            }
        }
        loss
    }

    fn words(&self) -> String {
        format!("{} × cosine distance of hidden states ({})", self.weight, self.layers)
    }
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
