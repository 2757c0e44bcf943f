//! The error of a form of storage, measured on every output as it is written.

use serde::{Deserialize, Serialize};

use crate::captured::{Captured, Dtype, LogitForm};

/// The error of stored values against the teacher's f32 values, over all outputs of a cache.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RecordedError {
    /// Outputs measured.
    pub outputs: u64,
    /// Largest absolute error of a stored logit.
    pub largest_logit_error: f64,
    /// `KL(teacher || stored)` at each temperature. For the top k, the remaining probability is spread evenly over the
    /// other logits. Empty if nothing is lost, and for samples.
    pub divergences: Vec<Divergence>,
    /// For samples: the total probability of classes that were never drawn, summed over outputs.
    pub missed_mass: f64,
    /// Largest absolute error of a hidden state's value.
    pub largest_hidden_error: f64,
    /// Sums of squares over all values of hidden states: of the errors, and of the values themselves.
    pub hidden_squares: [f64; 2],
}

/// `KL(teacher || stored)` at one temperature.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Divergence {
    /// The temperature.
    pub temperature: f64,
    /// Sum over the outputs, in nats.
    pub sum: f64,
    /// Maximum over the outputs.
    pub largest: f64,
}

impl Divergence {
    pub(crate) fn add(&mut self, divergence: f64) {
        // Logits at the ends of f32 lose more than f64 holds, and JSON has no infinity.
        let divergence = divergence.min(1e280);
        self.sum += divergence;
        self.largest = self.largest.max(divergence);
    }
}

/// The temperatures at which rounded logits are compared; a student may use any other.
const TEMPERATURES: [f64; 3] = [1.0, 2.0, 4.0];

impl RecordedError {
    /// No outputs measured yet.
    pub(crate) fn new(captured: &Captured) -> Self {
        let temperatures = match &captured.logits {
            LogitForm::Dense { dtype: Dtype::F32 } | LogitForm::Sample { .. } => &[],
            LogitForm::Dense { .. } => &TEMPERATURES[..],
            LogitForm::TopK { temperatures, .. } => temperatures,
        };
        let divergences =
            temperatures.iter().map(|&temperature| Divergence { temperature, sum: 0.0, largest: 0.0 }).collect();
        Self {
            outputs: 0,
            largest_logit_error: 0.0,
            divergences,
            missed_mass: 0.0,
            largest_hidden_error: 0.0,
            hidden_squares: [0.0; 2],
        }
    }

    /// Adds what was measured on other outputs in the same form.
    pub(crate) fn add(&mut self, other: &Self) {
        self.outputs += other.outputs;
        self.largest_logit_error = self.largest_logit_error.max(other.largest_logit_error);
        for (ours, theirs) in self.divergences.iter_mut().zip(&other.divergences) {
            ours.sum += theirs.sum;
            ours.largest = ours.largest.max(theirs.largest);
        }
        self.missed_mass += other.missed_mass;
        self.largest_hidden_error = self.largest_hidden_error.max(other.largest_hidden_error);
        for (ours, theirs) in self.hidden_squares.iter_mut().zip(other.hidden_squares) {
            *ours += theirs;
        }
    }

    /// Each temperature with the mean of `KL(teacher || stored)` over the outputs, in nats.
    pub fn mean_divergences(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.divergences.iter().map(|at| (at.temperature, at.sum / self.outputs.max(1) as f64))
    }

    pub(crate) fn compare(&mut self, logits: &[f32], stored: &[f32]) {
        for (logit, stored) in logits.iter().zip(stored) {
            let difference = f64::from(*logit) - f64::from(*stored);
            self.largest_logit_error = self.largest_logit_error.max(difference.abs());
        }
    }

    pub(crate) fn compare_hidden(&mut self, value: f32, stored: f32) {
        let difference = f64::from(value) - f64::from(stored);
        self.largest_hidden_error = self.largest_hidden_error.max(difference.abs());
        self.hidden_squares[0] += difference * difference;
        self.hidden_squares[1] += f64::from(value) * f64::from(value);
    }
}

/// `KL(softmax(logits / T) || softmax(stored / T))`.
pub(crate) fn divergence(logits: &[f32], stored: &[f32], temperature: f64) -> f64 {
    let top = |values: &[f32]| f64::from(values.iter().copied().fold(f32::MIN, f32::max));
    let (top, stored_top) = (top(logits), top(stored));
    let (mut mass, mut stored_mass, mut shifted) = (0.0, 0.0, 0.0);
    for (&logit, &stored) in logits.iter().zip(stored) {
        let scaled = (f64::from(logit) - top) / temperature;
        let stored_scaled = (f64::from(stored) - stored_top) / temperature;
        let power = scaled.exp();
        mass += power;
        stored_mass += stored_scaled.exp();
        shifted += power * (scaled - stored_scaled);
    }
    (shifted / mass + (stored_mass / mass).ln()).max(0.0)
}
