//! What decides what a teacher says of a row, and what decides what a training gives: hashes of models and data.

use cache::{Captured, Fingerprint};
use datasets::{Encodings, TextTokenizer};
use nn::{EncoderConfig, hf};

use crate::model::TextModel;
use crate::tasks::Task;

/// The fingerprint of what this teacher gives at this length.
pub(crate) fn of_teacher(
    teacher: &TextModel,
    max_length: usize,
    task: Task,
    precision: &str,
    captured: Captured,
) -> Fingerprint {
    let (weights, head) = teacher::weights_and_head_hashes(&teacher.parameters);
    Fingerprint {
        teacher: weights,
        head,
        config: of_config(&teacher.config.encoder),
        tokenizer: of_tokenizer(&teacher.tokenizer),
        labels: teacher.config.labels.clone(),
        max_length,
        preprocessing: task.preprocessing(),
        task: task.name().to_owned(),
        precision: precision.to_owned(),
        captured,
    }
}

/// Hash of a model's configuration. Class names are not part of it, nor how the weights are stored, nor by which of two
/// names a family goes that computes the same.
pub(crate) fn of_config(config: &EncoderConfig) -> String {
    let config = EncoderConfig { family: config.family.computes_as(), ..config.clone() };
    hash(hf::write_config(&config, &[], "float32").to_string().as_bytes())
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
