//! AdamW (Loshchilov and Hutter, 2019) over the flat buffers, one pass over parameters, moments and gradients.
//!
//! Word embeddings that no batch has used yet have zero moments, so a step only decays them. That decay is postponed:
//! [`AdamW::look_up`] applies the factors of the missed steps to a row, one after another, before it is first read, and
//! [`AdamW::settle`] to all such rows, before the weights are read as a whole. The bits are the same as when every row
//! is updated at every step. After its first use a row is updated at every step. If the embeddings are tied to the
//! output matrix of a masked-language model, every row has a gradient and is updated from the first step.
//!
//! A moving average of the weights is kept in the same pass; that of postponed rows is postponed with them.

use std::sync::Arc;

use rayon::prelude::*;

use crate::cpu::simd::vectorized;
use crate::{Entry, Error, Gradients, Layout, Parameters, Slot};

/// Scalars that one task updates or adds up: fixed, so that sums do not depend on the thread count.
const TASK: usize = 1 << 16;

/// AdamW with its moments; betas 0.9 and 0.999, epsilon 1e-8. Agrees with `torch.optim.AdamW`.
#[derive(Clone, Debug)]
pub struct AdamW {
    layout: Arc<Layout>,
    /// Weight decay; not applied to biases and norms.
    weight_decay: f64,
    /// Of each entry of the layout, what its learning rate is multiplied by; 0 for a frozen one.
    rate_factors: Vec<f64>,
    steps: u64,
    first_moment: Vec<f32>,
    second_moment: Vec<f32>,
    average: Option<Average>,
    /// Which word embeddings have been used by a batch.
    looked_up: Vec<bool>,
    /// The postponed updates of the other rows, in order.
    put_off: Vec<PutOff>,
}

/// A moving average of the weights: after step `n` it moves by `1 - min(decay, (1 + n) / (10 + n))` of the way to them, as
/// TensorFlow's `ExponentialMovingAverage` with `num_updates`, so that short trainings are not held back by their start.
#[derive(Clone, Debug)]
struct Average {
    decay: f64,
    /// In the order of [`Parameters::flat`].
    values: Vec<f32>,
}

/// How far a moving average moves towards the weights after this step, counted from 1.
pub(crate) fn average_follow(decay: f64, step: u64) -> f32 {
    let step = step as f64;
    (1.0 - decay.min((1.0 + step) / (10.0 + step))) as f32
}

/// What a step does with a row that has no moments.
#[derive(Clone, Copy, Debug)]
struct PutOff {
    /// The row is multiplied by it.
    decay: f32,
    /// How far the row's average then moves towards it.
    follow: f32,
}

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

impl AdamW {
    /// An optimiser that has taken no step.
    pub fn new(layout: Arc<Layout>, weight_decay: f64) -> Self {
        // Both zeroed by the system: pages of rows that are never looked up are never there.
        let (first_moment, second_moment) = (vec![0.0; layout.len()], vec![0.0; layout.len()]);
        let looked_up = vec![layout.ties_words(); WordTable::of(&layout).rows];
        let rate_factors = vec![1.0; layout.entries().len()];
        let (average, put_off) = (None, Vec::new());
        Self { layout, weight_decay, rate_factors, steps: 0, first_moment, second_moment, average, looked_up, put_off }
    }

    /// With a learning rate for each parameter: what the step's rate is multiplied by, in the order of
    /// [`Layout::entries`]. A parameter with factor 0 is frozen: it does not change, and its gradient does not count for
    /// clipping.
    ///
    /// # Panics
    /// If there is not one factor for each parameter.
    pub fn with_rate_factors(mut self, factors: Vec<f64>) -> Self {
        assert_eq!(factors.len(), self.layout.entries().len(), "a factor for each parameter");
        self.rate_factors = factors;
        self
    }

    /// With a moving average of the weights, which starts at these values; after `n` steps it moves by
    /// `1 - min(decay, (1 + n) / (10 + n))` of the way to the weights.
    ///
    /// # Panics
    /// If there is not one value for each scalar of the layout.
    pub fn with_average(mut self, decay: f64, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), self.layout.len(), "a value for each scalar");
        self.average = Some(Average { decay, values });
        self
    }

    /// An optimiser with a state returned by [`state`](Self::state). `None` if the moments do not match the layout.
    pub fn restore(
        layout: Arc<Layout>,
        weight_decay: f64,
        steps: u64,
        first_moment: Vec<f32>,
        second_moment: Vec<f32>,
    ) -> Option<Self> {
        let fits = first_moment.len() == layout.len() && second_moment.len() == layout.len();
        fits.then(|| {
            // A row with zero moments is to the optimiser as one that was never looked up.
            let table = WordTable::of(&layout);
            let moments = table.rows(&first_moment).zip(table.rows(&second_moment));
            let is_zero = |row: &[f32]| row.iter().all(|&value| value == 0.0);
            let ties = layout.ties_words();
            let looked_up = moments.map(|(first, second)| ties || !is_zero(first) || !is_zero(second)).collect();
            Self { steps, first_moment, second_moment, looked_up, ..Self::new(layout, weight_decay) }
        })
    }

    /// An error if the model has another size.
    pub(crate) fn check(&self, layout: &Layout) -> Result<(), Error> {
        let (first, second, expected) = (self.first_moment.len(), self.second_moment.len(), layout.len());
        match (first, second) == (expected, expected) {
            true => Ok(()),
            false => Err(Error::Batch(format!("{first} and {second} moments for {expected}"))),
        }
    }

    /// Weight decay.
    pub(crate) fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    /// What each parameter's learning rate is multiplied by.
    pub(crate) fn rate_factors(&self) -> &[f64] {
        &self.rate_factors
    }

    /// Number of steps taken, first and second moments, for a checkpoint.
    pub fn state(&self) -> (u64, &[f32], &[f32]) {
        (self.steps, &self.first_moment, &self.second_moment)
    }

    /// The moving average of the weights, if there is one; as the weights, it is up to date after
    /// [`settle`](Self::settle).
    pub fn average(&self) -> Option<&[f32]> {
        self.average.as_ref().map(|average| average.values.as_slice())
    }

    /// The average's decay.
    pub(crate) fn average_decay(&self) -> Option<f64> {
        self.average.as_ref().map(|average| average.decay)
    }

    /// Exchanges the weights and their average, if there is one.
    pub(crate) fn swap_average(&mut self, parameters: &mut Parameters) {
        self.settle(parameters);
        if let Some(average) = &mut self.average {
            parameters.flat_mut().swap_with_slice(&mut average.values);
        }
    }

    /// The rows of the word table that have been looked up.
    pub(crate) fn looked_up(&self) -> Vec<u32> {
        (0..).zip(&self.looked_up).filter(|&(_, &looked_up)| looked_up).map(|(row, _)| row).collect()
    }

    /// Applies postponed decay to these word embeddings; call it before each forward pass in training.
    pub fn look_up<'a>(&mut self, parameters: &mut Parameters, input_ids: impl IntoIterator<Item = &'a u32>) {
        let table = WordTable::of(&self.layout);
        for &id in input_ids {
            let row = id as usize;
            // Ids that the model does not have are the forward pass's to refuse.
            if let Some(looked_up) = self.looked_up.get_mut(row)
                && !*looked_up
            {
                *looked_up = true;
                let start = table.start + row * table.width;
                let span = start..start + table.width;
                let average = self.average.as_mut().map(|average| &mut average.values[span.clone()]);
                catch_up(&mut parameters.flat_mut()[span], average, &self.put_off);
            }
        }
    }

    /// Applies all postponed decay; call it before validation, checkpoints and export.
    pub fn settle(&mut self, parameters: &mut Parameters) {
        if self.put_off.is_empty() {
            return;
        }
        let table = WordTable::of(&self.layout);
        let span = table.start..table.start + table.rows * table.width;
        let rows = parameters.flat_mut()[span.clone()].par_chunks_exact_mut(table.width).zip(&self.looked_up);
        let put_off = &self.put_off;
        match &mut self.average {
            None => rows.for_each(|(row, &looked_up)| {
                if !looked_up {
                    catch_up(row, None, put_off);
                }
            }),
            Some(average) => {
                let averages = average.values[span].par_chunks_exact_mut(table.width);
                rows.zip(averages).for_each(|((row, &looked_up), average)| {
                    if !looked_up {
                        catch_up(row, Some(average), put_off);
                    }
                });
            }
        }
        self.put_off.clear();
    }

    /// Sets the gradients of frozen parameters to zero.
    pub(crate) fn freeze(&self, gradients: &mut Gradients) {
        for (entry, _) in self.layout.entries().iter().zip(&self.rate_factors).filter(|(_, factor)| **factor == 0.0) {
            if entry.slot != Slot::WordEmbeddings {
                gradients.flat_kept_mut()[entry.range.clone()].fill(0.0);
                continue;
            }
            // Pages of rows that no batch has used are never there.
            for row in (0..entry.shape[0]).filter(|&row| self.looked_up[row]) {
                let start = entry.range.start + row * entry.shape[1];
                gradients.flat_kept_mut()[start..start + entry.shape[1]].fill(0.0);
            }
        }
    }

    /// Takes a step with the gradients, each multiplied by `scale` and then clipped to at most `limit` in either direction,
    /// and zeroes them.
    ///
    /// # Panics
    /// If a word embedding has a gradient but was not passed to [`look_up`](Self::look_up).
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &mut Gradients,
        learning_rate: f64,
        [scale, limit]: [f32; 2],
    ) {
        self.steps += 1;
        let exponent = self.steps.min(i32::MAX as u64) as i32;
        let correction = 1.0 - BETA_1.powi(exponent);
        let root_correction = (1.0 / (1.0 - BETA_2.powi(exponent)).sqrt()) as f32;
        let follow = self.average.as_ref().map_or(0.0, |average| average_follow(average.decay, self.steps));
        let rates = |entry: &Entry, factor: f64| {
            let decay = if entry.decays() { (1.0 - learning_rate * factor * self.weight_decay) as f32 } else { 1.0 };
            Rates { scale, limit, decay, step: (learning_rate * factor / correction) as f32, root_correction, follow }
        };
        let told = gradients.looked_up().iter().zip(&self.looked_up).all(|(&found, &told)| told || !found);
        assert!(told, "a step along gradients of rows that the optimiser was not told of");

        let mut rest = (
            parameters.flat_mut(),
            gradients.flat_kept_mut(),
            self.first_moment.as_mut_slice(),
            self.second_moment.as_mut_slice(),
        );
        let mut averages = self.average.as_mut().map(|average| average.values.as_mut_slice());
        let mut tasks = Vec::new();
        let mut put_off = PutOff { decay: 1.0, follow };
        for (entry, &factor) in self.layout.entries().iter().zip(&self.rate_factors) {
            let rates = rates(entry, factor);
            let is_word_table = entry.slot == Slot::WordEmbeddings;
            if is_word_table {
                put_off.decay = rates.decay;
            }
            let size = if is_word_table { WordTable::of(&self.layout).task_len() } else { TASK };
            let mut done = 0;
            while done < entry.range.len() {
                let n = size.min(entry.range.len() - done);
                let (parameters, gradients, first, second) = rest;
                let (p, parameters) = parameters.split_at_mut(n);
                let (g, gradients) = gradients.split_at_mut(n);
                let (m, first) = first.split_at_mut(n);
                let (v, second) = second.split_at_mut(n);
                let (average, behind) = averages.map(|averages| averages.split_at_mut(n)).unzip();
                let rows = is_word_table.then(|| {
                    let width = entry.shape[1];
                    (width, &self.looked_up[done / width..(done + n) / width])
                });
                // A frozen parameter stays as it is, and so does its average; its gradient is zero.
                if factor != 0.0 {
                    tasks.push((p, g, m, v, average, rates, rows));
                }
                rest = (parameters, gradients, first, second);
                averages = behind;
                done += n;
            }
        }
        tasks.into_par_iter().for_each(|(p, g, m, v, mut average, rates, rows)| match rows {
            None => update(p, g, m, v, average, rates),
            Some((width, looked_up)) => {
                for (row, _) in looked_up.iter().enumerate().filter(|&(_, &looked_up)| looked_up) {
                    let span = row * width..(row + 1) * width;
                    let [p, g, m, v] = [&mut *p, &mut *g, &mut *m, &mut *v].map(|values| &mut values[span.clone()]);
                    update(p, g, m, v, average.as_mut().map(|average| &mut average[span]), rates);
                }
            }
        });
        if put_off.decay != 1.0 || self.average.is_some() {
            self.put_off.push(put_off);
        }
    }
}

/// Where the word embeddings stand in the flat buffers.
#[derive(Clone, Copy)]
struct WordTable {
    start: usize,
    rows: usize,
    width: usize,
}

impl WordTable {
    fn of(layout: &Layout) -> Self {
        layout.entry(Slot::WordEmbeddings).map_or(Self { start: 0, rows: 0, width: 1 }, |entry| Self {
            start: entry.range.start,
            rows: entry.shape[0],
            width: entry.shape[1],
        })
    }

    fn rows(self, flat: &[f32]) -> impl Iterator<Item = &[f32]> {
        flat[self.start..self.start + self.rows * self.width].chunks_exact(self.width)
    }

    /// Scalars of one task: whole rows, about [`TASK`] of them.
    fn task_len(self) -> usize {
        (TASK / self.width).max(1) * self.width
    }
}

/// Applies postponed updates to a row, one after another.
fn catch_up(row: &mut [f32], average: Option<&mut [f32]>, put_off: &[PutOff]) {
    match average {
        None => multiply_in_turn(row, put_off),
        Some(average) => average_in_turn(row, average, put_off),
    }
}

vectorized! {
    fn multiply_in_turn(row: &mut [f32], put_off: &[PutOff]) {
        for step in put_off {
            for value in row.iter_mut() {
                *value *= step.decay;
            }
        }
    }
}

vectorized! {
    fn average_in_turn(row: &mut [f32], average: &mut [f32], put_off: &[PutOff]) {
        for step in put_off {
            for (value, average) in row.iter_mut().zip(average.iter_mut()) {
                *value *= step.decay;
                *average += (*value - *average) * step.follow;
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Rates {
    scale: f32,
    /// The most that a gradient may be, in either direction.
    limit: f32,
    decay: f32,
    /// Learning rate over the first moment's bias correction.
    step: f32,
    /// One over the root of the second moment's bias correction.
    root_correction: f32,
    /// How far the average moves towards the weights.
    follow: f32,
}

fn update(p: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32], average: Option<&mut [f32]>, rates: Rates) {
    match average {
        None => update_weights(p, g, m, v, rates),
        // While a block is in the cache.
        Some(average) => {
            const BLOCK: usize = 1024;
            let blocks = p.chunks_mut(BLOCK).zip(g.chunks_mut(BLOCK)).zip(m.chunks_mut(BLOCK)).zip(v.chunks_mut(BLOCK));
            for ((((p, g), m), v), average) in blocks.zip(average.chunks_mut(BLOCK)) {
                update_weights(p, g, m, v, rates);
                move_towards(average, p, rates.follow);
            }
        }
    }
}

vectorized! {
    fn move_towards(average: &mut [f32], p: &[f32], follow: f32) {
        for (average, value) in average.iter_mut().zip(p) {
            *average += (*value - *average) * follow;
        }
    }
}

vectorized! {
    fn update_weights(p: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32], rates: Rates) {
        let n = p.len();
        let (g, m, v) = (&mut g[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let gradient = (g[i] * rates.scale).max(-rates.limit).min(rates.limit);
            g[i] = 0.0;
            m[i] += (gradient - m[i]) * (1.0 - BETA_1) as f32;
            v[i] = v[i] * BETA_2 as f32 + gradient * gradient * (1.0 - BETA_2) as f32;
            p[i] = p[i] * rates.decay - rates.step * m[i] / (v[i].sqrt() * rates.root_correction + EPSILON as f32);
        }
    }
}

impl Gradients {
    /// The Euclidean norm over all parameters; not finite if any gradient is not.
    pub fn norm(&self) -> f64 {
        let table = WordTable::of(self.layout());
        let (before, rest) = self.flat().split_at(table.start);
        let (words, behind) = rest.split_at(table.rows * table.width);
        let tasks = words.par_chunks(table.task_len()).zip(self.looked_up().par_chunks(table.task_len() / table.width));
        // Rows that were never looked up would add zeros.
        let words = tasks.map(|(rows, looked_up)| {
            let rows = rows.chunks_exact(table.width).zip(looked_up).filter(|&(_, &looked_up)| looked_up);
            rows.map(|(row, _)| sum_of_squares(row)).sum()
        });
        let squares: Vec<f64> = before
            .par_chunks(TASK)
            .map(sum_of_squares)
            .chain(words)
            .chain(behind.par_chunks(TASK).map(sum_of_squares))
            .collect();
        squares.iter().sum::<f64>().sqrt()
    }
}

vectorized! {
    fn sum_of_squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 8];
        let (whole, rest) = values.as_chunks::<8>();
        for chunk in whole {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(value) * f64::from(value);
            }
        }
        lanes.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EncoderConfig, Family, Normal};

    fn layout() -> Arc<Layout> {
        Layout::new(&EncoderConfig { num_layers: 1, ..Family::DISTILBERT.small(12) })
    }

    /// Gradients of one step: normal everywhere but in the word table, where only these rows have any.
    fn gradients_of(step: u64, ids: &[u32], into: &mut Gradients, dense: bool) {
        let layout = into.layout().clone();
        let mut values = vec![0.0; layout.len()];
        Normal::new(step, "gradients", 0.1).fill(&mut values);
        let table = WordTable::of(&layout);
        for row in (0..table.rows).filter(|&row| !ids.contains(&(row as u32))) {
            values[table.start + row * table.width..][..table.width].fill(0.0);
        }
        match dense {
            true => into.flat_mut().copy_from_slice(&values),
            false => {
                into.mark_looked_up(ids);
                into.flat_kept_mut().copy_from_slice(&values);
            }
        }
    }

    #[test]
    fn decay_that_is_put_off_gives_the_same_bits() {
        put_off(|optimizer, _| optimizer);
    }

    #[test]
    fn an_average_that_is_put_off_has_the_same_bits() {
        put_off(|optimizer, start| optimizer.with_average(0.4, start));
    }

    #[test]
    fn decay_at_a_rate_of_its_own_is_put_off_with_the_same_bits() {
        put_off(|optimizer, _| {
            let factors = (0..optimizer.layout.entries().len()).map(|index| 0.5 + 0.1 * index as f64);
            let factors = factors.collect();
            optimizer.with_rate_factors(factors)
        });
    }

    /// Steps with decay put off, read and settled in between, against steps that update every row: equal bits.
    fn put_off(settings: impl Fn(AdamW, Vec<f32>) -> AdamW) {
        let layout = layout();
        let start = Parameters::random(layout.clone(), 0, 5);
        let new = || settings(AdamW::new(layout.clone(), 0.1), start.flat().to_vec());
        let (mut lazy, mut dense) = (start.clone(), start.clone());
        let (mut lazy_gradients, mut dense_gradients) =
            (Gradients::zeros(layout.clone()), Gradients::zeros(layout.clone()));
        let (mut lazy_optimizer, mut dense_optimizer) = (new(), new());
        let all: Vec<u32> = (0..50).collect();
        let batches: [&[u32]; 6] = [&[3, 4, 9], &[4, 30], &[9, 3], &[49, 0], &[30], &[12, 3]];
        for (step, ids) in batches.into_iter().enumerate() {
            lazy_optimizer.look_up(&mut lazy, ids);
            dense_optimizer.look_up(&mut dense, &all);
            let table = WordTable::of(lazy.layout());
            for &id in ids {
                let row = table.start + id as usize * table.width..table.start + (id as usize + 1) * table.width;
                assert_eq!(lazy.flat()[row.clone()], dense.flat()[row], "row {id} as read in step {step}");
            }
            gradients_of(step as u64, ids, &mut lazy_gradients, false);
            gradients_of(step as u64, ids, &mut dense_gradients, true);
            assert_eq!(lazy_gradients.norm(), dense_gradients.norm());
            let rate = 0.01 * (step + 1) as f64;
            lazy_optimizer.step(&mut lazy, &mut lazy_gradients, rate, [0.7, f32::INFINITY]);
            dense_optimizer.step(&mut dense, &mut dense_gradients, rate, [0.7, f32::INFINITY]);
            assert!(lazy_gradients.flat().iter().all(|&gradient| gradient == 0.0));
            if step == 1 {
                assert_ne!(lazy.flat(), dense.flat(), "some decay has been put off");
            }
            if step == 2 {
                lazy_optimizer.settle(&mut lazy);
                assert_eq!(lazy.flat(), dense.flat());
            }
            if step == 3 {
                // A checkpoint: the moments alone say which rows have been looked up.
                lazy_optimizer.settle(&mut lazy);
                let (steps, first, second) = lazy_optimizer.state();
                let (first, second) = (first.to_vec(), second.to_vec());
                let restored = AdamW::restore(lazy.layout().clone(), 0.1, steps, first, second);
                let average = lazy_optimizer.average().map_or_else(Vec::new, <[f32]>::to_vec);
                lazy_optimizer = match average.is_empty() {
                    true => settings(restored.expect("moments that fit"), Vec::new()),
                    false => settings(restored.expect("moments that fit"), average),
                };
                lazy_gradients = Gradients::zeros(lazy.layout().clone());
            }
        }
        lazy_optimizer.settle(&mut lazy);
        assert_eq!(lazy.flat(), dense.flat());
        assert_eq!(lazy_optimizer.state(), dense_optimizer.state());
        assert_eq!(lazy_optimizer.average(), dense_optimizer.average());
        let [mut swapped, mut average] = [lazy.clone(), lazy.clone()];
        if let Some(values) = lazy_optimizer.average() {
            average.flat_mut().copy_from_slice(values);
            assert_ne!(average.flat(), lazy.flat());
        }
        lazy_optimizer.swap_average(&mut swapped);
        assert_eq!(swapped.flat(), average.flat());
        lazy_optimizer.swap_average(&mut swapped);
        assert_eq!(swapped.flat(), lazy.flat());
    }

    /// Steps along normal gradients of all parameters.
    fn trained(optimizer: &mut AdamW, clip: [f32; 2], steps: u64) -> Vec<Parameters> {
        let layout = layout();
        let mut parameters = Parameters::random(layout.clone(), 0, 5);
        let all: Vec<u32> = (0..WordTable::of(&layout).rows as u32).collect();
        optimizer.look_up(&mut parameters, &all);
        let step = |number: u64| {
            let mut gradients = Gradients::zeros(layout.clone());
            gradients_of(number, &all, &mut gradients, true);
            optimizer.freeze(&mut gradients);
            optimizer.step(&mut parameters, &mut gradients, 0.01 * (number + 1) as f64, clip);
            parameters.clone()
        };
        (0..steps).map(step).collect()
    }

    const NO_CLIP: [f32; 2] = [1.0, f32::INFINITY];

    #[test]
    fn each_parameter_is_trained_at_its_own_rate_or_not_at_all() {
        let layout = layout();
        let factor = |index: usize| [0.0, 1.0, 0.25][index % 3];
        let factors = (0..layout.entries().len()).map(factor).collect();
        let found = trained(&mut AdamW::new(layout.clone(), 0.1).with_rate_factors(factors), NO_CLIP, 3).remove(2);
        let whole = trained(&mut AdamW::new(layout.clone(), 0.1), NO_CLIP, 3).remove(2);
        let all_at = vec![0.25; layout.entries().len()];
        let quarter = trained(&mut AdamW::new(layout.clone(), 0.1).with_rate_factors(all_at), NO_CLIP, 3).remove(2);
        let start = Parameters::random(layout.clone(), 0, 5);
        for (index, entry) in layout.entries().iter().enumerate() {
            let expected = [&start, &whole, &quarter][index % 3].get(entry.slot);
            assert_eq!(found.get(entry.slot), expected, "{}", entry.name);
        }
        assert_ne!(whole.flat(), quarter.flat());
    }

    /// The definition, in `f64` on the weights of each step.
    #[test]
    fn the_average_follows_the_weights_faster_at_first() {
        let layout = layout();
        let start = Parameters::random(layout.clone(), 0, 5);
        let mut optimizer = AdamW::new(layout, 0.1).with_average(0.3, start.flat().to_vec());
        let mut expected: Vec<f64> = start.flat().iter().map(|&value| f64::from(value)).collect();
        for (weights, step) in trained(&mut optimizer, NO_CLIP, 5).iter().zip(1..) {
            // 2/11, 3/12, 4/13, then 0.3: from step 4 on 5/14 would be more.
            let keep = f64::min(0.3, f64::from(1 + step) / f64::from(10 + step));
            for (average, &weight) in expected.iter_mut().zip(weights.flat()) {
                *average = keep * *average + (1.0 - keep) * f64::from(weight);
            }
        }
        let found = optimizer.average().expect("one");
        let difference = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        // Measured: 4.0e-8 of weights up to 1.
        assert!(difference < 1.2e-7, "{difference}");
    }

    #[test]
    fn clipping_by_value_is_that_of_clipped_gradients() {
        let layout = layout();
        let found = trained(&mut AdamW::new(layout.clone(), 0.1), [1.0, 0.05], 3).remove(2);
        let mut parameters = Parameters::random(layout.clone(), 0, 5);
        let mut optimizer = AdamW::new(layout.clone(), 0.1);
        let all: Vec<u32> = (0..WordTable::of(&layout).rows as u32).collect();
        optimizer.look_up(&mut parameters, &all);
        for step in 0..3 {
            let mut gradients = Gradients::zeros(layout.clone());
            gradients_of(step, &all, &mut gradients, true);
            gradients.flat_mut().iter_mut().for_each(|gradient| *gradient = gradient.clamp(-0.05, 0.05));
            optimizer.step(&mut parameters, &mut gradients, 0.01 * (step + 1) as f64, NO_CLIP);
        }
        assert_eq!(found.flat(), parameters.flat());
    }

    #[test]
    #[should_panic(expected = "was not told of")]
    fn gradients_of_rows_not_looked_up_are_refused() {
        let layout = layout();
        let mut parameters = Parameters::random(layout.clone(), 0, 5);
        let mut gradients = Gradients::zeros(layout.clone());
        let mut optimizer = AdamW::new(layout, 0.1);
        optimizer.look_up(&mut parameters, &[1]);
        gradients_of(0, &[1, 2], &mut gradients, false);
        optimizer.step(&mut parameters, &mut gradients, 0.01, [1.0, f32::INFINITY]);
    }
}
