//! Cross-entropy with the row's label. [`Objective`](super::Objective) handles weights, division by counts and rows
//! without a label.

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
