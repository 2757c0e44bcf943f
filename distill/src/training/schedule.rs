//! The learning rate of each step: a warm-up, then one of the usual curves.
//!
//! Step for step what the schedulers of Hugging Face `transformers` (`optimization.py`) give, and for [`OneCycle`] and
//! [`Plateau`] those of PyTorch (`torch.optim.lr_scheduler`).
//!
//! [`OneCycle`]: ScheduleKind::OneCycle
//! [`Plateau`]: ScheduleKind::Plateau

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::recipe::{ScheduleKind, ScheduleRecipe};

/// Steps after which an inverse square root without warm-up has fallen to `1 / sqrt(2)`: the default of `transformers`.
const TIMESCALE: f64 = 10_000.0;

/// What a one-cycle schedule's first rate is divided by, and its last one once more: the defaults of PyTorch.
const DIV_FACTOR: f64 = 25.0;
const FINAL_DIV_FACTOR: f64 = 1e4;

/// The learning rates of a training.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    recipe: ScheduleRecipe,
    peak: f64,
    /// Not always whole: a ratio of all steps.
    warmup: Warmup,
    total_steps: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Warmup {
    steps: usize,
    /// Before it was rounded up.
    exact: f64,
}

impl Schedule {
    /// A schedule over `total_steps` optimiser steps. Without a number of warm-up steps, `ceil(total_steps * warmup_ratio)`
    /// warm up.
    pub(crate) fn new(recipe: ScheduleRecipe, peak: f64, warmup_ratio: f64, total_steps: usize) -> Self {
        let exact = recipe.warmup_steps.map_or(total_steps as f64 * warmup_ratio, |steps| steps as f64);
        let warmup = Warmup { steps: exact.ceil() as usize, exact };
        Self { recipe, peak, warmup, total_steps }
    }

    /// The learning rate of a step, counted from 0, after the evaluations that `plateau` has seen. With a warm-up that of
    /// step 0 is 0, except in a single cycle.
    pub(crate) fn learning_rate(&self, step: usize, plateau: &Plateau) -> f64 {
        if self.recipe.kind == ScheduleKind::OneCycle {
            return self.peak * self.one_cycle(step);
        }
        let factor = match step < self.warmup.steps {
            true => step as f64 / self.warmup.steps as f64,
            false => self.after_warmup(step, plateau),
        };
        self.peak * factor
    }

    fn after_warmup(&self, step: usize, plateau: &Plateau) -> f64 {
        let (warmup, total) = (self.warmup.steps, self.total_steps);
        let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        let floor = self.recipe.floor;
        match self.recipe.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => {
                let factor = total.saturating_sub(step) as f64 / total.saturating_sub(warmup).max(1) as f64;
                factor * (1.0 - floor) + floor
            }
            ScheduleKind::Cosine => {
                let cycle = match self.recipe.restarts {
                    0 => progress,
                    _ if progress >= 1.0 => 1.0,
                    restarts => ((restarts + 1) as f64 * progress).fract(),
                };
                (0.5 * (1.0 + (PI * cycle).cos())).max(0.0) * (1.0 - floor) + floor
            }
            ScheduleKind::InverseSqrt => {
                let timescale = if warmup > 0 { warmup as f64 } else { TIMESCALE };
                1.0 / ((step as f64 + timescale - warmup as f64) / timescale).sqrt()
            }
            ScheduleKind::Plateau => plateau.factor.max(floor),
            ScheduleKind::OneCycle => unreachable!("has no warm-up of its own"),
        }
    }

    /// A rise from a 25th to the peak along a cosine over the warm-up, then a fall to a 250,000th.
    fn one_cycle(&self, step: usize) -> f64 {
        let (first, last) = (1.0 / DIV_FACTOR, 1.0 / DIV_FACTOR / FINAL_DIV_FACTOR);
        let (turn, end) = (self.warmup.exact - 1.0, self.total_steps as f64 - 1.0);
        let anneal = |from: f64, to: f64, part: f64| to + (from - to) / 2.0 * (1.0 + (PI * part).cos());
        let step = step as f64;
        match step <= turn && turn > 0.0 {
            true => anneal(first, 1.0, step / turn),
            false => anneal(1.0, last, ((step - turn) / (end - turn).max(f64::MIN_POSITIVE)).min(1.0)),
        }
    }

    /// Tells the plateau of an evaluation, where the schedule waits for one; `merit` is larger for a better one. Returns
    /// whether the rate falls.
    pub(crate) fn evaluated(&self, merit: f64, plateau: &mut Plateau) -> bool {
        let ScheduleRecipe { kind, plateau_patience, plateau_factor, .. } = self.recipe;
        kind == ScheduleKind::Plateau && plateau.see(merit, plateau_patience, plateau_factor)
    }
}

/// What `ReduceLROnPlateau` of PyTorch remembers: the best value so far and how long ago it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plateau {
    factor: f64,
    best: Option<f64>,
    since: usize,
}

impl Default for Plateau {
    fn default() -> Self {
        Self { factor: 1.0, best: None, since: 0 }
    }
}

impl Plateau {
    /// A gain below this part of the best value counts as none: PyTorch's default.
    const THRESHOLD: f64 = 1e-4;

    fn see(&mut self, merit: f64, patience: usize, factor: f64) -> bool {
        let better = self.best.is_none_or(|best| merit > best + best.abs() * Self::THRESHOLD);
        if better {
            self.best = Some(merit);
            self.since = 0;
            return false;
        }
        self.since += 1;
        let falls = self.since > patience;
        if falls {
            self.factor *= factor;
            self.since = 0;
        }
        falls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::FitRecipe;

    fn recipe(kind: ScheduleKind, warmup_steps: usize) -> ScheduleRecipe {
        ScheduleRecipe { kind, warmup_steps: Some(warmup_steps), ..FitRecipe::DEFAULT.schedule() }
    }

    /// A schedule to a peak of 1.
    fn schedule(recipe: ScheduleRecipe, total_steps: usize) -> Schedule {
        Schedule::new(recipe, 1.0, 0.0, total_steps)
    }

    fn check(schedule: &Schedule, expected: &[f64]) {
        for (step, &expected) in expected.iter().enumerate() {
            let found = schedule.learning_rate(step, &Plateau::default());
            assert!((found - expected).abs() < 1e-15, "step {step}: {found}, expected {expected}");
        }
    }

    #[test]
    fn rises_then_falls() {
        // What transformers gives for 4 warm-up steps of 10, peak 1.
        let expected = [0.0, 0.25, 0.5, 0.75, 1.0, 5.0 / 6.0, 4.0 / 6.0, 3.0 / 6.0, 2.0 / 6.0, 1.0 / 6.0, 0.0, 0.0];
        check(&Schedule::new(FitRecipe::DEFAULT.schedule(), 1.0, 0.4, 10), &expected);
        check(&schedule(recipe(ScheduleKind::Linear, 4), 10), &expected);
    }

    #[test]
    fn falls_from_the_first_step_without_warmup() {
        check(&Schedule::new(FitRecipe::DEFAULT.schedule(), 2.0, 0.0, 4), &[2.0, 1.5, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn only_rises_when_all_is_warmup() {
        check(&Schedule::new(FitRecipe::DEFAULT.schedule(), 1.0, 1.0, 4), &[0.0, 0.25, 0.5, 0.75, 0.0]);
    }

    #[test]
    fn part_of_a_warmup_step_counts_as_one() {
        // ceil(0.06 * 20) = 2
        check(&Schedule::new(FitRecipe::DEFAULT.schedule(), 1.0, 0.06, 20), &[0.0, 0.5, 1.0, 17.0 / 18.0]);
        assert_eq!(
            Schedule::new(FitRecipe::DEFAULT.schedule(), 1.0, 0.06, 0).learning_rate(0, &Plateau::default()),
            0.0
        );
    }

    /// `get_cosine_schedule_with_warmup`, its forms with restarts and with a lowest rate, and `get_constant_schedule_with_warmup`
    /// of transformers 5.23.
    #[test]
    fn cosines_and_constants_are_those_of_transformers() {
        check(
            &schedule(recipe(ScheduleKind::Cosine, 3), 10),
            &[
                0.0,
                0.3333333333333333,
                0.6666666666666666,
                1.0,
                0.9504844339512095,
                0.8117449009293668,
                0.6112604669781572,
                0.38873953302184283,
                0.18825509907063326,
                0.04951556604879048,
                0.0,
            ],
        );
        let restarts = ScheduleRecipe { restarts: 2, ..recipe(ScheduleKind::Cosine, 2) };
        check(
            &schedule(restarts, 12),
            &[
                0.0,
                0.5,
                1.0,
                0.7938926261462365,
                0.3454915028125262,
                0.02447174185242329,
                0.9045084971874735,
                0.5,
                0.09549150281252644,
                0.9755282581475769,
                0.6545084971874732,
                0.20610737385376326,
                0.0,
            ],
        );
        let floor = ScheduleRecipe { floor: 0.1, ..recipe(ScheduleKind::Cosine, 2) };
        check(
            &schedule(floor, 10),
            &[
                0.0,
                0.5,
                1.0,
                0.9657457896300791,
                0.8681980515339464,
                0.7222075445642904,
                0.55,
                0.3777924554357096,
                0.23180194846605365,
                0.13425421036992097,
                0.1,
            ],
        );
        check(&schedule(recipe(ScheduleKind::Constant, 3), 5), &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0, 1.0]);
    }

    /// `get_inverse_sqrt_schedule` of transformers 5.23.
    #[test]
    fn inverse_square_roots_are_those_of_transformers() {
        check(
            &schedule(recipe(ScheduleKind::InverseSqrt, 4), 12),
            &[
                0.0,
                0.25,
                0.5,
                0.75,
                1.0,
                0.8944271909999159,
                0.8164965809277261,
                0.7559289460184544,
                0.7071067811865475,
                0.6666666666666666,
                0.6324555320336759,
                0.6030226891555273,
            ],
        );
        let without = schedule(recipe(ScheduleKind::InverseSqrt, 0), 4);
        check(&without, &[1.0, 0.9999500037496877, 0.9999000149975006, 0.9998500337415648]);
    }

    /// `OneCycleLR` of torch 2.11 without the cycle of betas, with `pct_start` 0.3 and 0.25.
    #[test]
    fn a_single_cycle_is_that_of_torch() {
        check(
            &Schedule::new(ScheduleRecipe { warmup_steps: None, ..recipe(ScheduleKind::OneCycle, 0) }, 1.0, 0.3, 10),
            &[
                0.040000000000000036,
                0.52,
                1.0,
                0.9504846320134737,
                0.8117456539497631,
                0.6112620219362893,
                0.38874197806371075,
                0.18825834605023697,
                0.049519367986526286,
            ],
        );
        check(
            &Schedule::new(ScheduleRecipe { warmup_steps: None, ..recipe(ScheduleKind::OneCycle, 0) }, 1.0, 0.25, 11),
            &[
                0.040000000000000036,
                0.6268100482990309,
                0.9977359703426971,
                0.9444179466565644,
                0.8274310572511747,
                0.6635353275227843,
                0.4762111372519605,
                0.29229532432908284,
                0.1381364284155411,
                0.03581989022782975,
            ],
        );
    }

    #[test]
    fn a_single_cycle_of_a_single_warm_up_step_begins_at_its_peak() {
        let rates = |warmup| {
            (0..10)
                .map(|step| {
                    schedule(recipe(ScheduleKind::OneCycle, warmup), 10).learning_rate(step, &Plateau::default())
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(rates(1)[0], 1.0);
        for warmup in [0, 1, 2, 10] {
            assert!(rates(warmup).iter().all(|rate| (0.0..=1.0).contains(rate)), "{warmup}: {:?}", rates(warmup));
        }
    }

    /// `ReduceLROnPlateau(mode="max", factor=0.5, patience=1)` of torch 2.11, with the same values for a loss.
    #[test]
    fn a_plateau_is_that_of_torch() {
        let recipe = ScheduleRecipe { plateau_patience: 1, plateau_factor: 0.5, ..recipe(ScheduleKind::Plateau, 2) };
        let (schedule, mut plateau) = (schedule(recipe, 100), Plateau::default());
        let merits = [0.5, 0.6, 0.6, 0.60001, 0.59, 0.6, 0.61, 0.61, 0.60, 0.6, 0.6, 0.6];
        let expected = [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625];
        let stored = serde_json::to_string(&plateau).expect("serialises");
        for (merit, expected) in merits.into_iter().zip(expected) {
            let before = schedule.learning_rate(50, &plateau);
            assert_eq!(schedule.evaluated(merit, &mut plateau), schedule.learning_rate(50, &plateau) < before);
            assert_eq!(schedule.learning_rate(50, &plateau), expected, "{merit}");
        }
        assert_eq!(schedule.learning_rate(1, &plateau), 0.5, "the warm-up is as ever");
        let restored: Plateau = serde_json::from_str(&stored).expect("reads");
        assert_eq!(schedule.learning_rate(50, &restored), 1.0);
    }
}
