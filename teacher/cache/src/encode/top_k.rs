//! The largest logits of a wide output, and at each temperature the logarithm of the sum of what the others contribute
//! to the softmax.

use super::parts::{Parts, append_indices, append_numbers, numbers};
use super::tails::{self, Sums};
use super::vector::{LANES, lane_tops};
use crate::captured::Dtype;
use crate::recorded::RecordedError;

/// The largest logits of outputs, and what the others add to the softmax.
///
/// # Shapes
/// - `values`, `columns`: `[outputs, k]`, falling, of equal logits the first first
/// - `rest`: `[outputs, 1 + 2 temperatures]`: the largest of the others, then at each temperature the sums of `e^x` and of
///   `x e^x` over them, `x = (logit - that largest) / temperature`
#[derive(Clone, Copy, Debug)]
pub struct TopLogits<'a> {
    /// The logits.
    pub values: &'a [f32],
    /// Which of their output they are.
    pub columns: &'a [u32],
    /// What the others add.
    pub rest: &'a [f32],
}

impl TopLogits<'_> {
    /// One output; `sides` are numbers of the rest of each.
    pub(super) fn output(&self, output: usize, k: usize, sides: usize) -> Self {
        let values = &self.values[output * k..(output + 1) * k];
        let columns = &self.columns[output * k..(output + 1) * k];
        Self { values, columns, rest: &self.rest[output * sides..(output + 1) * sides] }
    }
}

/// What is stored of each output.
pub(super) struct Form<'a> {
    /// Below the number of logits.
    pub(super) k: usize,
    pub(super) dtype: Dtype,
    pub(super) temperatures: &'a [f64],
    pub(super) short: bool,
}

impl Form<'_> {
    /// Numbers that say what the other logits of an output add.
    pub(super) fn sides(&self) -> usize {
        1 + 2 * self.temperatures.len()
    }
}

/// Buffers that are kept from output to output.
#[derive(Default)]
pub(super) struct Scratch {
    lane_tops: Vec<f32>,
    candidates: Vec<(f32, u32)>,
    kept: Vec<usize>,
    sums: Vec<Sums>,
}

/// Logits whose lanes' largest are looked at before they are.
const BLOCK: usize = 32 * LANES;

impl Scratch {
    pub(super) fn append(
        &mut self,
        form: &Form<'_>,
        logits: &[f32],
        ahead: &[f32],
        parts: &mut Parts,
        error: &mut RecordedError,
    ) {
        let rest_top = self.select(logits, form.k);
        self.kept.clear();
        self.kept.extend(self.candidates.iter().map(|(_, index)| *index as usize));
        self.kept.sort_unstable();
        // Sums are taken against the rest's own largest: against the largest of all, a rest far below would vanish.
        tails::sums(between(logits, &self.kept), rest_top, form.temperatures, ahead, &mut self.sums);
        let (values, columns): (Vec<f32>, Vec<u32>) = self.candidates.iter().copied().unzip();
        let found = Found { values: &values, columns: &columns, width: logits.len(), rest_top };
        found.append(form, self.sums.iter().copied(), parts, error);
    }

    /// Leaves the `k` largest logits in `candidates`, falling, of equal ones the first first; returns the largest of the
    /// others.
    fn select(&mut self, logits: &[f32], k: usize) -> f32 {
        let falling = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        self.lane_tops.clear();
        self.lane_tops.extend(logits.chunks(BLOCK).flat_map(lane_tops));
        // More than `k` logits are as large as the one that `k` of the lanes' largest go before.
        let threshold = match self.lane_tops.len() > k {
            true => {
                let mut tops = self.lane_tops.clone();
                *tops.select_nth_unstable_by(k, |a, b| b.total_cmp(a)).1
            }
            false => f32::MIN,
        };
        self.candidates.clear();
        for (number, _) in self.lane_tops.iter().enumerate().filter(|(_, top)| **top >= threshold) {
            let (block, lane) = (number / LANES * BLOCK, number % LANES);
            for index in (block + lane..(block + BLOCK).min(logits.len())).step_by(LANES) {
                if logits[index] >= threshold {
                    self.candidates.push((logits[index], index as u32));
                }
            }
        }
        self.candidates.select_nth_unstable_by(k, falling);
        let others = self.candidates.drain(k..).map(|(logit, _)| logit);
        let top = others.fold(f32::MIN, f32::max);
        self.candidates.sort_unstable_by(falling);
        top
    }
}

/// Appends an output that was selected and summed up elsewhere.
pub(super) fn append_selected(
    form: &Form<'_>,
    top: &TopLogits<'_>,
    width: usize,
    parts: &mut Parts,
    error: &mut RecordedError,
) {
    let sums = top.rest[1..].chunks_exact(2);
    let sums = sums.map(|sums| Sums { mass: sums[0].into(), weighted: sums[1].into() });
    let found = Found { values: top.values, columns: top.columns, width, rest_top: top.rest[0] };
    found.append(form, sums, parts, error);
}

/// The largest logits of one of `width`, and the largest of the others.
struct Found<'a> {
    values: &'a [f32],
    columns: &'a [u32],
    width: usize,
    rest_top: f32,
}

impl Found<'_> {
    /// Appends them; `sums` are the others', at each temperature.
    fn append(&self, form: &Form<'_>, sums: impl Iterator<Item = Sums>, parts: &mut Parts, error: &mut RecordedError) {
        let start = parts.logits.len();
        append_numbers(form.dtype, self.values, &mut parts.logits);
        append_indices(form.short, self.columns.iter().copied(), &mut parts.indices);
        let stored: Vec<f32> = numbers(form.dtype, &parts.logits[start..]).collect();
        error.compare(self.values, &stored);
        let others = (self.width - form.k) as f64;
        for ((sums, at), &temperature) in sums.zip(&mut error.divergences).zip(form.temperatures) {
            let tail = f64::from(self.rest_top) / temperature + sums.mass.ln();
            parts.tails.extend((tail as f32).to_le_bytes());
            at.add(lost(self.values, &stored, sums, tail, others, temperature));
        }
    }
}

/// What stands between the places in `kept`, which ascend.
fn between<'a>(logits: &'a [f32], kept: &'a [usize]) -> impl Iterator<Item = &'a [f32]> {
    let starts = std::iter::once(0).chain(kept.iter().map(|kept| kept + 1));
    let ends = kept.iter().copied().chain([logits.len()]);
    starts.zip(ends).map(|(start, end)| &logits[start..end])
}

/// `KL(teacher || stored)` at one temperature, where the stored distribution has the stored logits and the rest's exact
/// sum, whose logarithm is `tail`, spread evenly over the rest.
fn lost(kept: &[f32], stored: &[f32], rest: Sums, tail: f64, others: f64, temperature: f64) -> f64 {
    let scaled = |logit: f32| f64::from(logit) / temperature;
    let log_sum = |logits: &[f32]| {
        let top = scaled(logits[0]).max(tail);
        top + (logits.iter().map(|&logit| (scaled(logit) - top).exp()).sum::<f64>() + (tail - top).exp()).ln()
    };
    let (log_total, log_stored) = (log_sum(kept), log_sum(stored));
    let probability = |log: f64| (log - log_total).exp();
    let pairs = kept.iter().zip(stored).map(|(&kept, &stored)| (scaled(kept), scaled(stored)));
    let kept_part: f64 = pairs.map(|(kept, stored)| probability(kept) * (kept - stored)).sum();
    let rest_part = probability(tail) * (rest.weighted / rest.mass - rest.mass.ln() + others.ln());
    (kept_part + rest_part + log_stored - log_total).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured::{Captured, LogitForm, Outputs};
    use crate::encode::parts::indices;

    fn logits(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + 13) % 10_007) as f32 / 500.0 - 5.0).collect()
    }

    fn encode(logits: &[f32], k: usize, dtype: Dtype) -> (Parts, RecordedError) {
        let temperatures = vec![1.0, 2.0, 4.0];
        let form = LogitForm::TopK { k, dtype, temperatures: temperatures.clone() };
        let captured = Captured { width: logits.len(), outputs: Outputs::Token, logits: form, hidden_states: None };
        let (mut parts, mut error) = (Parts::default(), RecordedError::new(&captured));
        let form = Form { k, dtype, temperatures: &temperatures, short: captured.short_indices() };
        Scratch::default().append(&form, logits, &[], &mut parts, &mut error);
        (parts, error)
    }

    #[test]
    fn the_largest_are_kept_in_falling_order() {
        for (n, k) in [(30_522, 64), (100, 64), (65, 64), (4, 1), (1000, 999), (70_000, 3)] {
            let logits = logits(n);
            let (parts, _) = encode(&logits, k, Dtype::F32);
            let mut expected: Vec<u32> = (0..n as u32).collect();
            expected.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            let kept: Vec<u32> = indices(n <= 65_536, &parts.indices).collect();
            assert_eq!(kept, expected[..k], "{k} of {n}");
            let values: Vec<f32> = numbers(Dtype::F32, &parts.logits).collect();
            assert_eq!(values, kept.iter().map(|&i| logits[i as usize]).collect::<Vec<_>>());
        }
    }

    #[test]
    fn equal_logits_are_kept_from_the_front() {
        let (parts, _) = encode(&[1.0; 500], 7, Dtype::F16);
        assert_eq!(indices(true, &parts.indices).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_rest_far_below_the_largest_has_its_tail_all_the_same() {
        for top in [90.0_f32, 1e4, 1e30] {
            let (parts, error) = encode(&[0.0, top, 0.0, 0.5], 1, Dtype::F32);
            let tails: Vec<f32> = numbers(Dtype::F32, &parts.tails).collect();
            for (tail, temperature) in tails.into_iter().zip([1.0_f64, 2.0, 4.0]) {
                let expected = (2.0 + (0.5 / temperature).exp()).ln();
                assert!((f64::from(tail) - expected).abs() < 1e-6, "{top} at {temperature}: {tail} {expected}");
            }
            assert!(error.divergences.iter().all(|at| at.sum.abs() < 1e-6), "{error:?}");
        }
    }

    #[test]
    fn masked_logits_add_nothing_to_what_is_lost() {
        let mut masked = logits(100);
        let (_, without) = encode(&masked, 10, Dtype::F32);
        masked.extend([f32::MIN; 100]);
        let (parts, with) = encode(&masked, 10, Dtype::F32);
        for (without, with) in without.divergences.iter().zip(&with.divergences) {
            // Spread over twice as many places, the rest loses log 2 of its mass more, and nothing else.
            assert!(with.sum.is_finite() && with.sum > without.sum && with.sum < without.sum + 0.7, "{with:?}");
        }
        assert!(numbers(Dtype::F32, &parts.tails).all(f32::is_finite));
        let (_, error) = encode(&[f32::MAX, f32::MIN, f32::MIN, 0.0], 2, Dtype::F16);
        assert!(error.divergences.iter().all(|at| at.sum.is_finite()), "{error:?}");
    }

    #[test]
    fn tails_and_what_is_lost_are_those_of_the_definition() {
        let logits = logits(3000);
        for (k, dtype) in [(10, Dtype::F32), (64, Dtype::F16)] {
            let (parts, error) = encode(&logits, k, dtype);
            let kept: Vec<usize> = indices(true, &parts.indices).map(|index| index as usize).collect();
            let stored: Vec<f32> = numbers(dtype, &parts.logits).collect();
            let tails: Vec<f32> = numbers(Dtype::F32, &parts.tails).collect();
            for ((temperature, tail), at) in [1.0, 2.0, 4.0].into_iter().zip(tails).zip(&error.divergences) {
                let scaled = |logit: f32| f64::from(logit) / temperature;
                let others = || (0..logits.len()).filter(|index| !kept.contains(index));
                let expected: f64 = others().map(|index| scaled(logits[index]).exp()).sum::<f64>().ln();
                // Measured: at most 2e-7, the rounding to f32.
                assert!((f64::from(tail) - expected).abs() < 1e-6, "{temperature}: {tail} {expected}");
                // The distribution that the stored numbers stand for, written out.
                let mut q: Vec<f64> = vec![(expected.exp() / (logits.len() - k) as f64).ln(); logits.len()];
                kept.iter().zip(&stored).for_each(|(&index, &logit)| q[index] = scaled(logit));
                let log_sum = |values: &[f64]| values.iter().map(|value| value.exp()).sum::<f64>().ln();
                let p: Vec<f64> = logits.iter().map(|&logit| scaled(logit)).collect();
                let (p_sum, q_sum) = (log_sum(&p), log_sum(&q));
                let kl: f64 = p.iter().zip(&q).map(|(p, q)| (p - p_sum).exp() * (p - p_sum - q + q_sum)).sum();
                // Measured: at most 3e-7.
                assert!((at.sum - kl).abs() < 1e-6, "{k} at {temperature}: {} {kl}", at.sum);
            }
        }
    }
}
