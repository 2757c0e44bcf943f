//! Times repeated work: a warm-up that is not counted, then repeats of equal work. Independent of the work and the
//! device.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::interrupt;

/// Shortest warm-up; at least one pass.
const WARM_UP: Duration = Duration::from_millis(500);

/// A repeat has as many passes as take about this long, so that neither the clock nor the wait for a device matters.
const REPEAT: Duration = Duration::from_millis(250);

/// Minimum number of repeats with a time budget.
const LEAST_REPEATS: usize = 3;

/// When to stop.
#[derive(Clone, Copy)]
pub(crate) enum Budget {
    Repeats(usize),
    Time(Duration),
}

/// The times of the repeats.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Times {
    /// Passes in each repeat.
    pub(super) passes_per_repeat: usize,
    /// Seconds per pass, one value per repeat, in order.
    pub(super) seconds: Vec<f64>,
    /// Median of these.
    pub(super) median_seconds: f64,
    /// Slowest minus fastest, divided by the median.
    pub(super) spread: f64,
}

impl Budget {
    /// Times `passes`, which does the given number of passes and returns when all are done: it waits for a GPU only
    /// once, at the end.
    pub(super) fn time(self, mut passes: impl FnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<Times> {
        let mut timed = |count: usize| -> anyhow::Result<Duration> {
            interrupt::check()?;
            let start = Instant::now();
            passes(count)?;
            Ok(start.elapsed())
        };
        let warm_up = Instant::now();
        let mut pass = timed(1)?;
        while warm_up.elapsed() < WARM_UP {
            pass = timed(1)?;
        }
        let passes_per_repeat = (REPEAT.as_secs_f64() / pass.as_secs_f64().max(1e-9)).round().max(1.0) as usize;
        let mut seconds = Vec::new();
        let start = Instant::now();
        loop {
            seconds.push(timed(passes_per_repeat)?.as_secs_f64() / passes_per_repeat as f64);
            if self.is_spent(seconds.len(), start) {
                return Ok(Times::of(passes_per_repeat, seconds));
            }
        }
    }

    /// Whether this number of repeats since `start` is enough.
    pub(super) fn is_spent(self, repeats: usize, start: Instant) -> bool {
        match self {
            Self::Repeats(limit) => repeats >= limit,
            Self::Time(limit) => repeats >= LEAST_REPEATS && start.elapsed() >= limit,
        }
    }
}

impl Times {
    pub(super) fn of(passes_per_repeat: usize, seconds: Vec<f64>) -> Self {
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        let median_seconds = f64::midpoint(low, high);
        let spread = (sorted[sorted.len() - 1] - sorted[0]) / median_seconds.max(1e-12);
        Self { passes_per_repeat, seconds, median_seconds, spread }
    }

    /// Seconds per pass of the fastest repeat.
    pub(super) fn least_seconds(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread_are_of_the_repeats() {
        let odd = Times::of(1, vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.median_seconds, odd.spread, odd.least_seconds()), (2.0, 1.0, 1.0));
        let even = Times::of(1, vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.median_seconds, even.spread), (2.5, 1.2));
    }

    #[test]
    fn the_warm_up_is_not_counted() {
        let mut calls = Vec::new();
        let times = Budget::Repeats(4)
            .time(|passes| {
                calls.push(passes);
                std::thread::sleep(Duration::from_millis(60));
                Ok(())
            })
            .expect("times");
        let repeats = &calls[calls.len() - 4..];
        assert_eq!(times.seconds.len(), 4);
        assert!(repeats.iter().all(|&passes| passes == times.passes_per_repeat), "{calls:?}");
        assert!(calls.len() > 4 && calls[..calls.len() - 4].iter().all(|&passes| passes == 1), "{calls:?}");
    }
}
