//! Cross-entropy with the row's label, and the focal loss, which is the same for a gamma of 0.
//! [`Objective`](super::Objective) handles weights, also those of classes, division by counts and rows without a label.

use super::softmax::log_softmax;

/// Adds `scale` times the gradient of one row to `gradient`, and returns the row's loss,
/// `-log(softmax(student)[label])`. The gradient is `softmax(student) - onehot(label)`.
///
/// # Shapes
/// - `student`: `[K]`, before softmax, finite
/// - `label`: below `K`
/// - `gradient`: `[K]`
pub(super) fn add_row(student: &[f32], label: usize, scale: f64, gradient: &mut [f64]) -> f64 {
    let mut loss = 0.0;
    for (class, (log_probability, gradient)) in log_softmax(student, 1.0).zip(gradient).enumerate() {
        let target = if class == label { 1.0 } else { 0.0 };
        loss -= target * log_probability;
        *gradient += scale * (log_probability.exp() - target);
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
pub(super) fn add_focal_row(student: &[f32], label: usize, gamma: f64, scale: f64, gradient: &mut [f64]) -> f64 {
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
