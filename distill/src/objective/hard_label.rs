//! Cross-entropy with the row's label, with smoothed labels, or as the focal loss.

use serde::{Deserialize, Serialize};

use super::class_weights::ClassWeights;
use super::error::ObjectiveError;
use super::softmax::log_softmax;
use super::term::{Term, TermRow, along, between, zero_or_more};
use crate::default::is_default;

/// `weight * cross-entropy` with the labels; rows without one take no part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HardLabel {
    /// Weight of the term.
    pub(crate) weight: f64,
    // What is left out below has its default, so that records from before it was there say the same.
    /// The weight at the end of the training, to which it moves along a line.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) final_weight: Option<f64>,
    /// The mean over the labels is weighted by them, as in `torch.nn.CrossEntropyLoss`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) class_weights: Option<ClassWeights>,
    /// Exponent of the focal loss; 0 for the cross-entropy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) focal_gamma: f64,
    /// Share of the target that all classes have alike, as in `torch.nn.CrossEntropyLoss`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) label_smoothing: f64,
}

impl HardLabel {
    /// Cross-entropy, all classes alike.
    pub(super) const fn plain(weight: f64) -> Self {
        Self { weight, final_weight: None, class_weights: None, focal_gamma: 0.0, label_smoothing: 0.0 }
    }

    /// Whether it is that, which a GPU computes.
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::plain(self.weight)
    }

    /// As it is after this part of the training.
    pub(super) fn at(&self, part: f64) -> Self {
        Self { weight: between(self.weight, self.final_weight, part), final_weight: None, ..self.clone() }
    }
}

impl Term for HardLabel {
    fn name(&self) -> &'static str {
        "hard_label"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn final_weight(&self) -> Option<f64> {
        self.final_weight
    }

    fn check(&self) -> Result<(), ObjectiveError> {
        zero_or_more(self.name(), "focal_gamma", self.focal_gamma)?;
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let (term, setting, found) = (self.name(), "label_smoothing", self.label_smoothing);
            return Err(ObjectiveError::Setting {
                term,
                setting,
                found,
                expected: "a number from 0 up to, not including, 1",
            });
        }
        match self.focal_gamma > 0.0 && self.label_smoothing > 0.0 {
            true => Err(ObjectiveError::SmoothedFocal),
            false => Ok(()),
        }
    }

    /// A row without a label takes the other terms alone.
    fn row_weight(&self, label: Option<u32>, class_weights: Option<&[f64]>) -> f64 {
        match (label, class_weights) {
            (None, _) => 0.0,
            (Some(_), None) => 1.0,
            (Some(label), Some(weights)) => weights.get(label as usize).copied().unwrap_or(0.0),
        }
    }

    fn add_row(&self, row: &TermRow<'_>, scale: f64, gradient: &mut [f64]) -> f64 {
        let Some(label) = row.label else { return 0.0 };
        let weight = row.class_weights.map_or(1.0, |weights| weights[label]);
        row.over_views(scale, gradient, |student, scale, gradient| {
            let (smoothing, weighted) = (self.label_smoothing, weight * scale);
            if smoothing > 0.0 {
                let hard = (1.0 - smoothing) * weight * add_row(student, label, (1.0 - smoothing) * weighted, gradient);
                return hard + smoothing * add_smooth_row(student, row.class_weights, smoothing * scale, gradient);
            }
            weight
                * match self.focal_gamma {
                    0.0 => add_row(student, label, weighted, gradient),
                    gamma => add_focal_row(student, label, gamma, weighted, gradient),
                }
        })
    }

    fn words(&self) -> String {
        let name = match self.focal_gamma {
            0.0 => "cross-entropy with the labels".to_owned(),
            gamma => format!("focal loss with the labels at gamma = {gamma}"),
        };
        let smoothed = match self.label_smoothing {
            0.0 => String::new(),
            smoothing => format!(", smoothed by {smoothing}"),
        };
        let weighted = self.class_weights.as_ref().map(|weights| format!(", classes weighted {weights}"));
        format!("{} × {name}{smoothed}{}", along(self.weight, self.final_weight), weighted.unwrap_or_default())
    }
}

/// Adds `scale` times the gradient of one row to `gradient`, and returns the row's loss,
/// `-log(softmax(student)[label])`. The gradient is `softmax(student) - onehot(label)`.
///
/// # Shapes
/// - `student`: `[K]`, before softmax, finite
/// - `label`: below `K`
/// - `gradient`: `[K]`
fn add_row(student: &[f32], label: usize, scale: f64, gradient: &mut [f64]) -> f64 {
    let mut loss = 0.0;
    for (class, (log_probability, gradient)) in log_softmax(student, 1.0).zip(gradient).enumerate() {
        let target = if class == label { 1.0 } else { 0.0 };
        loss -= target * log_probability;
        *gradient += scale * (log_probability.exp() - target);
    }
    loss
}

/// As [`add_row`], the mean over all classes in place of the label, each times its weight: what label smoothing adds in
/// `torch.nn.CrossEntropyLoss`.
///
/// # Shapes
/// - `weights`: `[K]`
fn add_smooth_row(student: &[f32], weights: Option<&[f64]>, scale: f64, gradient: &mut [f64]) -> f64 {
    let part = |class: usize| weights.map_or(1.0, |weights| weights[class]) / student.len() as f64;
    let total: f64 = (0..student.len()).map(part).sum();
    let mut loss = 0.0;
    for (class, (log_probability, gradient)) in log_softmax(student, 1.0).zip(gradient).enumerate() {
        loss -= part(class) * log_probability;
        *gradient += scale * (total * log_probability.exp() - part(class));
    }
    loss
}

/// As [`add_row`], for the focal loss (Lin et al., 2017, "Focal Loss for Dense Object Detection"):
/// `-(1 - p)^gamma * log(p)` with `p = softmax(student)[label]`. Rows that the student is already sure of count for less,
/// and for the less the larger gamma is. The paper's `alpha` are the class weights.
///
/// The gradient is that of the cross-entropy times `(1 - p)^gamma * (1 - gamma * p * log(p) / (1 - p))`. `1 - p` is
/// summed over the other classes, and `log(p)` is taken from it where `p` is large, so that their quotient tends to -1
/// as `p` tends to 1; both factors are then finite for every gamma.
///
/// # Shapes
/// - as [`add_row`]; `gamma`: 0 or more
fn add_focal_row(student: &[f32], label: usize, gamma: f64, scale: f64, gradient: &mut [f64]) -> f64 {
    let log_probabilities: Vec<f64> = log_softmax(student, 1.0).collect();
    let others = log_probabilities.iter().enumerate().filter(|(class, _)| *class != label);
    let rest: f64 = others.map(|(_, log_probability)| log_probability.exp()).sum();
    let log_p = if rest < 0.5 { (-rest).ln_1p() } else { log_probabilities[label] };
    let quotient = if rest > 0.0 { log_p / rest } else { -1.0 };
    let focus = rest.powf(gamma);
    let scale = scale * focus * (1.0 - gamma * log_p.exp() * quotient);
    for (class, (log_probability, gradient)) in log_probabilities.iter().zip(gradient).enumerate() {
        *gradient += scale * if class == label { -rest } else { log_probability.exp() };
    }
    -focus * log_p
}
