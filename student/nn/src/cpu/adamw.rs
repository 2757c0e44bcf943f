//! AdamW (Loshchilov and Hutter, 2019) over the flat buffers, one pass over parameters, moments and gradients.
//!
//! Word embeddings that no batch has used yet have zero moments, so a step only decays them. That decay is postponed:
//! [`AdamW::look_up`] applies the factors of the missed steps to a row, one after another, before it is first read, and
//! [`AdamW::settle`] to all such rows, before the weights are read as a whole. The bits are the same as when every row
//! is updated at every step. After its first use a row is updated at every step. If the embeddings are tied to the
//! output matrix of a masked-language model, every row has a gradient and is updated from the first step.

use std::sync::Arc;

use rayon::prelude::*;

use crate::cpu::simd::vectorized;
use crate::{Error, Gradients, Layout, Parameters, Slot};

/// Scalars that one task updates or adds up: fixed, so that sums do not depend on the thread count.
const TASK: usize = 1 << 16;

/// AdamW with its moments; betas 0.9 and 0.999, epsilon 1e-8. Agrees with `torch.optim.AdamW`.
#[derive(Clone, Debug)]
pub struct AdamW {
    layout: Arc<Layout>,
    /// Weight decay; not applied to biases and norms.
    weight_decay: f64,
    steps: u64,
    first_moment: Vec<f32>,
    second_moment: Vec<f32>,
    /// Which word embeddings have been used by a batch.
    looked_up: Vec<bool>,
    /// The postponed decay factors of the other rows, in order.
    put_off: Vec<f32>,
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
        Self { layout, weight_decay, steps: 0, first_moment, second_moment, looked_up, put_off: Vec::new() }
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
            Self { layout, weight_decay, steps, first_moment, second_moment, looked_up, put_off: Vec::new() }
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

    /// Number of steps taken, first and second moments, for a checkpoint.
    pub fn state(&self) -> (u64, &[f32], &[f32]) {
        (self.steps, &self.first_moment, &self.second_moment)
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
                multiply_in_turn(&mut parameters.flat_mut()[start..start + table.width], &self.put_off);
            }
        }
    }

    /// Applies all postponed decay; call it before validation, checkpoints and export.
    pub fn settle(&mut self, parameters: &mut Parameters) {
        if self.put_off.is_empty() {
            return;
        }
        let table = WordTable::of(&self.layout);
        let values = &mut parameters.flat_mut()[table.start..][..table.rows * table.width];
        let rows = values.par_chunks_exact_mut(table.width).zip(&self.looked_up);
        let put_off = &self.put_off;
        rows.for_each(|(row, &looked_up)| {
            if !looked_up {
                multiply_in_turn(row, put_off);
            }
        });
        self.put_off.clear();
    }

    /// Takes a step with `scale` times the gradients, and zeroes the gradients.
    ///
    /// # Panics
    /// If a word embedding has a gradient but was not passed to [`look_up`](Self::look_up).
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &mut Gradients, learning_rate: f64, scale: f32) {
        self.steps += 1;
        let exponent = self.steps.min(i32::MAX as u64) as i32;
        let decay = (1.0 - learning_rate * self.weight_decay) as f32;
        let rates = Rates {
            scale,
            decay: 1.0,
            step: (learning_rate / (1.0 - BETA_1.powi(exponent))) as f32,
            root_correction: (1.0 / (1.0 - BETA_2.powi(exponent)).sqrt()) as f32,
        };
        let told = gradients.looked_up().iter().zip(&self.looked_up).all(|(&found, &told)| told || !found);
        assert!(told, "a step along gradients of rows that the optimiser was not told of");

        let mut rest = (
            parameters.flat_mut(),
            gradients.flat_kept_mut(),
            self.first_moment.as_mut_slice(),
            self.second_moment.as_mut_slice(),
        );
        let mut tasks = Vec::new();
        for entry in self.layout.entries() {
            let decay = if entry.decays() { decay } else { 1.0 };
            let is_word_table = entry.slot == Slot::WordEmbeddings;
            let size = if is_word_table { WordTable::of(&self.layout).task_len() } else { TASK };
            let mut done = 0;
            while done < entry.range.len() {
                let n = size.min(entry.range.len() - done);
                let (parameters, gradients, first, second) = rest;
                let (p, parameters) = parameters.split_at_mut(n);
                let (g, gradients) = gradients.split_at_mut(n);
                let (m, first) = first.split_at_mut(n);
                let (v, second) = second.split_at_mut(n);
                let rows = is_word_table.then(|| {
                    let width = entry.shape[1];
                    (width, &self.looked_up[done / width..(done + n) / width])
                });
                tasks.push((p, g, m, v, Rates { decay, ..rates }, rows));
                rest = (parameters, gradients, first, second);
                done += n;
            }
        }
        tasks.into_par_iter().for_each(|(p, g, m, v, rates, rows)| match rows {
            None => update(p, g, m, v, rates),
            Some((width, looked_up)) => {
                for (row, _) in looked_up.iter().enumerate().filter(|&(_, &looked_up)| looked_up) {
                    let span = row * width..(row + 1) * width;
                    update(&mut p[span.clone()], &mut g[span.clone()], &mut m[span.clone()], &mut v[span], rates);
                }
            }
        });
        if decay != 1.0 {
            self.put_off.push(decay);
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

vectorized! {
    fn multiply_in_turn(row: &mut [f32], factors: &[f32]) {
        for &factor in factors {
            for value in row.iter_mut() {
                *value *= factor;
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Rates {
    scale: f32,
    decay: f32,
    /// Learning rate over the first moment's bias correction.
    step: f32,
    /// One over the root of the second moment's bias correction.
    root_correction: f32,
}

vectorized! {
    fn update(p: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32], rates: Rates) {
        let n = p.len();
        let (g, m, v) = (&mut g[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let gradient = g[i] * rates.scale;
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

    /// Steps with decay put off, read and settled in between, against steps that update every row: equal bits.
    #[test]
    fn decay_that_is_put_off_gives_the_same_bits() {
        let layout = layout();
        let start = Parameters::random(layout.clone(), 0, 5);
        let (mut lazy, mut dense) = (start.clone(), start);
        let (mut lazy_gradients, mut dense_gradients) =
            (Gradients::zeros(layout.clone()), Gradients::zeros(layout.clone()));
        let (mut lazy_optimizer, mut dense_optimizer) = (AdamW::new(layout.clone(), 0.1), AdamW::new(layout, 0.1));
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
            lazy_optimizer.step(&mut lazy, &mut lazy_gradients, rate, 0.7);
            dense_optimizer.step(&mut dense, &mut dense_gradients, rate, 0.7);
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
                lazy_optimizer =
                    AdamW::restore(lazy.layout().clone(), 0.1, steps, first, second).expect("moments that fit");
                lazy_gradients = Gradients::zeros(lazy.layout().clone());
            }
        }
        lazy_optimizer.settle(&mut lazy);
        assert_eq!(lazy.flat(), dense.flat());
        assert_eq!(lazy_optimizer.state(), dense_optimizer.state());
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
        optimizer.step(&mut parameters, &mut gradients, 0.01, 1.0);
    }
}
