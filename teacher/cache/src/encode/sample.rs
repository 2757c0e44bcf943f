//! Words drawn from a softmax, with replacement: the share of draws that a word gets is an unbiased estimate of its
//! probability, and so is the gradient of a student that learns from them (Anshumann et al., 2025, "Sparse Logit
//! Sampling").

use super::parts::{Parts, append_indices};
use crate::Key;
use crate::recorded::RecordedError;

/// What decides the draws of an output.
pub(super) struct Randomness<'a> {
    pub(super) seed: u64,
    pub(super) key: &'a Key,
    pub(super) output: usize,
}

/// Buffers that are kept from output to output.
#[derive(Default)]
pub(super) struct Scratch {
    /// Sums of the softmax's terms up to each word.
    sums: Vec<f64>,
    points: Vec<f64>,
    drawn: Vec<u32>,
}

impl Scratch {
    #[expect(clippy::too_many_arguments, reason = "the fields of the form, and where to")]
    pub(super) fn append(
        &mut self,
        draws: usize,
        temperature: f64,
        short: bool,
        randomness: &Randomness<'_>,
        logits: &[f32],
        parts: &mut Parts,
        error: &mut RecordedError,
    ) {
        let top = logits.iter().copied().fold(f32::MIN, f32::max);
        self.sums.clear();
        let mut sum = 0.0;
        for &logit in logits {
            sum += (f64::from(logit - top) / temperature).exp();
            self.sums.push(sum);
        }
        randomness.points(draws, sum, &mut self.points);
        self.drawn.clear();
        let mut word = 0;
        for &point in &self.points {
            while word + 1 < self.sums.len() && self.sums[word] <= point {
                word += 1;
            }
            self.drawn.push(word as u32);
        }
        append_indices(short, self.drawn.iter().copied(), &mut parts.indices);
        self.drawn.dedup();
        let probability = |&word: &u32| {
            let before = if word == 0 { 0.0 } else { self.sums[word as usize - 1] };
            (self.sums[word as usize] - before) / sum
        };
        let hit: f64 = self.drawn.iter().map(probability).sum();
        error.missed_mass += (1.0 - hit).max(0.0);
    }
}

impl Randomness<'_> {
    /// Uniform points from 0 up to, not including, `sum`, ascending.
    fn points(&self, draws: usize, sum: f64, points: &mut Vec<f64>) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"distill sample");
        hasher.update(&self.seed.to_le_bytes()).update(self.key).update(&(self.output as u64).to_le_bytes());
        let mut stream = hasher.finalize_xof();
        points.clear();
        for _ in 0..draws {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            points.push((u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64 * sum);
        }
        points.sort_unstable_by(f64::total_cmp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured::{Captured, LogitForm, Outputs};
    use crate::encode::parts::indices;

    #[test]
    fn shares_of_draws_are_probabilities_at_the_temperature() {
        let logits = [2.0_f32, -1.0, 0.5, 3.0, 0.0];
        let form = LogitForm::Sample { draws: 64, temperature: 2.0, seed: 1 };
        let captured = Captured { width: 5, outputs: Outputs::Token, logits: form, hidden_states: None };
        let (mut parts, mut error) = (Parts::default(), RecordedError::new(&captured));
        let mut scratch = Scratch::default();
        let outputs = 2000;
        for output in 0..outputs {
            let randomness = Randomness { seed: 1, key: &[7; 16], output };
            scratch.append(64, 2.0, true, &randomness, &logits, &mut parts, &mut error);
        }
        let mut counts = [0_usize; 5];
        indices(true, &parts.indices).for_each(|word| counts[word as usize] += 1);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit / 2.0).exp()).sum();
        for (count, logit) in counts.into_iter().zip(logits) {
            let share = count as f64 / (64 * outputs) as f64;
            // Four standard deviations of 128,000 draws are at most 0.0056.
            assert!((share - f64::from(logit / 2.0).exp() / sum).abs() < 0.0056, "{counts:?}");
        }
    }

    #[test]
    fn the_same_key_and_seed_draw_the_same() {
        let mut first = Vec::new();
        let mut again = Vec::new();
        Randomness { seed: 1, key: &[7; 16], output: 3 }.points(8, 1.0, &mut first);
        Randomness { seed: 1, key: &[7; 16], output: 3 }.points(8, 1.0, &mut again);
        assert_eq!(first, again);
        for other in [
            Randomness { seed: 2, key: &[7; 16], output: 3 },
            Randomness { seed: 1, key: &[8; 16], output: 3 },
            Randomness { seed: 1, key: &[7; 16], output: 4 },
        ] {
            other.points(8, 1.0, &mut again);
            assert_ne!(first, again);
        }
    }
}
