//! Hashes of models and data, for the fingerprint of a cache and the record of a run.

use cache::{Captured, Fingerprint, Preprocessing, Quantity};
use datasets::{Encodings, TextTokenizer};
use nn::{EncoderConfig, hf};

use crate::model::TextModel;
use crate::tasks::Task;

/// The fingerprint of a cache of this teacher with this maximum length.
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
        average: None,
    }
}

/// The fingerprint of answers that were computed elsewhere. `content` is the hash of all of them: it stands for the teacher,
/// of whom nothing else is known.
pub(crate) fn of_imported(content: String, labels: Vec<String>, imported: Quantity, captured: Captured) -> Fingerprint {
    let unknown = || "unknown".to_owned();
    Fingerprint {
        teacher: content,
        head: Vec::new(),
        config: unknown(),
        tokenizer: unknown(),
        labels,
        max_length: 0,
        preprocessing: Preprocessing::Imported { imported },
        task: Task::SingleLabel.name().to_owned(),
        precision: unknown(),
        captured,
        average: None,
    }
}

/// Hash of a model's configuration. Class names are not part of it, nor how the weights are stored, nor by which of two
/// names a family goes that computes the same.
pub(crate) fn of_config(config: &EncoderConfig) -> String {
    let config = EncoderConfig { family: config.family.computes_as(), ..config.clone() };
    hash(hf::write_config(&config, &[], "float32").to_string().as_bytes())
}

/// Hash of everything that affects how a text is tokenised.
pub(crate) fn of_tokenizer(tokenizer: &TextTokenizer) -> String {
    hash(tokenizer.canonical_json().as_bytes())
}

/// Hash of rows in their order: token ids, type ids and class id of each.
pub(crate) fn of_rows(encodings: &Encodings, labels: &[Option<u32>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (row, label) in labels.iter().enumerate() {
        hasher.update(&encodings.key(row));
        hasher.update(&label.map_or(u64::MAX, u64::from).to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
