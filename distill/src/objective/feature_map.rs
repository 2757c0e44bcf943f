//! Feature maps and their statistics (Sun et al., 2020, "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited
//! Devices").

use serde::{Deserialize, Serialize};

use super::error::ObjectiveError;
use super::layers::{Counted, LayerMap};
use super::term::{Term, zero_or_more};
use super::tokens::{Compares, Kind, Needs, TokenRow};

/// Added to a variance before its root is taken, as in BERT's layer norms.
const EPSILON: f64 = 1e-12;

/// `weight * (mean((LN(student) - LN(teacher))^2) + mean * mean((m_s - m_t)^2) + variance * mean(|v_s - v_t|))` over all
/// tokens, summed over the pairs of layers. `LN` is a layer norm without parameters, `m` and `v` are the mean and the variance
/// of a token's hidden state over its dimensions.
///
/// The losses of `DistillationMode.LAYER_WISE` in TensorFlow's `official/projects/edgetpu/nlp/mobilebert_edgetpu_trainer.py`,
/// whose factors of 100, 5000 and 5 are `weight = 100` and the defaults of the other two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeatureMap {
    /// Weight of the term.
    weight: f64,
    /// Hidden states that are compared.
    #[serde(default = "LayerMap::uniform")]
    pub(super) layers: LayerMap,
    /// Weight of the means, next to 1 for the normalised maps.
    #[serde(default = "of_means")]
    mean: f64,
    /// Weight of the variances, likewise.
    #[serde(default = "of_variances")]
    variance: f64,
}

fn of_means() -> f64 {
    50.0
}

fn of_variances() -> f64 {
    0.05
}

/// Mean and variance of a hidden state over its dimensions.
fn statistics(values: &[f32]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let variance = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    [mean, variance]
}

impl FeatureMap {
    /// Adds `scale` times the gradient of a token, and returns its loss.
    fn add_token(&self, student: &[f32], teacher: &[f32], scale: f64, gradient: &mut [f32]) -> f64 {
        let count = student.len() as f64;
        let ([mean, variance], [their_mean, their_variance]) = (statistics(student), statistics(teacher));
        let [root, their_root] = [variance, their_variance].map(|variance| (variance + EPSILON).sqrt().recip());
        let normalised = |value: f32| (f64::from(value) - mean) * root;
        let difference = |ours: f32, theirs: f32| normalised(ours) - (f64::from(theirs) - their_mean) * their_root;
        // Of the gradient of the normalised map: its sum, and its product with the map itself.
        let (mut squares, mut sum, mut along) = (0.0, 0.0, 0.0);
        for (&ours, &theirs) in student.iter().zip(teacher) {
            let difference = difference(ours, theirs);
            squares += difference * difference;
            sum += difference;
            along += difference * normalised(ours);
        }
        let (sum, along) = (sum / count, along / count);
        let of_mean = self.mean * (mean - their_mean);
        let apart = variance - their_variance;
        let sign = if apart == 0.0 { 0.0 } else { apart.signum() };
        for ((&ours, &theirs), gradient) in student.iter().zip(teacher).zip(gradient) {
            let of_map = root * (difference(ours, theirs) - sum - normalised(ours) * along);
            let of_variance = self.variance * sign * (f64::from(ours) - mean);
            *gradient += (scale * 2.0 / count * (of_map + of_mean + of_variance)) as f32;
        }
        squares / count + of_mean * (mean - their_mean) + self.variance * apart.abs()
    }
}

impl Term for FeatureMap {
    fn name(&self) -> &'static str {
        "feature_map"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn check(&self) -> Result<(), ObjectiveError> {
        zero_or_more(self.name(), "mean", self.mean)?;
        zero_or_more(self.name(), "variance", self.variance)
    }

    fn compares(&self) -> Option<Compares<'_>> {
        let (kinds, counted, needs) = (&[Kind::Hidden], Counted::LayerOutputs, Needs::Width);
        Some(Compares { kinds, layers: &self.layers, counted, needs, first_tokens: false })
    }

    fn add_tokens(&self, row: &TokenRow<'_>, scale: f64, gradient: &mut [&mut [f32]]) -> f64 {
        let width = row.student[0].len() / row.tokens;
        let tokens = row.student[0].chunks_exact(width).zip(row.teacher[0].chunks_exact(width));
        let tokens = tokens.zip(gradient[0].chunks_exact_mut(width));
        tokens.map(|((student, teacher), gradient)| self.add_token(student, teacher, scale, gradient)).sum()
    }

    fn words(&self) -> String {
        let Self { weight, layers, mean, variance } = self;
        format!("{weight} × feature maps ({layers}), their means × {mean} and variances × {variance}")
    }
}
