//! Patient knowledge distillation (Sun et al., 2019): the first tokens of inner layers.

use serde::{Deserialize, Serialize};

use super::hidden_cosine::dot;
use super::layers::{Counted, LayerMap};
use super::term::Term;
use super::tokens::{Compares, Kind, Needs, TokenRow};

/// `weight * mean((student / |student| - teacher / |teacher|)^2)` over rows, layers and dimensions of the first tokens:
/// `patience_loss` of the authors' code with `normalized_patience`. By default the layers are those of PKD-skip: evenly
/// spread, without embeddings and the last one, which the logits are made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pkd {
    /// Weight of the term, the authors' beta: 10 to 1000.
    weight: f64,
    /// Hidden states that are compared.
    #[serde(default = "LayerMap::uniform")]
    pub(super) layers: LayerMap,
}

impl Term for Pkd {
    fn name(&self) -> &'static str {
        "pkd"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn compares(&self) -> Option<Compares<'_>> {
        let (kinds, counted, needs) = (&[Kind::Hidden], Counted::InnerHiddenStates, Needs::Width);
        Some(Compares { kinds, layers: &self.layers, counted, needs, first_tokens: true })
    }

    fn token_weight(&self, _: usize) -> f64 {
        1.0
    }

    /// With `u` the student's direction and `g` the gradient with respect to it, that with respect to its hidden state is
    /// `(g - u (u g)) / |student|`.
    fn add_tokens(&self, row: &TokenRow<'_>, scale: f64, gradient: &mut [&mut [f32]]) -> f64 {
        let width = row.student[0].len() / row.tokens;
        let [student, teacher] = [row.student[0], row.teacher[0]].map(|tokens| &tokens[..width]);
        let [of_student, of_teacher] = [student, teacher].map(|values| dot(values, values).sqrt().max(1e-12));
        let part = 1.0 / (width * row.pairs) as f64;
        let differences: Vec<f64> = student
            .iter()
            .zip(teacher)
            .map(|(student, teacher)| f64::from(*student) / of_student - f64::from(*teacher) / of_teacher)
            .collect();
        let along: f64 = student.iter().zip(&differences).map(|(s, d)| f64::from(*s) / of_student * d).sum();
        for ((student, difference), gradient) in student.iter().zip(&differences).zip(gradient[0].iter_mut()) {
            let turned = difference - f64::from(*student) / of_student * along;
            *gradient += (2.0 * scale * part * turned / of_student) as f32;
        }
        part * differences.iter().map(|difference| difference * difference).sum::<f64>()
    }

    fn words(&self) -> String {
        format!("{} × patience: squared distance of the directions of first tokens ({})", self.weight, self.layers)
    }
}
