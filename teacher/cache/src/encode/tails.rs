//! What logits contribute to the softmax at several temperatures, in one pass over wide outputs.
//!
//! A vocabulary has tens of thousands of logits and each would take an exponential for each temperature. The
//! exponential here is a polynomial that compilers turn into vector instructions, and where one temperature is twice
//! another, its exponential is the other's square root: it is computed once, for the highest, and squared.

use super::vector::{LANES, for_this_cpu};
use crate::ahead::fetch;

/// At one temperature `T`, over some logits: the sums of `e^((z - top) / T)`, and of the same times `(z - top) / T`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) mass: f64,
    pub(super) weighted: f64,
}

/// Logits that are worked on at a time: their sums in `f32` are then added in `f64`.
const BLOCK: usize = 512;

/// The sums over all pieces of some logits at each temperature; `top` is their largest. Meanwhile memory brings `ahead`,
/// which comes next: waiting for it would take longer than all else.
pub(super) fn sums<'a>(
    logits: impl Iterator<Item = &'a [f32]>,
    top: f32,
    temperatures: &[f64],
    ahead: &[f32],
    sums: &mut Vec<Sums>,
) {
    sums.clear();
    sums.resize(temperatures.len(), Sums::default());
    let highest = temperatures.iter().copied().fold(0.0, f64::max);
    let mut falling: Vec<usize> = (0..temperatures.len()).collect();
    falling.sort_by(|&a, &b| temperatures[b].total_cmp(&temperatures[a]));
    let [mut scaled, mut powers, mut others, mut unused] = [[0.0_f32; BLOCK]; 4];
    let mut ahead = ahead.chunks(BLOCK);
    for block in logits.flat_map(|piece| piece.chunks(BLOCK)) {
        ahead.next().into_iter().for_each(fetch);
        let length = block.len();
        let (scaled, powers, others) = (&mut scaled[..length], &mut powers[..length], &mut others[..length]);
        exponentials(block, top, 1.0 / highest as f32, scaled, powers);
        let mut squared = 0;
        for &at in &falling {
            let ratio = highest / temperatures[at];
            let (mass, weighted) = match squarings(ratio) {
                Some(squarings) => {
                    (squared..squarings).for_each(|_| square(powers));
                    squared = squarings;
                    weigh(powers, scaled)
                }
                None => {
                    exponentials(block, top, 1.0 / temperatures[at] as f32, &mut unused[..length], others);
                    weigh(others, scaled)
                }
            };
            sums[at].mass += f64::from(mass);
            sums[at].weighted += f64::from(weighted) * ratio;
        }
    }
}

/// How often a number is to be squared to be raised to this power, if that is all it takes.
fn squarings(ratio: f64) -> Option<u32> {
    (0..8).find(|&times| ratio == f64::from(1_u32 << times))
}

for_this_cpu! {
    /// `scaled = (logits - top) * rate` and `powers = e^scaled`; `top` is not below any logit.
    fn exponentials(logits: &[f32], top: f32, rate: f32, scaled: &mut [f32], powers: &mut [f32]) = plain_exponentials
}

for_this_cpu! {
    /// Squares each power.
    fn square(powers: &mut [f32]) = plain_square
}

for_this_cpu! {
    /// The sums of `powers` and of `powers * scaled`, over a fixed number of accumulators.
    fn weigh(powers: &[f32], scaled: &[f32]) -> (f32, f32) = plain_weigh
}

#[inline(always)]
fn plain_exponentials(logits: &[f32], top: f32, rate: f32, scaled: &mut [f32], powers: &mut [f32]) {
    for ((logit, scaled), power) in logits.iter().zip(scaled).zip(powers) {
        // Below -87 a power is next to nothing; times a logit that masks it would be something again.
        *scaled = ((logit - top) * rate).max(-87.0);
        *power = exponential(*scaled);
    }
}

#[inline(always)]
fn plain_square(powers: &mut [f32]) {
    for power in powers {
        *power *= *power;
    }
}

#[inline(always)]
fn plain_weigh(powers: &[f32], scaled: &[f32]) -> (f32, f32) {
    let (mut masses, mut weighted) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (power_lanes, rest) = powers.as_chunks::<LANES>();
    let (scaled_lanes, scaled_rest) = scaled.as_chunks::<LANES>();
    for (power, scaled) in power_lanes.iter().zip(scaled_lanes) {
        for lane in 0..LANES {
            masses[lane] += power[lane];
            weighted[lane] += power[lane] * scaled[lane];
        }
    }
    for (lane, (power, scaled)) in rest.iter().zip(scaled_rest).enumerate() {
        masses[lane] += power;
        weighted[lane] += power * scaled;
    }
    (masses.iter().sum(), weighted.iter().sum())
}

/// `e^x` for `x` up to 0; below -87 it is that of -87, 1e-38. `2^(x / ln 2)`, the fraction by its Taylor polynomial.
#[inline(always)]
fn exponential(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0) * std::f32::consts::LOG2_E;
    let rounded = x + ROUND;
    let whole = rounded - ROUND;
    let f = (x - whole) * std::f32::consts::LN_2;
    let polynomial =
        1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0))))));
    // The last bits of `rounded` are the whole number's.
    polynomial * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_library_s_exponential() {
        let logits: Vec<f32> = (0..30_522).map(|i| ((i * 7919) % 10_007) as f32 / 400.0 - 20.0).collect();
        let top = logits.iter().copied().fold(f32::MIN, f32::max);
        let temperatures = [1.0, 2.0, 3.0, 4.0];
        let mut found = Vec::new();
        sums(logits.chunks(700), top, &temperatures, &[], &mut found);
        for (found, temperature) in found.iter().zip(temperatures) {
            let scaled = || logits.iter().map(|logit| f64::from(logit - top) / temperature);
            let mass: f64 = scaled().map(f64::exp).sum();
            let weighted: f64 = scaled().map(|x| x.exp() * x).sum();
            // Measured: at most 2.7e-7 of either.
            assert!((found.mass / mass - 1.0).abs() < 1e-6, "{temperature}: {} {mass}", found.mass);
            assert!((found.weighted / weighted - 1.0).abs() < 1e-6, "{temperature}: {} {weighted}", found.weighted);
        }
    }

    #[test]
    fn the_exponential_is_close_and_never_below_zero() {
        let mut x = 0.0_f32;
        while x > -87.0 {
            // Measured: at most 4.6e-6, where the argument's own rounding tells.
            assert!((f64::from(exponential(x)) / f64::from(x).exp() - 1.0).abs() < 1.4e-5, "{x}");
            x -= 0.01;
        }
        assert!((0.0..2e-38).contains(&exponential(-1e30)));
    }
}
