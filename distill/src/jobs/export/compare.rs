//! Compares an export, read back from disk, with its source.

use std::path::Path;

use anyhow::bail;
use datasets::{Row, TextTokenizer};
use nn::Model;
use nn::hf::HfConfig;
use teacher::HubOptions;

use crate::inference::{self, Running};
use crate::model::{self, TextModel};
use crate::recipe::ExportDtype;
use crate::scores;
use crate::tasks::single_label;

/// The result of the comparison.
pub(super) struct Comparison {
    pub(super) config: HfConfig,
    /// `[N, K]`
    pub(super) exported_logits: Vec<f32>,
    pub(super) rows: usize,
    pub(super) largest_difference: f32,
    pub(super) label_changes: usize,
}

/// Reads the export and compares its logits on these rows with the source's.
///
/// An export in f32 must give the same bits. Rounding to 16 bits changes logits, and can change the predicted label of
/// a row whose two best classes are close. A changed label is an error if their logits are further apart than twice the
/// tolerance.
pub(super) fn compare(
    source: TextModel,
    folder: &Path,
    dtype: ExportDtype,
    rows: &[Row],
    max_length: usize,
    running: Running<'_>,
) -> anyhow::Result<Comparison> {
    let local = HubOptions { revision: None, offline: true };
    let exported = single_label::load(&folder.display().to_string(), &local)?;
    if exported.config != source.config {
        bail!("{}: config.json reads back as another model than was written", folder.display());
    }
    if exported.tokenizer.canonical_json() != source.tokenizer.canonical_json() {
        bail!("{}: tokenizer.json reads back as another tokenizer than was written", folder.display());
    }
    let encodings = exported.tokenizer.encode(rows, max_length)?;
    model::report_truncated(encodings.truncated_count(), encodings.len(), max_length);
    let config = source.config.clone();
    let logits = |model: TextModel, label: &str| -> anyhow::Result<Vec<f32>> {
        let mut model = Model::on(running.compute, model.config, model.parameters)?;
        Ok(inference::predict(&mut model, &encodings, running.batch_tokens, label)?.logits)
    };
    let expected = logits(source, "run the source")?;
    let found = logits(exported, "run the export")?;

    let classes = config.labels.len();
    if let Some(position) = expected.iter().zip(&found).position(|(a, b)| !a.is_finite() || !b.is_finite()) {
        bail!(
            "{}: row {}: a logit of the source is {}, of the export {}; the weights are damaged, or the training diverged",
            folder.display(),
            position / classes,
            expected[position],
            found[position]
        );
    }
    let largest_difference = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    if dtype == ExportDtype::F32 && expected.iter().zip(&found).any(|(a, b)| a.to_bits() != b.to_bits()) {
        bail!("{}: its logits differ from the source's by {largest_difference}; do not use it", folder.display());
    }
    let changed = changed_rows(&expected, &found, classes);
    let close = 2.0 * tolerance(dtype) * expected.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
    if let Some(&row) = changed.iter().find(|&&row| margin(&expected[row * classes..(row + 1) * classes]) > close) {
        bail!(
            "{}: rounding changes the label of row {row}, whose two best logits lie {} apart (at most {close} is \
             explained by the number format); export with --dtype f32",
            folder.display(),
            margin(&expected[row * classes..(row + 1) * classes]),
        );
    }
    let label_changes = changed.len();
    Ok(Comparison { config, exported_logits: found, rows: rows.len(), largest_difference, label_changes })
}

/// Tolerance for a logit, relative to the largest logit: about three times the largest difference measured
/// (0.0021 in f16 and 0.0105 in bf16, over four trained models of 2 to 6 layers).
fn tolerance(dtype: ExportDtype) -> f32 {
    match dtype {
        ExportDtype::F32 => 0.0,
        ExportDtype::F16 => 0.006,
        ExportDtype::Bf16 => 0.04,
    }
}

/// Rows whose predicted class differs.
fn changed_rows(expected: &[f32], found: &[f32], classes: usize) -> Vec<usize> {
    let labels = scores::predictions(expected, classes).into_iter().zip(scores::predictions(found, classes));
    labels.enumerate().filter(|(_, (expected, found))| expected != found).map(|(row, _)| row).collect()
}

/// The difference between the two largest logits.
fn margin(logits: &[f32]) -> f32 {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted.get(1).map_or(f32::INFINITY, |second| sorted[0] - second)
}

/// Rows to compare on if there is no data: words from the vocabulary, always the same for a tokenizer.
pub(super) fn synthetic_rows(tokenizer: &TextTokenizer) -> Vec<Row> {
    const ROWS: usize = 64;
    const MOST_WORDS: usize = 48;
    let mut stream = blake3::Hasher::new().update(b"rows to compare an export on").finalize_xof();
    let mut below = |limit: usize| {
        let mut bytes = [0; 8];
        stream.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % limit.max(1) as u64) as usize
    };
    let mut row = |line: usize| {
        let count = 1 + below(MOST_WORDS);
        let words: Vec<_> = (0..count).filter_map(|_| tokenizer.token(below(tokenizer.vocab_size()) as u32)).collect();
        let text = words.iter().map(|word| word.trim_start_matches("##")).collect::<Vec<_>>().join(" ");
        Row { text, text_b: None, label: None, line }
    };
    (1..=ROWS).map(&mut row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_labels_and_margins() {
        let (expected, found) = ([1.0, 2.0, 0.5, 0.0, 0.1, 0.0], [1.0, 2.0, 0.5, 0.2, 0.1, 0.0]);
        assert_eq!(changed_rows(&expected, &found, 3), [1]);
        assert_eq!(margin(&expected[..3]), 1.0);
        assert_eq!(margin(&[3.0]), f32::INFINITY);
    }
}
