//! How long a model takes for texts as long as those of the data.

use std::time::{Duration, Instant};

use datasets::{Encodings, TokenBatch};
use nn::hf::HfConfig;
use nn::{Compute, Layout, Mode, Model, Parameters, Tap};
use serde::Serialize;

use crate::inference::packed;
use crate::interrupt;

/// Rows of a batch, where there are so many.
pub(super) const BATCH_ROWS: usize = 32;

/// Texts that are timed at most, spread evenly over the data, and batches.
const TEXTS: usize = 64;
const BATCHES: usize = 8;

/// Runs that are not counted: the first ones fill memory and caches.
const WARM_UP: usize = 2;

/// Once so much time has passed, few runs are enough.
const PATIENCE: Duration = Duration::from_secs(1);
const FEWEST: usize = 5;

/// Milliseconds for a text.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Milliseconds {
    /// Of its own.
    pub(super) alone: f64,
    /// Its share of a batch of [`BATCH_ROWS`].
    pub(super) in_batch: f64,
}

/// Times models on the same texts.
pub(super) struct Clock<'a> {
    compute: &'a Compute,
    texts: Vec<TokenBatch>,
    batches: Vec<TokenBatch>,
}

impl<'a> Clock<'a> {
    pub(super) fn new(compute: &'a Compute, encodings: &Encodings) -> Self {
        let texts = spread(encodings.len(), TEXTS).into_iter().map(|row| TokenBatch::gather(encodings, &[row]));
        let rows = spread(encodings.len(), BATCHES * BATCH_ROWS);
        // Neighbours in the data are no batch: each takes rows from all of it.
        let count = rows.len().div_ceil(BATCH_ROWS);
        let batch = |first: usize| rows.iter().skip(first).step_by(count).copied().collect::<Vec<u32>>();
        Self {
            compute,
            texts: texts.collect(),
            batches: (0..count).map(|first| TokenBatch::gather(encodings, &batch(first))).collect(),
        }
    }

    /// Times a model with random weights.
    pub(super) fn time(&self, config: HfConfig) -> anyhow::Result<Milliseconds> {
        let parameters = Parameters::random(Layout::new(&config.encoder), config.encoder.pad_token_id, 1);
        let mut model = Model::on(self.compute, config, parameters)?;
        Ok(Milliseconds { alone: each(&mut model, &self.texts)?, in_batch: each(&mut model, &self.batches)? })
    }
}

/// So many row numbers at most, evenly over all rows.
fn spread(rows: usize, most: usize) -> Vec<u32> {
    let count = rows.min(most);
    (0..count).map(|number| (number * rows / count) as u32).collect()
}

/// The median over batches of the milliseconds for a row.
fn each(model: &mut Model, batches: &[TokenBatch]) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(batches.len());
    let start = Instant::now();
    let warm_up = batches.iter().cycle().take(if batches.is_empty() { 0 } else { WARM_UP });
    for (number, batch) in warm_up.chain(batches).enumerate() {
        interrupt::check()?;
        let clock = Instant::now();
        let mut pass = model.forward(packed(batch), &[Tap::Logits], Mode::Eval)?;
        model.read(&mut pass, Tap::Logits)?;
        if number >= WARM_UP {
            times.push(clock.elapsed().as_secs_f64() * 1e3 / batch.rows.len().max(1) as f64);
        }
        if start.elapsed() > PATIENCE && times.len() >= FEWEST {
            break;
        }
    }
    Ok(median(times))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    match times.len() {
        0 => 0.0,
        count if count.is_multiple_of(2) => (times[count / 2 - 1] + times[count / 2]) / 2.0,
        count => times[count / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_over_all_of_the_data() {
        assert_eq!(spread(10, 4), [0, 2, 5, 7]);
        assert_eq!(spread(3, 64), [0, 1, 2]);
        assert_eq!(spread(0, 64), [] as [u32; 0]);
    }

    #[test]
    fn a_batch_has_rows_from_all_over() {
        let encodings = Encodings::of_ids(&(1..=100).map(|length| vec![5_u32; length]).collect::<Vec<_>>());
        let clock = Clock::new(&Compute::Cpu, &encodings);
        assert_eq!((clock.texts.len(), clock.batches.len()), (TEXTS, 4));
        for batch in &clock.batches {
            assert_eq!(batch.rows.len(), 25);
            assert!(batch.rows.iter().any(|&row| row < 10) && batch.rows.iter().any(|&row| row >= 90));
        }
        let few = Clock::new(&Compute::Cpu, &Encodings::of_ids(&[[5_u32, 6]]));
        assert_eq!((few.texts.len(), few.batches.len(), few.batches[0].rows.len()), (1, 1, 1));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
