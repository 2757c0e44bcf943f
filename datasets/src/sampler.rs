//! Shuffles the rows of an epoch, and splits them into optimiser steps and steps into micro-batches.
//!
//! The result is a function of the data, the seed, the epoch and the two sizes. There is no state from step to step, so
//! a run can resume at any `(epoch, step)` with the same batches.

use crate::Error;

/// In a step, rows of more tokens than this come before the others: a GPU's attention is faster over rows of at most so
/// many, if they stand in one piece.
const SHORT_TOKENS: u32 = 128;

/// What the order of rows in turn is drawn for.
const IN_TURN: &str = "distill 2026 datasets: order of the rows of which an epoch has some";

/// Shuffles and batches a training set, by a seed.
#[derive(Debug, Clone)]
pub struct Sampler {
    lengths: Vec<u32>,
    seed: u64,
    batch_rows: usize,
    batch_tokens: usize,
    mixed: Option<Mixed>,
    /// How often each row comes in an epoch, on average; once if not given.
    often: Option<Vec<f64>>,
}

/// Rows that are in every epoch, and others of which each epoch has some.
#[derive(Debug, Clone)]
struct Mixed {
    always: Vec<u32>,
    in_turn: Vec<u32>,
    per_epoch: usize,
}

/// One pass over all rows: see [`Sampler::epoch`].
#[derive(Debug, Clone)]
pub struct Epoch<'a> {
    sampler: &'a Sampler,
    order: Vec<u32>,
}

impl Sampler {
    /// `lengths` is the number of tokens of each row, `batch_rows` the number of rows per optimiser step, and
    /// `batch_tokens` the maximum number of tokens per micro-batch.
    pub fn new(lengths: Vec<u32>, seed: u64, batch_rows: usize, batch_tokens: usize) -> Result<Self, Error> {
        for (size, what) in
            [(lengths.len(), "the number of rows"), (batch_rows, "--batch-rows"), (batch_tokens, "--batch-tokens")]
        {
            if size == 0 {
                return Err(Error::Zero { what });
            }
        }
        Ok(Self { lengths, seed, batch_rows, batch_tokens, mixed: None, often: None })
    }

    /// The same with all of the rows `always` in each epoch, and `per_epoch` of the rows `in_turn`, which is not empty: shuffled,
    /// one epoch goes on where the one before has ended, and when all have been there they are shuffled again.
    pub fn mixing(self, always: Vec<u32>, in_turn: Vec<u32>, per_epoch: usize) -> Self {
        Self { mixed: Some(Mixed { always, in_turn, per_epoch }), ..self }
    }

    /// The same with each row so often in an epoch, on average, in proportion to these numbers, which are finite and above 0; an
    /// epoch has as many rows as there are. In each epoch a row comes as often as that, or once more or less by a fraction.
    pub fn weighing(self, weights: &[f64]) -> Self {
        let factor = weights.len() as f64 / weights.iter().sum::<f64>();
        Self { often: Some(weights.iter().map(|weight| weight * factor).collect()), ..self }
    }

    /// Rows of an epoch.
    fn rows_per_epoch(&self) -> usize {
        self.mixed.as_ref().map_or(self.lengths.len(), |mixed| mixed.always.len() + mixed.per_epoch)
    }

    /// The number of optimiser steps per epoch. The last one has the remaining rows and may be smaller.
    pub fn steps_per_epoch(&self) -> usize {
        self.rows_per_epoch().div_ceil(self.batch_rows)
    }

    /// Shuffles the rows for one epoch.
    pub fn epoch(&self, epoch: u64) -> Epoch<'_> {
        let order = order(self.seed, epoch, self.rows_per_epoch());
        let rows = match (&self.mixed, &self.often) {
            (Some(mixed), _) => [mixed.always.clone(), mixed.turn(self.seed, epoch)].concat(),
            (None, Some(often)) => drawn(often, self.seed, epoch),
            (None, None) => return Epoch { sampler: self, order },
        };
        Epoch { sampler: self, order: order.into_iter().map(|place| rows[place as usize]).collect() }
    }
}

/// As many rows as there are, each about so often: one at each whole number along the sum, from a random place between 0 and 1 on
/// (systematic sampling).
fn drawn(often: &[f64], seed: u64, epoch: u64) -> Vec<u32> {
    let mut hasher = blake3::Hasher::new_derive_key("distill 2026 datasets: where the drawing of weighed rows begins");
    hasher.update(&seed.to_le_bytes()).update(&epoch.to_le_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    let mut next = (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64;
    let (mut rows, mut sum) = (Vec::with_capacity(often.len()), 0.0);
    for (row, count) in (0..).zip(often) {
        sum += count;
        while next < sum && rows.len() < often.len() {
            rows.push(row);
            next += 1.0;
        }
    }
    // Rounding of the sum may cost the last one.
    rows.resize(often.len(), often.len() as u32 - 1);
    rows
}

impl Mixed {
    /// Of the rows in turn those of an epoch.
    fn turn(&self, seed: u64, epoch: u64) -> Vec<u32> {
        let round = self.in_turn.len() as u64;
        let (first, count) = (epoch * self.per_epoch as u64, self.per_epoch);
        let mut shuffled = (u64::MAX, Vec::new());
        let row = |place: u64| {
            if shuffled.0 != place / round {
                shuffled = (place / round, permutation(IN_TURN, seed, place / round, self.in_turn.len()));
            }
            self.in_turn[shuffled.1[(place % round) as usize] as usize]
        };
        (first..).take(count).map(row).collect()
    }
}

impl Epoch<'_> {
    /// The shuffled rows.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// The micro-batches of a step, in order: rows of more than 128 tokens first, otherwise shuffled. Each has at most
    /// `batch_tokens` tokens, unless it is a single row that is longer. Empty for a step past the last one.
    pub fn step(&self, step: usize) -> Vec<Vec<u32>> {
        let lengths = &self.sampler.lengths;
        let rows = self.order.chunks(self.sampler.batch_rows).nth(step).unwrap_or_default();
        let is_long = |row: &u32| lengths[*row as usize] > SHORT_TOKENS;
        let (mut rows, short): (Vec<u32>, Vec<u32>) = rows.iter().copied().partition(is_long);
        rows.extend(short);
        cut(&rows, lengths, self.sampler.batch_tokens)
    }
}

/// A permutation of `0..rows` that depends only on the seed and the epoch: Fisher-Yates on a BLAKE3 stream, so that
/// runs stay the same when a random-number library changes.
pub fn order(seed: u64, epoch: u64, rows: usize) -> Vec<u32> {
    permutation("distill 2026 datasets: order of the rows in an epoch", seed, epoch, rows)
}

/// One of several for a seed, by their number and what it is for.
fn permutation(purpose: &str, seed: u64, number: u64, rows: usize) -> Vec<u32> {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes());
    let mut stream = hasher.finalize_xof();
    let mut order: Vec<u32> = (0..rows as u32).collect();
    let mut bytes = [0; 8];
    for last in (1..rows).rev() {
        stream.fill(&mut bytes);
        // The high half of a 64 by 64 bit product is uniform over `0..=last` to within 2^-32.
        let chosen = (u128::from(u64::from_le_bytes(bytes)) * (last as u128 + 1)) >> 64;
        order.swap(last, chosen as usize);
    }
    order
}

/// Cuts rows, in their order, wherever the next one would go over the budget.
pub(crate) fn cut(rows: &[u32], lengths: &[u32], batch_tokens: usize) -> Vec<Vec<u32>> {
    let mut batches: Vec<Vec<u32>> = Vec::new();
    let mut tokens = usize::MAX;
    for &row in rows {
        let length = lengths[row as usize] as usize;
        match batches.last_mut() {
            Some(batch) if tokens + length <= batch_tokens => {
                batch.push(row);
                tokens += length;
            }
            _ => {
                batches.push(vec![row]);
                tokens = length;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn some_rows_are_in_every_epoch_and_others_take_turns() {
        let (always, in_turn): (Vec<u32>, Vec<u32>) = ((0..6).collect(), (6..16).collect());
        let sampler = Sampler::new(vec![3; 16], 5, 4, 64).expect("sound").mixing(always.clone(), in_turn.clone(), 4);
        assert_eq!(sampler.steps_per_epoch(), 3);
        let turns: Vec<Vec<u32>> = (0..5)
            .map(|epoch| {
                let epoch = sampler.epoch(epoch);
                let (here, mut turn): (Vec<u32>, Vec<u32>) = epoch.order().iter().partition(|row| **row < 6);
                assert_eq!((here.len(), turn.len()), (6, 4));
                assert!(always.iter().all(|row| here.contains(row)));
                assert_ne!(epoch.order()[..6], here, "shuffled together");
                turn.sort_unstable();
                turn
            })
            .collect();
        // In five epochs each of the ten comes twice, once in each half.
        let mut all = turns.concat();
        all.sort_unstable();
        assert_eq!(all, in_turn.iter().flat_map(|row| [*row, *row]).collect::<Vec<_>>());
        assert!(turns[0].iter().all(|row| !turns[1].contains(row)));
        assert_eq!(sampler.epoch(3).order(), sampler.clone().epoch(3).order());
        // More than there are: some come twice in an epoch.
        let often = Sampler::new(vec![3; 16], 5, 4, 64).expect("sound").mixing(always, in_turn, 25);
        assert_eq!(often.epoch(1).order().len(), 31);
    }

    #[test]
    fn rows_come_as_often_as_their_weights_say() {
        let sampler = Sampler::new(vec![3; 10], 5, 4, 64).expect("sound");
        let weights = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 4.0, 0.5];
        let sampler = sampler.weighing(&weights);
        assert_eq!(sampler.steps_per_epoch(), 3);
        let mut counts = [0; 10];
        for epoch in 0..400 {
            let epoch = sampler.epoch(epoch);
            assert_eq!(epoch.order().len(), 10);
            epoch.order().iter().for_each(|row| counts[*row as usize] += 1);
            let often = epoch.order().iter().filter(|row| **row == 8).count();
            assert!((3..=4).contains(&often), "{often}: 3.2 on average");
        }
        for (count, weight) in counts.iter().zip(weights) {
            let expected = 4000.0 * weight / 12.5;
            assert!((f64::from(*count) - expected).abs() < 80.0, "{counts:?}");
        }
        assert_eq!(sampler.epoch(7).order(), sampler.clone().epoch(7).order());
        assert_ne!(sampler.epoch(7).order(), sampler.epoch(8).order());
    }

    proptest! {
        #[test]
        fn every_row_comes_once_an_epoch_and_no_batch_goes_over_the_budget(
            lengths in prop::collection::vec(0u32..50, 1..200),
            seed: u64,
            epoch in 0u64..5,
            batch_rows in 1usize..40,
            batch_tokens in 1usize..100,
        ) {
            let sampler = Sampler::new(lengths.clone(), seed, batch_rows, batch_tokens).unwrap();
            let epoch = sampler.epoch(epoch);
            let mut seen = Vec::new();
            for step in 0..sampler.steps_per_epoch() {
                let micro_batches = epoch.step(step);
                let rows: usize = micro_batches.iter().map(Vec::len).sum();
                let last = step + 1 == sampler.steps_per_epoch();
                prop_assert!(rows == batch_rows || (last && rows > 0 && rows < batch_rows));
                for batch in &micro_batches {
                    let tokens: usize = batch.iter().map(|row| lengths[*row as usize] as usize).sum();
                    prop_assert!(tokens <= batch_tokens || batch.len() == 1);
                }
                seen.extend(micro_batches.into_iter().flatten());
            }
            prop_assert!(epoch.step(sampler.steps_per_epoch()).is_empty());
            prop_assert_eq!(&seen, epoch.order());
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len() as u32).collect::<Vec<_>>());
        }

        #[test]
        fn resumes_at_any_step(seed: u64, epoch in 0u64..3, step in 0usize..10) {
            let lengths: Vec<u32> = (0..100).map(|row| 3 + row % 17).collect();
            let through = Sampler::new(lengths.clone(), seed, 10, 64).unwrap();
            let before: Vec<_> = (0..=step).map(|step| through.epoch(epoch).step(step)).collect();
            let resumed = Sampler::new(lengths, seed, 10, 64).unwrap();
            prop_assert_eq!(before.last().unwrap(), &resumed.epoch(epoch).step(step));
        }
    }

    #[test]
    fn long_rows_of_a_step_stand_before_the_short_ones_which_keep_their_order() {
        let lengths: Vec<u32> = (0..60).map(|row| [5, 128, 129, 300][row % 4]).collect();
        let of = |batch_tokens| Sampler::new(lengths.clone(), 3, 20, batch_tokens).unwrap();
        let sampler = of(1000);
        let epoch = sampler.epoch(0);
        for step in 0..sampler.steps_per_epoch() {
            let shuffled = &epoch.order()[20 * step..20 * (step + 1)];
            let (long, short): (Vec<u32>, Vec<u32>) = shuffled.iter().partition(|&&row| lengths[row as usize] > 128);
            let expected = [long, short].concat();
            assert_eq!(epoch.step(step).concat(), expected);
            // However a step is cut, its rows keep their numbers, and with them their dropout masks.
            assert_eq!(of(400).epoch(0).step(step).concat(), expected);
        }
    }

    #[test]
    fn seeds_and_epochs_have_orders_of_their_own() {
        assert_ne!(order(1, 0, 100), order(2, 0, 100));
        assert_ne!(order(1, 0, 100), order(1, 1, 100));
        assert_ne!(order(1, 0, 100), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_order_of_a_seed_never_changes() {
        assert_eq!(order(7, 3, 10), [4, 6, 1, 3, 9, 2, 5, 8, 0, 7]);
    }

    #[test]
    fn each_row_is_first_about_equally_often() {
        let mut first = [0; 8];
        for seed in 0..8000 {
            first[order(seed, 0, 8)[0] as usize] += 1;
        }
        assert!(first.iter().all(|count| (850..1150).contains(count)), "{first:?}");
    }

    #[test]
    fn nothing_to_batch_is_refused() {
        assert!(Sampler::new(vec![], 0, 1, 1).is_err());
        assert!(Sampler::new(vec![1], 0, 0, 1).is_err());
        assert!(Sampler::new(vec![1], 0, 1, 0).is_err());
    }
}
