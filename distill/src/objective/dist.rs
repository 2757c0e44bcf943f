//! DIST (Huang et al., 2022, "Knowledge Distillation from A Stronger Teacher"): the student's probabilities need not be the
//! teacher's, only correlate with them, across the classes of each row and across the rows of each class.

use serde::{Deserialize, Serialize};

use super::correct::corrected;
use super::error::ObjectiveError;
use super::softmax::log_softmax;
use super::term::{Reads, Term, TermRow, above_zero, zero_or_more};
use crate::default::{is_default, is_one, one};

/// As in the authors' code, so that a correlation with a constant is 0.
const EPSILON: f64 = 1e-8;

/// `weight * T^2 * (beta * mean over rows of (1 - r) + gamma * mean over classes of (1 - r))` with `r` Pearson's correlation of
/// the softmax of teacher and student at `T`, across classes and across the rows of the step: `DIST` of the authors'
/// `dist_kd`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dist {
    /// Weight of the term.
    weight: f64,
    /// The logits of both models are divided by it; the authors' `tau`.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    temperature: f64,
    /// Weight of the part across the classes of a row.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    beta: f64,
    /// Weight of the part across the rows of a class.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    gamma: f64,
    /// Whether a teacher that contradicts a label is [corrected](super::correct).
    #[serde(default, skip_serializing_if = "is_default")]
    correct_teacher: bool,
}

impl Term for Dist {
    fn name(&self) -> &'static str {
        "dist"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn check(&self) -> Result<(), ObjectiveError> {
        above_zero(self.name(), "temperature", self.temperature)?;
        zero_or_more(self.name(), "beta", self.beta)?;
        zero_or_more(self.name(), "gamma", self.gamma)?;
        match self.beta + self.gamma > 0.0 {
            true => Ok(()),
            false => Err(ObjectiveError::NoPart { term: self.name(), parts: "beta and gamma" }),
        }
    }

    fn reads(&self) -> Option<Reads> {
        Some(Reads::All(self.temperature))
    }

    fn couples_rows(&self) -> bool {
        self.gamma > 0.0
    }

    fn add_row(&self, row: &TermRow<'_>, scale: f64, gradient: &mut [f64]) -> f64 {
        let teacher = self.probabilities(&corrected(row.teacher_logits(), row.label.filter(|_| self.correct_teacher)));
        let factor = self.beta * self.temperature * self.temperature;
        row.over_views(scale, gradient, |student, scale, gradient| {
            let student = self.probabilities(student);
            let (correlation, d_student) = correlation(&student, &teacher);
            self.add_through_softmax(&student, &d_student, -scale * factor, gradient);
            factor * (1.0 - correlation)
        })
    }

    fn add_step(&self, rows: &[TermRow<'_>], scale: f64, gradient: &mut [f64]) -> f64 {
        let Some(classes) = rows.first().map(|row| row.classes) else { return 0.0 };
        let by_row = |logits: &dyn Fn(&TermRow<'_>) -> Vec<f64>| rows.iter().map(logits).collect::<Vec<_>>();
        let student = by_row(&|row| self.probabilities(row.student));
        let teacher = by_row(&|row| {
            self.probabilities(&corrected(row.teacher_logits(), row.label.filter(|_| self.correct_teacher)))
        });
        // The objective divides by the number of rows.
        let factor = self.gamma * self.temperature * self.temperature * rows.len() as f64 / classes as f64;
        let mut d_student = vec![vec![0.0; classes]; rows.len()];
        let mut loss = 0.0;
        for class in 0..classes {
            let column = |of: &[Vec<f64>]| of.iter().map(|row| row[class]).collect::<Vec<f64>>();
            let (correlation, d_column) = correlation(&column(&student), &column(&teacher));
            loss += factor * (1.0 - correlation);
            d_student.iter_mut().zip(d_column).for_each(|(row, d_value)| row[class] = d_value);
        }
        for ((student, d_student), gradient) in student.iter().zip(&d_student).zip(gradient.chunks_exact_mut(classes)) {
            self.add_through_softmax(student, d_student, -scale * factor, gradient);
        }
        loss
    }

    fn words(&self) -> String {
        let Self { weight, temperature, beta, gamma, correct_teacher } = self;
        let corrected = if *correct_teacher { ", the teacher corrected by the labels" } else { "" };
        format!("{weight} × T² DIST ({beta} × across classes, {gamma} × across rows) at T = {temperature}{corrected}")
    }
}

impl Dist {
    fn probabilities(&self, logits: &[f32]) -> Vec<f64> {
        log_softmax(logits, self.temperature).map(f64::exp).collect()
    }

    /// Adds `scale` times the gradient with respect to a row's logits, given that with respect to its probabilities:
    /// `y_i (g_i - sum(y g)) / T`.
    fn add_through_softmax(&self, probabilities: &[f64], d_probabilities: &[f64], scale: f64, gradient: &mut [f64]) {
        let mean: f64 = probabilities.iter().zip(d_probabilities).map(|(y, g)| y * g).sum();
        for ((y, g), gradient) in probabilities.iter().zip(d_probabilities).zip(gradient) {
            *gradient += scale * y * (g - mean) / self.temperature;
        }
    }
}

/// Pearson's correlation of `a` and `b`, and its gradient with respect to `a`: with `u`, `v` both less their means and
/// `n = |u| |v| + epsilon`, `r = u v / n` and `dr/du = v / n - (u v) |v| u / (|u| n^2)`, again less its mean.
///
/// # Shapes
/// - `a`, `b`, gradient: of one length
fn correlation(a: &[f64], b: &[f64]) -> (f64, Vec<f64>) {
    let [u, v] = [a, b].map(centred);
    let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let product: f64 = u.iter().zip(&v).map(|(u, v)| u * v).sum();
    let (of_u, of_v) = (norm(&u), norm(&v));
    let n = of_u * of_v + EPSILON;
    // Where `a` is constant, so is the second part.
    let turn = if of_u > 0.0 { product * of_v / (of_u * n * n) } else { 0.0 };
    let gradient: Vec<f64> = u.iter().zip(&v).map(|(u, v)| v / n - turn * u).collect();
    (product / n, centred(&gradient))
}

fn centred(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    values.iter().map(|value| value - mean).collect()
}
