//! The learning rate of each step: a linear rise from 0, then a linear fall to 0.

/// A learning rate that rises linearly from 0 to its peak over the warm-up and falls linearly to 0 at the end,
/// step for step what `get_linear_schedule_with_warmup` of Hugging Face `transformers` gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    peak: f64,
    warmup_steps: usize,
    total_steps: usize,
}

impl Schedule {
    /// A schedule over `total_steps` optimiser steps, of which the first `ceil(total_steps * warmup_ratio)` warm up.
    pub(crate) fn new(peak: f64, warmup_ratio: f64, total_steps: usize) -> Self {
        let warmup_steps = (total_steps as f64 * warmup_ratio).ceil() as usize;
        Self { peak, warmup_steps, total_steps }
    }

    /// The learning rate of a step, counted from 0. With warmup that of step 0 is 0.
    pub(crate) fn learning_rate(&self, step: usize) -> f64 {
        let factor = if step < self.warmup_steps {
            step as f64 / self.warmup_steps as f64
        } else {
            let left = self.total_steps.saturating_sub(step);
            let falling_steps = self.total_steps.saturating_sub(self.warmup_steps).max(1);
            left as f64 / falling_steps as f64
        };
        self.peak * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: Schedule, expected: &[f64]) {
        for (step, &expected) in expected.iter().enumerate() {
            let found = schedule.learning_rate(step);
            assert!((found - expected).abs() < 1e-15, "step {step}: {found}, expected {expected}");
        }
    }

    #[test]
    fn rises_then_falls() {
        // What transformers gives for 4 warm-up steps of 10, peak 1.
        let expected = [0.0, 0.25, 0.5, 0.75, 1.0, 5.0 / 6.0, 4.0 / 6.0, 3.0 / 6.0, 2.0 / 6.0, 1.0 / 6.0, 0.0, 0.0];
        check(Schedule::new(1.0, 0.4, 10), &expected);
    }

    #[test]
    fn falls_from_the_first_step_without_warmup() {
        check(Schedule::new(2.0, 0.0, 4), &[2.0, 1.5, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn only_rises_when_all_is_warmup() {
        check(Schedule::new(1.0, 1.0, 4), &[0.0, 0.25, 0.5, 0.75, 0.0]);
    }

    #[test]
    fn part_of_a_warmup_step_counts_as_one() {
        // ceil(0.06 * 20) = 2
        check(Schedule::new(1.0, 0.06, 20), &[0.0, 0.5, 1.0, 17.0 / 18.0]);
        assert_eq!(Schedule::new(1.0, 0.06, 0).learning_rate(0), 0.0);
    }
}
