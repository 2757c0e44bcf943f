//! The rows of a training.

use std::collections::BTreeMap;

use datasets::{Encodings, Error, Key, Sampler, TextTokenizer};

use crate::data::Split;
use crate::recipe::FitRecipe;

/// Rows as a model in training sees them.
pub(crate) struct FitRows {
    pub(crate) encodings: Encodings,
    pub(crate) labels: Vec<Option<u32>>,
    /// Under which the teacher's logits are stored.
    pub(crate) keys: Vec<Key>,
    /// The same rows as a teacher beside the student reads them, if there is one.
    pub(crate) read_by_teacher: Option<ReadByTeacher>,
    /// Whether its hidden states are read from the cache instead.
    pub(crate) hidden_states_stored: bool,
}

/// What a teacher beside a student reads.
pub(crate) enum ReadByTeacher {
    /// These rows, of its own tokenizer.
    Rows(Encodings),
    /// What the student reads, with the masks of each step.
    Masked,
}

impl FitRows {
    /// Rows of at most so many tokens, without a teacher.
    pub(crate) fn of(tokenizer: &TextTokenizer, split: &Split, max_length: usize) -> Result<Self, Error> {
        Ok(Self {
            encodings: split.encode(tokenizer, max_length)?,
            labels: split.labels.clone(),
            keys: Vec::new(),
            read_by_teacher: None,
            hidden_states_stored: false,
        })
    }

    /// Their order in each epoch, and how they are batched: so many in a pass that all their views fit.
    pub(super) fn sampler(&self, recipe: &FitRecipe, views: usize) -> Result<Sampler, Error> {
        let batch_tokens = (recipe.batch_tokens() / views).max(1);
        let sampler = Sampler::new(self.encodings.lengths(), recipe.seed, recipe.batch_rows, batch_tokens)?;
        if let Some(temperature) = recipe.class_temperature {
            return Ok(sampler.weighing(&class_weights(&self.labels, temperature)));
        }
        if recipe.unlabelled_rate.is_none() {
            return Ok(sampler);
        }
        let rows = 0..self.labels.len() as u32;
        let (labelled, others): (Vec<u32>, Vec<u32>) = rows.partition(|row| self.labels[*row as usize].is_some());
        let count = recipe.unlabelled_rows(labelled.len());
        Ok(sampler.mixing(labelled, others, count))
    }
}

/// How often each row is to come so that a class of `n` rows comes `n^(1 / temperature)` times, in proportion; rows without a label
/// as often as before.
fn class_weights(labels: &[Option<u32>], temperature: f64) -> Vec<f64> {
    let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
    labels.iter().flatten().for_each(|class| *counts.entry(*class).or_default() += 1.0);
    let labelled: f64 = counts.values().sum();
    let tempered: f64 = counts.values().map(|count| count.powf(1.0 / temperature)).sum();
    let weight = |class: u32| counts[&class].powf(1.0 / temperature - 1.0) * labelled / tempered;
    labels.iter().map(|label| label.map_or(1.0, weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_as_their_temperature_says() {
        let labels: Vec<Option<u32>> = (0..100).map(|row| (row < 90).then_some(u32::from(row >= 81))).collect();
        let of_classes = |temperature: f64| {
            let weights = class_weights(&labels, temperature);
            [&weights[..81], &weights[81..90], &weights[90..]].map(|part| part.iter().sum::<f64>().round())
        };
        // 81 and 9 rows: as they are, by the square root, and equally.
        assert_eq!(of_classes(1.0), [81.0, 9.0, 10.0]);
        assert_eq!(of_classes(2.0), [68.0, 23.0, 10.0]);
        assert_eq!(of_classes(1e9), [45.0, 45.0, 10.0]);
    }
}
