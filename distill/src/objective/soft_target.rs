//! Matches the student's softened distribution to the teacher's (Hinton et al., 2015, "Distilling the Knowledge in a
//! Neural Network"). Weights and division by counts are the caller's: see [`Objective`](super::Objective).

use super::log_softmax;

/// Adds the gradient of one row, times `scale`, to `gradient`, and returns the row's value,
/// `T^2 * KL(softmax(teacher / T) || softmax(student / T))`, summed over classes.
///
/// Softening shrinks gradients by `1 / T^2`; the factor keeps them comparable across temperatures. The gradient is
/// `T * (softmax(student / T) - softmax(teacher / T))`.
///
/// # Shapes
/// - `student`, `teacher`: `[K]`, before softmax, finite
/// - `gradient`: `[K]`
pub(super) fn add_row(student: &[f32], teacher: &[f32], temperature: f64, scale: f64, gradient: &mut [f64]) -> f64 {
    let mut divergence = 0.0;
    let log_probabilities = log_softmax(student, temperature).zip(log_softmax(teacher, temperature));
    for ((student, teacher), gradient) in log_probabilities.zip(gradient) {
        let teacher_probability = teacher.exp();
        divergence += teacher_probability * (teacher - student);
        *gradient += scale * temperature * (student.exp() - teacher_probability);
    }
    temperature * temperature * divergence
}
