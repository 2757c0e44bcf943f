//! Classifies texts as they come.

mod lines;

use std::path::PathBuf;

use datasets::{Columns, Row, TextTokenizer};
use nn::Model;

use crate::inference::{Running, forward_all};
use crate::interrupt;
use crate::model::{self, TextModel};
use crate::scores::Scores;
use crate::tasks::single_label::Prediction;
use lines::Lines;

/// Where texts come from.
pub(crate) enum Texts {
    /// One a line.
    Stdin,
    /// One a line of a file.
    Lines(PathBuf),
    /// One a row of a table.
    Column(PathBuf, Columns),
}

/// Classifies texts, and hands on what is said of each as soon as it is known.
pub(crate) fn predict(
    model: TextModel,
    texts: Texts,
    max_length: usize,
    running: Running<'_>,
    with_logits: bool,
    mut then: impl FnMut(&[Prediction<'_>]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut classifier = Classifier {
        tokenizer: model.tokenizer,
        labels: model.config.labels.clone(),
        model: Model::on(running.compute, model.config, model.parameters)?,
        max_length,
        batch_tokens: running.batch_tokens,
        truncated: 0,
    };
    let mut lines = match texts {
        Texts::Stdin => Lines::of_stdin(),
        Texts::Lines(path) => Lines::of_file(&path)?,
        Texts::Column(path, columns) => Lines::of_rows(path, columns),
    };
    let mut rows = 0;
    let ended = loop {
        let batch = lines.next_batch();
        then(&classifier.classify(&batch.rows, with_logits)?)?;
        rows += batch.rows.len();
        if let Some(end) = batch.end {
            break end;
        }
        interrupt::check()?;
    };
    model::report_truncated(classifier.truncated, rows, max_length);
    ended
}

/// A model with its tokenizer and settings.
struct Classifier {
    tokenizer: TextTokenizer,
    labels: Vec<String>,
    model: Model,
    max_length: usize,
    batch_tokens: usize,
    /// Number of rows truncated so far.
    truncated: usize,
}

impl Classifier {
    fn classify<'a>(&'a mut self, rows: &'a [Row], with_logits: bool) -> anyhow::Result<Vec<Prediction<'a>>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let encodings = self.tokenizer.encode(rows, self.max_length)?;
        self.truncated += encodings.truncated_count();
        let classes = self.labels.len();
        let logits = forward_all(&mut self.model, &encodings, self.batch_tokens, |_| ())?;
        // Only for what it refuses: logits that are no numbers.
        Scores::of(&logits, None, &vec![None; rows.len()], classes)?;
        let labels = self.labels.as_slice();
        let of_row = |(row, logits): (&'a Row, &[f32])| Prediction::new(&row.text, labels, logits, with_logits);
        Ok(rows.iter().zip(logits.chunks_exact(classes)).map(of_row).collect())
    }
}
