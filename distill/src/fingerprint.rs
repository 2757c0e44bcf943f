//! What decides what a teacher says of a row, and what decides what a training gives: hashes of models and data.

use std::fmt;

use cache::{Captured, Fingerprint};
use datasets::{Encodings, Masking, Task, TextTokenizer};
use nn::{EncoderConfig, Head, hf};

use crate::model::TextModel;

/// What is done to a text before the tokenizer: raised when that changes.
const PREPROCESSING: &str = "none";

/// How rows are masked before a masked-language model reads them: the preprocessing of such a cache, as it is written
/// there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MaskingRecipe {
    pub(crate) probability: f64,
    pub(crate) seed: u64,
}

impl fmt::Display for MaskingRecipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "masked with probability {} and seed {}", self.probability, self.seed)
    }
}

impl MaskingRecipe {
    /// How the rows of a cache with this preprocessing were masked; none if they were not.
    pub(crate) fn of(preprocessing: &str) -> Option<Self> {
        let (probability, seed) = preprocessing.strip_prefix("masked with probability ")?.split_once(" and seed ")?;
        Some(Self { probability: probability.parse().ok()?, seed: seed.parse().ok()? })
    }

    /// The masking of texts of this tokenizer.
    pub(crate) fn masking(self, tokenizer: &TextTokenizer) -> Result<Masking, datasets::Error> {
        Masking::new(tokenizer, self.probability, self.seed)
    }
}

/// The fingerprint of what this teacher gives at this length.
pub(crate) fn of_teacher(
    teacher: &TextModel,
    max_length: usize,
    masking: Option<MaskingRecipe>,
    precision: &str,
    captured: Captured,
) -> anyhow::Result<Fingerprint> {
    let (weights, head) = teacher::weights_and_head_hashes(&teacher.parameters);
    let task = match teacher.config.encoder.head {
        Head::Classification => Task::SingleLabel,
        Head::MaskedLm => Task::MaskedLm,
    };
    Ok(Fingerprint {
        teacher: weights,
        head,
        config: of_config(&teacher.config.encoder),
        tokenizer: of_tokenizer(&teacher.tokenizer),
        labels: teacher.config.labels.clone(),
        max_length,
        preprocessing: masking.map_or_else(|| PREPROCESSING.to_owned(), |masking| masking.to_string()),
        task: serde_json::to_value(task)?.as_str().unwrap_or_default().to_owned(),
        precision: precision.to_owned(),
        captured,
    })
}

/// Hash of a model's configuration. Class names are not part of it, nor how the weights are stored.
pub(crate) fn of_config(config: &EncoderConfig) -> String {
    hash(hf::write_config(config, &[], "float32").to_string().as_bytes())
}

/// Hash of everything that decides how a text is tokenised.
pub(crate) fn of_tokenizer(tokenizer: &TextTokenizer) -> String {
    hash(tokenizer.canonical_json().as_bytes())
}

/// Hash of rows in their order: what a model reads of each, and its class id.
pub(crate) fn of_rows(encodings: &Encodings, labels: &[Option<u32>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (row, label) in labels.iter().enumerate() {
        hasher.update(&encodings.key(row));
        hasher.update(&label.map_or(u64::MAX, u64::from).to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masking_reads_back_as_written() {
        for (probability, seed) in [(0.15, 42), (1.0, 0), (1e-3, u64::MAX)] {
            let masking = MaskingRecipe { probability, seed };
            assert_eq!(MaskingRecipe::of(&masking.to_string()), Some(masking));
        }
        for other in ["", PREPROCESSING, "masked with probability 0.15", "masked with probability x and seed 1"] {
            assert_eq!(MaskingRecipe::of(other), None, "{other}");
        }
    }
}
