//! Decoupled knowledge distillation (Zhao et al., 2022): the divergence between teacher and student in two parts that are
//! weighed by themselves, the target class against all others, and the others among themselves.

use serde::{Deserialize, Serialize};

use super::correct::{corrected, top_class};
use super::error::ObjectiveError;
use super::softmax::log_softmax;
use super::term::{Reads, Term, TermRow, above_zero, zero_or_more};
use crate::default::{is_default, is_one, one};

/// `weight * T^2 * (alpha * TCKD + beta * NCKD)`, as `dkd_loss` of the authors' mdistiller. The plain KL divergence is
/// `alpha = 1` and `beta` the teacher's probability of all classes but the target, row by row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decoupled {
    /// Weight of the term.
    weight: f64,
    /// The logits of both models are divided by it.
    temperature: f64,
    /// Weight of the divergence between the target class and all others together.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    alpha: f64,
    /// Weight of the divergence among the other classes.
    #[serde(default = "authors_beta")]
    beta: f64,
    /// Whether a teacher that contradicts a label is [corrected](super::correct).
    #[serde(default, skip_serializing_if = "is_default")]
    correct_teacher: bool,
}

/// The authors' choice for CIFAR-100.
fn authors_beta() -> f64 {
    8.0
}

impl Term for Decoupled {
    fn name(&self) -> &'static str {
        "decoupled"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn check(&self) -> Result<(), ObjectiveError> {
        above_zero(self.name(), "temperature", self.temperature)?;
        zero_or_more(self.name(), "alpha", self.alpha)?;
        zero_or_more(self.name(), "beta", self.beta)?;
        match self.alpha + self.beta > 0.0 {
            true => Ok(()),
            false => Err(ObjectiveError::NoPart { term: self.name(), parts: "alpha and beta" }),
        }
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads::All(self.temperature))
    }

    fn add_row(&self, row: &TermRow<'_>, scale: f64, gradient: &mut [f64]) -> f64 {
        let teacher = corrected(row.teacher_logits(), row.label.filter(|_| self.correct_teacher));
        let target = row.label.unwrap_or_else(|| top_class(&teacher));
        row.over_views(scale, gradient, |student, scale, gradient| {
            self.add_view(student, &teacher, target, scale, gradient)
        })
    }

    fn words(&self) -> String {
        let Self { weight, temperature, alpha, beta, correct_teacher } = self;
        let corrected = if *correct_teacher { ", the teacher corrected by the labels" } else { "" };
        format!("{weight} × T² (decoupled KL: {alpha} × target, {beta} × others) at T = {temperature}{corrected}")
    }
}

impl Decoupled {
    /// Adds `scale` times the gradient of one row to `gradient`, and returns the row's loss. The target is the row's label,
    /// or where there is none the teacher's first class.
    ///
    /// With `p` and `q` the probabilities of the target, and `p'` and `q'` those of the other classes among themselves, the
    /// gradient of the first part is `T (q - p)` at the target and `T q'_i (p - q)` elsewhere, that of the second
    /// `T (q'_i - p'_i)`.
    ///
    /// # Shapes
    /// - `student`, `teacher`, `gradient`: `[K]`; `target`: below `K`
    fn add_view(&self, student: &[f32], teacher: &[f32], target: usize, scale: f64, gradient: &mut [f64]) -> f64 {
        let temperature = self.temperature;
        let [student, teacher] = [student, teacher].map(|logits| Split::of(logits, temperature, target));
        let of_target = student.log_target.exp() - teacher.log_target.exp();
        let mut others = 0.0;
        for (class, gradient) in gradient.iter_mut().enumerate() {
            if class == target {
                *gradient += scale * temperature * self.alpha * of_target;
                continue;
            }
            let [log_p, log_q] = [teacher.log_others[class], student.log_others[class]];
            others += log_p.exp() * (log_p - log_q);
            let of_others = log_q.exp() - log_p.exp();
            *gradient += scale * temperature * (self.beta * of_others - self.alpha * log_q.exp() * of_target);
        }
        let kl = |log_p: f64, log_q: f64| if log_p.exp() > 0.0 { log_p.exp() * (log_p - log_q) } else { 0.0 };
        let target = kl(teacher.log_target, student.log_target) + kl(teacher.log_rest, student.log_rest);
        temperature * temperature * (self.alpha * target + self.beta * others)
    }
}

/// A distribution by a target class and the others.
struct Split {
    log_target: f64,
    /// Of all other classes together.
    log_rest: f64,
    /// Of each class among the others; at the target without meaning.
    log_others: Vec<f64>,
}

impl Split {
    fn of(logits: &[f32], temperature: f64, target: usize) -> Self {
        let log: Vec<f64> = log_softmax(logits, temperature).collect();
        let others = || log.iter().enumerate().filter(|(class, _)| *class != target).map(|(_, log)| *log);
        let top = others().fold(f64::NEG_INFINITY, f64::max);
        let log_rest = top + others().map(|log| (log - top).exp()).sum::<f64>().ln();
        Self { log_target: log[target], log_rest, log_others: log.iter().map(|log| log - log_rest).collect() }
    }
}
