//! How long each of several settings is trained: successive halving.
//!
//! Jamieson and Talwalkar, *Non-stochastic Best Arm Identification and Hyperparameter Optimization*, 2016: all settings
//! are trained for a short while, the better ones for longer, and so on. Each round (a rung) takes about as long as the
//! others. Of every three settings one goes on, not one of two: with halves the same number of settings takes half as many
//! rungs again, and the cost grows with the number of rungs. Three is also what Li et al., *Hyperband*, 2018, train with.

/// One of so many settings goes on to the next rung, and is trained for so many times as long there.
const KEPT_OF: usize = 3;

/// Fewer optimiser steps tell little about a setting, so that the first rung is not shorter if it can be helped.
const FEWEST_STEPS: usize = 20;

/// One round of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rung {
    /// Settings that are trained.
    pub(super) settings: usize,
    /// Each for this part of the steps of its whole training: one by `divisor`.
    pub(super) divisor: usize,
}

impl Rung {
    /// Steps of a training on this rung, of all those of the whole one.
    pub(super) fn steps(&self, whole: usize) -> usize {
        (whole / self.divisor).max(1)
    }
}

/// The rungs for so many settings, the shortest of whose trainings has so many steps. One setting is left after the last.
pub(super) fn rungs(settings: usize, steps: usize) -> Vec<Rung> {
    let part = |rungs: u32| KEPT_OF.saturating_pow(rungs);
    let enough = (1..).find(|&rungs| part(rungs) >= settings).unwrap_or(1);
    let long_enough = (1..=enough).rev().find(|&rungs| steps / part(rungs) >= FEWEST_STEPS).unwrap_or(1);
    let rung = |number| Rung { settings: settings.div_ceil(part(number)), divisor: part(long_enough - number) };
    (0..long_enough).map(rung).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings and steps of each rung.
    fn plan(settings: usize, steps: usize) -> Vec<(usize, usize)> {
        rungs(settings, steps).iter().map(|rung| (rung.settings, rung.steps(steps))).collect()
    }

    #[test]
    fn a_third_goes_on_and_is_trained_for_three_times_as_long() {
        assert_eq!(plan(9, 900), [(9, 100), (3, 300)]);
        assert_eq!(plan(27, 2700), [(27, 100), (9, 300), (3, 900)]);
        assert_eq!(plan(3, 900), [(3, 300)]);
        assert_eq!(plan(2, 900), [(2, 300)]);
        assert_eq!(plan(4, 900), [(4, 100), (2, 300)]);
        assert_eq!(plan(10, 2700), [(10, 100), (4, 300), (2, 900)]);
    }

    #[test]
    fn short_trainings_have_fewer_rungs_rather_than_shorter_ones() {
        assert_eq!(plan(9, 179), [(9, 59)]);
        assert_eq!(plan(9, 180), [(9, 20), (3, 60)]);
        assert_eq!(plan(27, 180), [(27, 20), (9, 60)]);
        assert_eq!(plan(9, 2), [(9, 1)]);
    }

    #[test]
    fn no_rung_costs_more_than_the_whole_training() {
        for settings in 2..100 {
            let rungs = rungs(settings, 1_000_000);
            assert_eq!(rungs[0].settings, settings);
            for rung in &rungs {
                let cost = rung.settings as f64 / rung.divisor as f64;
                assert!(cost <= 1.0, "{settings}: {rung:?}");
            }
            let last = rungs.last().unwrap();
            assert!(last.settings <= KEPT_OF && last.divisor == KEPT_OF, "{settings}: {last:?}");
        }
    }
}
