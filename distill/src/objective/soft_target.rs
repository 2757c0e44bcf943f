//! KL divergence between the softened distributions of teacher and student (Hinton et al., 2015, "Distilling the
//! Knowledge in a Neural Network"). [`Objective`](super::Objective) handles weights and division by counts.

use super::softmax::log_softmax;

/// Adds `scale` times the gradient of one row to `gradient`, and returns the row's loss,
/// `T^2 * KL(softmax(teacher / T) || softmax(student / T))`, summed over classes.
///
/// Softening shrinks gradients by about `1 / T^2`; the factor keeps them comparable across temperatures. The gradient
/// is `T * (softmax(student / T) - softmax(teacher / T))`.
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

/// The largest logits of a row, their classes, and `log(sum(exp(z / T)))` over the others.
pub(super) struct TopK<'a> {
    pub(super) indices: &'a [u32],
    pub(super) logits: &'a [f32],
    pub(super) tail: f32,
}

/// As [`add_row`], if the teacher's probabilities are known only for its top k classes and for all others together: the
/// divergence is over those classes and one bucket for the rest.
///
/// With the teacher's `p` and the student's `q`, and `p_rest`, `q_rest` the sums over the rest, the gradient is
/// `T * (q_j - p_j)` at a stored class and `T * q_j * (1 - p_rest / q_rest)` at another.
///
/// # Shapes
/// - `student`, `gradient`: `[K]`; `teacher`: `[k]`
pub(super) fn add_top_k_row(
    student: &[f32],
    teacher: &TopK<'_>,
    temperature: f64,
    scale: f64,
    gradient: &mut [f64],
) -> f64 {
    let scaled = |logit: &f32| f64::from(*logit) / temperature;
    let tail = f64::from(teacher.tail);
    let top = teacher.logits.iter().map(scaled).fold(tail, f64::max);
    let sum = teacher.logits.iter().map(|logit| (scaled(logit) - top).exp()).sum::<f64>() + (tail - top).exp();
    let log_sum = top + sum.ln();
    let log_q: Vec<f64> = log_softmax(student, temperature).collect();
    let stored: f64 = teacher.indices.iter().map(|&class| log_q[class as usize].exp()).sum();
    // Where the student gives the rest nothing that is left after rounding, its gradient there is nothing too.
    let (p_rest, q_rest) = ((tail - log_sum).exp(), (1.0 - stored).max(f64::MIN_POSITIVE));
    let rest = scale * temperature * (1.0 - p_rest / q_rest);
    let mut divergence = if p_rest > 0.0 { p_rest * (tail - log_sum - q_rest.ln()) } else { 0.0 };
    for (gradient, log_q) in gradient.iter_mut().zip(&log_q) {
        *gradient += rest * log_q.exp();
    }
    for (&class, logit) in teacher.indices.iter().zip(teacher.logits) {
        let (log_p, log_q) = (scaled(logit) - log_sum, log_q[class as usize]);
        divergence += log_p.exp() * (log_p - log_q);
        gradient[class as usize] += scale * temperature * (log_q.exp() - log_p.exp()) - rest * log_q.exp();
    }
    temperature * temperature * divergence
}

/// As [`add_row`], if the teacher's distribution is known only from classes sampled at this temperature: each draw
/// counts as probability `1 / draws`. The expected gradient is that of [`add_row`].
///
/// # Shapes
/// - `student`, `gradient`: `[K]`; `drawn`: `[draws]`
pub(super) fn add_sample_row(
    student: &[f32],
    drawn: &[u32],
    temperature: f64,
    scale: f64,
    gradient: &mut [f64],
) -> f64 {
    let log_q: Vec<f64> = log_softmax(student, temperature).collect();
    for (gradient, log_q) in gradient.iter_mut().zip(&log_q) {
        *gradient += scale * temperature * log_q.exp();
    }
    let part = 1.0 / drawn.len() as f64;
    let mut divergence = 0.0;
    let mut sorted = drawn.to_vec();
    sorted.sort_unstable();
    for draws in sorted.chunk_by(|a, b| a == b) {
        let (class, share) = (draws[0] as usize, part * draws.len() as f64);
        divergence += share * (share.ln() - log_q[class]);
        gradient[class] -= scale * temperature * share;
    }
    temperature * temperature * divergence
}
