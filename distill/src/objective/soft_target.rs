//! Divergence between the softened distributions of teacher and student (Hinton et al., 2015, "Distilling the Knowledge in a
//! Neural Network").

use std::fmt;

use serde::{Deserialize, Serialize};

use super::correct::corrected;
use super::error::ObjectiveError;
use super::softmax::log_softmax;
use super::term::{Reads, Term, TermRow, above_zero, along, between};
use crate::default::is_default;
use crate::signal::TeacherRow;

/// `weight * T^2 * D(teacher, student)`, summed over classes, where both sides are `softmax(logits / T)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SoftTarget {
    /// Weight of the term.
    pub(crate) weight: f64,
    /// The logits of both models are divided by it.
    pub(crate) temperature: f64,
    // What is left out below has its default, so that records from before it was there say the same.
    /// The weight at the end of the training, to which it moves along a line (teacher annealing: Clark et al., 2019, "BAM!").
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) final_weight: Option<f64>,
    /// The temperature at the end of the training, to which it moves along a line.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) final_temperature: Option<f64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) divergence: Divergence,
    /// Whether the logits of both models are standardised first, row by row, so that the student need not have the teacher's
    /// mean and spread (Sun et al., 2024, "Logit Standardization in Knowledge Distillation").
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) standardize: bool,
    /// Whether a teacher that contradicts a label is [corrected](super::correct).
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) correct_teacher: bool,
}

/// A divergence of the student's distribution `q` from the teacher's `p`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Divergence {
    /// `KL(p || q)`: the student covers all that the teacher thinks possible.
    #[default]
    Forward,
    /// `KL(q || p)`: the student keeps to what the teacher thinks likely.
    Reverse,
    /// `1/2 KL(p || m) + 1/2 KL(q || m)` with `m = (p + q) / 2`: bounded, and between the two.
    JensenShannon,
}

impl Divergence {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Forward, Self::Reverse, Self::JensenShannon];

    /// The word for it on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
            Self::JensenShannon => "jensen-shannon",
        }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl SoftTarget {
    /// KL divergence of the logits as they are.
    pub(super) const fn plain(weight: f64, temperature: f64) -> Self {
        Self {
            weight,
            temperature,
            final_weight: None,
            final_temperature: None,
            divergence: Divergence::Forward,
            standardize: false,
            correct_teacher: false,
        }
    }

    /// Whether it is that, which a GPU computes.
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::plain(self.weight, self.temperature)
    }

    /// As it is after this part of the training.
    pub(super) fn at(&self, part: f64) -> Self {
        Self {
            weight: between(self.weight, self.final_weight, part),
            temperature: between(self.temperature, self.final_temperature, part),
            final_weight: None,
            final_temperature: None,
            ..self.clone()
        }
    }

    fn add_view(&self, student: &[f32], teacher: &[f32], scale: f64, gradient: &mut [f64]) -> f64 {
        let temperature = self.temperature;
        if self.standardize {
            let ([student, teacher], inner) = ([student, teacher].map(Standard::of), &mut vec![0.0; student.len()]);
            let loss = divergence(self.divergence, &student.values, &teacher.values, temperature, scale, inner);
            student.add_gradient(inner, gradient);
            return loss;
        }
        divergence(self.divergence, student, teacher, temperature, scale, gradient)
    }
}

impl Term for SoftTarget {
    fn name(&self) -> &'static str {
        "soft_target"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn final_weight(&self) -> Option<f64> {
        self.final_weight
    }

    fn check(&self) -> Result<(), ObjectiveError> {
        above_zero(self.name(), "temperature", self.temperature)?;
        self.final_temperature.map_or(Ok(()), |found| above_zero(self.name(), "final_temperature", found))
    }

    fn reads(&self) -> Option<Reads> {
        // Of the largest logits the others' share is stored for some temperatures alone.
        Some(match (Self { final_weight: None, ..self.clone() }).is_plain() {
            true => Reads::Softmax(self.temperature),
            false => Reads::All(self.temperature),
        })
    }

    fn add_row(&self, row: &TermRow<'_>, scale: f64, gradient: &mut [f64]) -> f64 {
        let (temperature, label) = (self.temperature, row.label.filter(|_| self.correct_teacher));
        match row.teacher {
            None => 0.0,
            Some(TeacherRow::Dense(teacher)) => {
                let teacher = corrected(teacher, label);
                row.over_views(scale, gradient, |student, scale, gradient| {
                    self.add_view(student, &teacher, scale, gradient)
                })
            }
            Some(TeacherRow::TopK { indices, logits, tail }) => {
                let teacher = TopK { indices, logits, tail };
                row.over_views(scale, gradient, |student, scale, gradient| {
                    add_top_k_row(student, &teacher, temperature, scale, gradient)
                })
            }
            Some(TeacherRow::Sample(drawn)) => row.over_views(scale, gradient, |student, scale, gradient| {
                add_sample_row(student, drawn, temperature, scale, gradient)
            }),
        }
    }

    fn words(&self) -> String {
        let Self { weight, temperature, .. } = self;
        let divergence = match self.divergence {
            Divergence::Forward => "KL(teacher, student)",
            Divergence::Reverse => "KL(student, teacher)",
            Divergence::JensenShannon => "JS(teacher, student)",
        };
        let standardised = if self.standardize { " of standardised logits" } else { "" };
        let corrected = if self.correct_teacher { ", the teacher corrected by the labels" } else { "" };
        let weight = along(*weight, self.final_weight);
        let temperature = along(*temperature, self.final_temperature);
        format!("{weight} × T² {divergence}{standardised} at T = {temperature}{corrected}")
    }
}

/// A row of logits less their mean, divided by their standard deviation.
struct Standard {
    values: Vec<f32>,
    /// `1 / (deviation + 1e-7)`, as in the authors' code.
    factor: f64,
    /// Of the sample, with `K - 1` degrees of freedom.
    deviation: f64,
}

impl Standard {
    fn of(logits: &[f32]) -> Self {
        let count = logits.len() as f64;
        let mean = logits.iter().map(|logit| f64::from(*logit)).sum::<f64>() / count;
        let squares: f64 = logits.iter().map(|logit| (f64::from(*logit) - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
        let factor = 1.0 / (deviation + 1e-7);
        let values = logits.iter().map(|logit| ((f64::from(*logit) - mean) * factor) as f32).collect();
        Self { values, factor, deviation }
    }

    /// Adds the gradient with respect to the logits, given that with respect to the standardised ones.
    ///
    /// # Shapes
    /// - `inner`, `gradient`: `[K]`
    fn add_gradient(&self, inner: &[f64], gradient: &mut [f64]) {
        let count = inner.len() as f64;
        let mean = inner.iter().sum::<f64>() / count;
        let along: f64 = inner.iter().zip(&self.values).map(|(g, value)| g * f64::from(*value)).sum();
        // The deviation's own gradient; there is none where all logits are equal.
        let turn = if self.deviation > 0.0 { along / (self.factor * self.deviation * (count - 1.0)) } else { 0.0 };
        for ((g, value), gradient) in inner.iter().zip(&self.values).zip(gradient) {
            *gradient += self.factor * (g - mean - turn * f64::from(*value));
        }
    }
}

/// One class of `KL(q || p)`, and its derivative with respect to `q`, up to a constant, which makes no difference to logits.
fn reverse(log_p: f64, log_q: f64) -> (f64, f64) {
    (log_q.exp() * (log_q - log_p), log_q - log_p)
}

/// The same of the Jensen-Shannon divergence.
fn jensen_shannon(log_p: f64, log_q: f64) -> (f64, f64) {
    let log_m = log_p.max(log_q) + (0.5 * (1.0 + (-(log_p - log_q).abs()).exp())).ln();
    (0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)), 0.5 * (log_q - log_m))
}

/// Adds `scale` times the gradient of one row to `gradient`, and returns the row's loss, `T^2 D(teacher, student)`. With
/// `d_i` the derivative with respect to the student's probability `q_i` the gradient is `T q_i (d_i - sum(q d))`.
///
/// # Shapes
/// - `student`, `teacher`, `gradient`: `[K]`
fn divergence(
    divergence: Divergence,
    student: &[f32],
    teacher: &[f32],
    temperature: f64,
    scale: f64,
    gradient: &mut [f64],
) -> f64 {
    let of: fn(f64, f64) -> (f64, f64) = match divergence {
        Divergence::Forward => return add_row(student, teacher, temperature, scale, gradient),
        Divergence::Reverse => reverse,
        Divergence::JensenShannon => jensen_shannon,
    };
    let log_q: Vec<f64> = log_softmax(student, temperature).collect();
    let parts: Vec<(f64, f64)> =
        log_softmax(teacher, temperature).zip(&log_q).map(|(log_p, log_q)| of(log_p, *log_q)).collect();
    let mean: f64 = parts.iter().zip(&log_q).map(|((_, d), log_q)| d * log_q.exp()).sum();
    for (((_, d), log_q), gradient) in parts.iter().zip(&log_q).zip(gradient) {
        *gradient += scale * temperature * log_q.exp() * (d - mean);
    }
    temperature * temperature * parts.iter().map(|(value, _)| value).sum::<f64>()
}

/// Adds `scale` times the gradient of one row to `gradient`, and returns the row's loss,
/// `T^2 * KL(softmax(teacher / T) || softmax(student / T))`, summed over classes.
///
/// Softening shrinks gradients by about `1 / T^2`; the factor keeps them comparable across temperatures. The gradient
/// is `T * (softmax(student / T) - softmax(teacher / T))`.
///
/// # Shapes
/// - `student`, `teacher`: `[K]`, before softmax, finite
/// - `gradient`: `[K]`
fn add_row(student: &[f32], teacher: &[f32], temperature: f64, scale: f64, gradient: &mut [f64]) -> f64 {
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
struct TopK<'a> {
    indices: &'a [u32],
    logits: &'a [f32],
    tail: f32,
}

/// As [`add_row`], if the teacher's probabilities are known only for its top k classes and for all others together: the
/// divergence is over those classes and one bucket for the rest.
///
/// With the teacher's `p` and the student's `q`, and `p_rest`, `q_rest` the sums over the rest, the gradient is
/// `T * (q_j - p_j)` at a stored class and `T * q_j * (1 - p_rest / q_rest)` at another.
///
/// # Shapes
/// - `student`, `gradient`: `[K]`; `teacher`: `[k]`
fn add_top_k_row(student: &[f32], teacher: &TopK<'_>, temperature: f64, scale: f64, gradient: &mut [f64]) -> f64 {
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
fn add_sample_row(student: &[f32], drawn: &[u32], temperature: f64, scale: f64, gradient: &mut [f64]) -> f64 {
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
