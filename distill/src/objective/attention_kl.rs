//! Divergence between attention probabilities (Wang et al., 2020, "MiniLM"; Sun et al., 2020, "MobileBERT").

use serde::{Deserialize, Serialize};

use super::layers::{Counted, LayerMap};
use super::relation::{HeadColumns, add_gradient, divergence, scores};
use super::term::Term;
use super::tokens::{Compares, Kind, Needs, TokenRow};

/// `weight * KL(teacher || student)` between the attention of each token to the row's, averaged over heads and tokens, summed
/// over the pairs of layers: `L_AT` of MiniLM, where the tokens of all rows count alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttentionKl {
    /// Weight of the term.
    weight: f64,
    /// Layers that are compared; the last one, as in MiniLM.
    #[serde(default = "LayerMap::last")]
    pub(super) layers: LayerMap,
}

impl Term for AttentionKl {
    fn name(&self) -> &'static str {
        "attention_kl"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn compares(&self) -> Option<Compares<'_>> {
        let (kinds, counted, needs) = (&[Kind::Query, Kind::Key], Counted::Layers, Needs::Heads);
        Some(Compares { kinds, layers: &self.layers, counted, needs, first_tokens: false })
    }

    fn add_tokens(&self, row: &TokenRow<'_>, scale: f64, gradient: &mut [&mut [f32]]) -> f64 {
        add_attention(row, gradient, |student, teacher| {
            let part = 1.0 / row.heads as f64;
            part * divergence(student, teacher, scale * part)
        })
    }

    fn words(&self) -> String {
        format!("{} × KL divergence of attention ({})", self.weight, self.layers)
    }
}

/// The sum over heads of a loss on attention scores, which turns the student's into its gradient with respect to them; adds
/// the gradient with respect to queries and keys.
pub(super) fn add_attention(
    row: &TokenRow<'_>,
    gradient: &mut [&mut [f32]],
    mut loss: impl FnMut(&mut [f32], &mut [f32]) -> f64,
) -> f64 {
    let TokenRow { student, teacher, tokens, .. } = row;
    let widths = [student, teacher].map(|values| values[0].len() / tokens);
    let mut sum = 0.0;
    for (ours, theirs) in HeadColumns::of(widths[0], row.heads).zip(HeadColumns::of(widths[1], row.heads)) {
        let mut of_student = scores(student[0], student[1], *tokens, ours);
        let mut of_teacher = scores(teacher[0], teacher[1], *tokens, theirs);
        sum += loss(&mut of_student, &mut of_teacher);
        add_gradient(&of_student, student[1], ours, gradient[0], false);
        add_gradient(&of_student, student[0], ours, gradient[1], true);
    }
    sum
}
