//! Mean squared error between the logits of teacher and student (Ba and Caruana, 2014, "Do Deep Nets Really Need to be
//! Deep?"; Tang et al., 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks").

use serde::{Deserialize, Serialize};

use super::correct::corrected;
use super::error::ObjectiveError;
use super::term::{Reads, Term, TermRow, above_zero};
use crate::default::{is_default, is_one, one};

/// `weight * mean(((student - teacher) / temperature)^2)` over rows and classes: `torch.nn.MSELoss` of the scaled logits, and
/// `kd_mse_loss` of TextBrewer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogitsMse {
    /// Weight of the term.
    weight: f64,
    /// The logits of both models are divided by it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    temperature: f64,
    /// Whether a teacher that contradicts a label is [corrected](super::correct).
    #[serde(default, skip_serializing_if = "is_default")]
    correct_teacher: bool,
}

impl Term for LogitsMse {
    fn name(&self) -> &'static str {
        "logits_mse"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn check(&self) -> Result<(), ObjectiveError> {
        above_zero(self.name(), "temperature", self.temperature)
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads::All(self.temperature))
    }

    fn add_row(&self, row: &TermRow<'_>, scale: f64, gradient: &mut [f64]) -> f64 {
        let teacher = corrected(row.teacher_logits(), row.label.filter(|_| self.correct_teacher));
        row.over_views(scale, gradient, |student, scale, gradient| {
            add_row(student, &teacher, self.temperature, scale, gradient)
        })
    }

    fn words(&self) -> String {
        let corrected = if self.correct_teacher { ", the teacher corrected by the labels" } else { "" };
        let scaled = if is_one(&self.temperature) { String::new() } else { format!(" at T = {}", self.temperature) };
        format!("{} × mean squared error of the logits{scaled}{corrected}", self.weight)
    }
}

/// Adds `scale` times the gradient of one row to `gradient`, and returns the row's loss, the mean over classes of
/// `((student - teacher) / T)^2`. The gradient is `2 (student - teacher) / (T^2 K)`.
///
/// # Shapes
/// - `student`, `teacher`, `gradient`: `[K]`
fn add_row(student: &[f32], teacher: &[f32], temperature: f64, scale: f64, gradient: &mut [f64]) -> f64 {
    let mut loss = 0.0;
    let part = 1.0 / (temperature * temperature * student.len() as f64);
    for ((student, teacher), gradient) in student.iter().zip(teacher).zip(gradient) {
        let difference = f64::from(*student) - f64::from(*teacher);
        loss += part * difference * difference;
        *gradient += scale * 2.0 * part * difference;
    }
    loss
}
