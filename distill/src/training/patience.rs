//! Early stopping: a training ends when evaluations no longer improve.

use serde::{Deserialize, Serialize};

/// The best evaluation so far, and how many there were since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Patience {
    best: Option<f64>,
    since: usize,
}

impl Patience {
    /// Takes in an evaluation, larger for a better one. Returns whether `limit` of them in a row did not gain more than
    /// `min_gain` over the best.
    pub(super) fn is_over(&mut self, merit: f64, limit: Option<usize>, min_gain: f64) -> bool {
        if self.best.is_none_or(|best| merit > best + min_gain) {
            (self.best, self.since) = (Some(merit), 0);
        } else {
            self.since += 1;
        }
        limit.is_some_and(|limit| self.since >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these evaluations there are until the training stops.
    fn evaluations(merits: &[f64], limit: Option<usize>, min_gain: f64) -> Option<usize> {
        let mut patience = Patience::default();
        merits.iter().position(|&merit| patience.is_over(merit, limit, min_gain)).map(|last| last + 1)
    }

    #[test]
    fn a_training_stops_after_evaluations_in_a_row_without_a_gain() {
        let merits = [0.5, 0.6, 0.6, 0.61, 0.6, 0.61, 0.7];
        assert_eq!(evaluations(&merits, Some(1), 0.0), Some(3), "an equal one is no gain");
        assert_eq!(evaluations(&merits, Some(2), 0.0), Some(6));
        assert_eq!(evaluations(&merits, Some(3), 0.0), None);
        assert_eq!(evaluations(&merits, Some(2), 0.05), Some(4), "a small gain is none");
        assert_eq!(evaluations(&merits, None, 0.0), None);
    }
}
