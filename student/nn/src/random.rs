//! Random numbers as a function of seed, purpose and index only, so that they depend neither on the number of threads
//! nor on the order of work.

use std::f64::consts::TAU;

/// The dropout masks of an optimiser step.
///
/// Whether an element is dropped is a hash of (seed, step, view, site, element); the backward pass recomputes it, so no
/// mask is stored. Elements are numbered within the optimiser step, so splitting a step into micro-batches does not
/// change its masks.
#[derive(Clone, Copy, Debug)]
pub struct DropoutRng {
    key: u64,
    first_row: u64,
    first_token: u64,
}

impl DropoutRng {
    /// The masks of one optimiser step. `view` is 0, or another number for further forward passes over the same rows
    /// with other masks.
    pub fn new(seed: u64, step: u64, view: u64) -> Self {
        Self { key: mix(mix(mix(seed) ^ step) ^ view), first_row: 0, first_token: 0 }
    }

    /// The masks for a micro-batch that starts after this many rows and tokens of its step.
    pub fn behind(self, rows: usize, tokens: usize) -> Self {
        Self { first_row: rows as u64, first_token: tokens as u64, ..self }
    }

    /// Number, within the step, of the batch's first row of text.
    pub(crate) fn first_row(&self) -> u64 {
        self.first_row
    }

    /// Number, within the step, of the batch's first token.
    pub(crate) fn first_token(&self) -> u64 {
        self.first_token
    }

    /// The masks at one place in the model; `None` where nothing is dropped.
    pub(crate) fn site(&self, site: u64, rate: f32) -> Option<DropoutSite> {
        let threshold = (f64::from(rate) * 4294967296.0) as u32;
        if rate <= 0.0 || threshold == 0 {
            return None;
        }
        let key = mix(self.key ^ mix(site.wrapping_add(1)));
        Some(DropoutSite { key: [key as u32, (key >> 32) as u32], threshold, scale: 1.0 / (1.0 - rate) })
    }
}

/// The dropout mask at one place in the model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropoutSite {
    key: [u32; 2],
    threshold: u32,
    scale: f32,
}

impl DropoutSite {
    /// Key, threshold and scale: what a GPU's kernel computes [`factor`](Self::factor) from.
    pub(crate) fn scalars(self) -> ([u32; 2], u32, f32) {
        (self.key, self.threshold, self.scale)
    }

    /// The mask of a row whose first element has this number, and the number that [`factor`](Self::factor) counts on
    /// from. Numbers beyond 32 bits change the key; below they leave it as it is.
    pub(crate) fn row(self, number: u64) -> (Self, u32) {
        let high = (number >> 32) as u32;
        let [low_key, high_key] = self.key;
        let key = [low_key ^ high.wrapping_mul(0x9e37_79b9), high_key.wrapping_add(high.wrapping_mul(0x85eb_ca6b))];
        (Self { key, ..self }, number as u32)
    }

    /// What element `index` is multiplied with: 0, or 1 / (1 - rate).
    #[inline(always)]
    pub(crate) fn factor(self, index: u32) -> f32 {
        // Two keyed rounds of a 32-bit finaliser: multiplications and shifts that vector units have.
        let mut x = index ^ self.key[0];
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        x = (x ^ (x >> 16)).wrapping_add(self.key[1]);
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        x ^= x >> 16;
        if x >= self.threshold { self.scale } else { 0.0 }
    }
}

/// A stream of normally distributed numbers with mean zero.
#[derive(Clone, Debug)]
pub struct Normal {
    state: u64,
    deviation: f64,
}

impl Normal {
    /// The stream for this seed and purpose, with this standard deviation.
    pub fn new(seed: u64, purpose: &str, deviation: f64) -> Self {
        let state = purpose.bytes().fold(mix(seed), |state, byte| mix(state ^ u64::from(byte)));
        Self { state, deviation }
    }

    /// Fills the slice with new values.
    pub fn fill(&mut self, values: &mut [f32]) {
        for pair in values.chunks_mut(2) {
            // Box and Muller, 1958. The offset keeps the logarithm from zero.
            let radius = (-2.0 * (self.uniform() + f64::EPSILON).min(1.0).ln()).sqrt() * self.deviation;
            let angle = TAU * self.uniform();
            pair[0] = (radius * angle.cos()) as f32;
            if let Some(second) = pair.get_mut(1) {
                *second = (radius * angle.sin()) as f32;
            }
        }
    }

    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (finalize(self.state) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A bijection of 64 bits in which every input bit moves every output bit (the step of SplitMix64).
fn mix(x: u64) -> u64 {
    finalize(x.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

fn finalize(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_keeps_its_rate_and_its_mean() {
        let site = DropoutRng::new(7, 3, 0).site(5, 0.1).expect("a rate above zero");
        let n = 1_000_000u32;
        let dropped = (0..n).filter(|&i| site.factor(i) == 0.0).count() as f64 / f64::from(n);
        // Five standard errors of a binomial with p = 0.1.
        assert!((dropped - 0.1).abs() < 5.0 * (0.09f64 / f64::from(n)).sqrt(), "{dropped}");
        // Neighbours, in the row and one row of 384 on, are independent.
        for stride in [1, 384] {
            let both = (0..n).filter(|&i| site.factor(i) == 0.0 && site.factor(i + stride) == 0.0).count();
            let share = both as f64 / f64::from(n);
            assert!((share - 0.01).abs() < 5.0 * (0.0099f64 / f64::from(n)).sqrt(), "{stride}: {share}");
        }
    }

    #[test]
    fn sites_steps_and_seeds_differ() {
        let masks: Vec<Vec<bool>> = [(1, 1, 0, 1), (2, 1, 0, 1), (1, 2, 0, 1), (1, 1, 1, 1), (1, 1, 0, 2)]
            .map(|(seed, step, micro, site)| {
                let site = DropoutRng::new(seed, step, micro).site(site, 0.5).expect("a rate above zero");
                (0..256).map(|i| site.factor(i) == 0.0).collect()
            })
            .to_vec();
        for (i, a) in masks.iter().enumerate() {
            assert!(masks[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn numbers_beyond_32_bits_have_masks_of_their_own() {
        let site = DropoutRng::new(7, 3, 0).site(5, 0.5).expect("a rate above zero");
        let (low, first) = site.row(12);
        assert_eq!((low.factor(first), first), (site.factor(12), 12));
        let n = 100_000u64;
        let same = (0..n).filter(|&i| {
            let ((here, a), (there, b)) = (site.row(i), site.row((1 << 32) + i));
            here.factor(a) == there.factor(b)
        });
        let share = same.count() as f64 / n as f64;
        // Five standard errors of a fair coin.
        assert!((share - 0.5).abs() < 5.0 * (0.25 / n as f64).sqrt(), "{share}");
    }

    #[test]
    fn normal_has_its_deviation() {
        let mut values = vec![0.0; 100_001];
        Normal::new(42, "a", 0.02).fill(&mut values);
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let deviation = (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!(mean.abs() < 5.0 * 0.02 / n.sqrt(), "{mean}");
        assert!((deviation - 0.02).abs() < 5.0 * 0.02 / (2.0 * n).sqrt(), "{deviation}");
    }
}
