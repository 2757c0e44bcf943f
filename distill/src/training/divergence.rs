//! Notices when a training loses what it had learned.

use serde::{Deserialize, Serialize};

/// Steps over which the loss is averaged.
const WINDOW: usize = 50;

/// The averaged loss of the steps so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Divergence {
    steps: usize,
    mean: f64,
    /// After the first [`WINDOW`] steps.
    first: Option<f64>,
    lowest: f64,
    told: bool,
}

impl Divergence {
    /// Takes a step's loss. Returns a warning, once, if the average has risen to half again its first value, or has lost half
    /// of what it had gained since.
    pub(super) fn see(&mut self, loss: f64) -> Option<String> {
        if !loss.is_finite() {
            return None;
        }
        self.steps += 1;
        self.mean += (loss - self.mean) / self.steps.min(WINDOW) as f64;
        if self.steps < WINDOW {
            return None;
        }
        let first = *self.first.get_or_insert_with(|| {
            self.lowest = self.mean;
            self.mean
        });
        self.lowest = self.lowest.min(self.mean);
        let gained = first - self.lowest;
        // A loss that has hardly fallen has nothing to lose.
        let lost = gained > 0.2 * first && self.mean > self.lowest + 0.5 * gained;
        if (self.mean <= 1.5 * first && !lost) || std::mem::replace(&mut self.told, true) {
            return None;
        }
        Some(format!(
            "warning: the training diverges: its loss, averaged over {WINDOW} steps, was {:.3} and is {:.3}; try a lower \
             --learning-rate or a longer warmup",
            self.lowest, self.mean
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The step after which these losses are warned of, and how often.
    fn told(losses: impl Iterator<Item = f64>) -> Vec<usize> {
        let mut divergence = Divergence::default();
        losses.enumerate().filter_map(|(step, loss)| divergence.see(loss).map(|_| step)).collect()
    }

    #[test]
    fn a_loss_that_falls_or_stays_is_nothing_to_tell() {
        assert_eq!(told((0..1000).map(|step| 4.0 * 0.99f64.powi(step))), [0; 0]);
        assert_eq!(told((0..1000).map(|step| 4.0 + f64::from(step % 3))), [0; 0]);
        // Noise around a low value, as single steps have it.
        assert_eq!(
            told((0..1000).map(|step| if step < 100 { 4.0 } else { 0.1 + 0.4 * f64::from(step % 10 == 0) })),
            [0; 0]
        );
        assert_eq!(told([f64::NAN, f64::INFINITY].into_iter().cycle().take(200)), [0; 0]);
    }

    #[test]
    fn a_loss_that_rises_again_is_told_once() {
        let falls_and_rises = |step: i32| if step < 400 { 4.0 * 0.99f64.powi(step) } else { 5.0 };
        let found = told((0..1000).map(falls_and_rises));
        assert!(matches!(found[..], [step] if (401..450).contains(&step)), "{found:?}");
        assert_eq!(told((0..1000).map(|step| 4.0 + 0.1 * f64::from(step))).len(), 1);
    }
}
