//! The rows that a model is timed on: real ones from a file, or synthetic ones of equal length.

use std::path::PathBuf;

use anyhow::{Context, bail};
use datasets::{Encodings, Row};
use nn::{EncoderConfig, Normal};

use super::made_up::number;
use super::subject::{Purpose, Subject};
use crate::data::read_rows;
use crate::model;
use crate::recipe::ColumnsRecipe;

/// The rows that are asked for.
pub(crate) struct RowsAsked {
    /// A file; none for made-up rows.
    pub(crate) data: Option<PathBuf>,
    pub(crate) columns: ColumnsRecipe,
    /// Most rows of the file.
    pub(crate) limit: Option<usize>,
    /// Rows per training step; for a capture, the number of synthetic rows.
    pub(crate) batch_rows: usize,
    /// Tokens of each made-up row.
    pub(crate) length: usize,
}

/// Rows with labels, and what a teacher said of them.
pub(super) struct Rows {
    pub(super) encodings: Encodings,
    pub(super) labels: Vec<Option<u32>>,
    pub(super) classes: usize,
    /// The file, or none for made-up rows.
    pub(super) source: Option<String>,
    pub(super) texts: Vec<Row>,
    pub(super) max_length: usize,
}

impl Rows {
    /// The rows that the flags describe, for this model; with `labels`, for as many classes.
    pub(super) fn of(
        args: &RowsAsked,
        subject: &Subject,
        purpose: Purpose,
        labels: Option<usize>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let encoder = &subject.encoder;
        let Some(path) = &args.data else {
            return Self::made_up(args, encoder, labels.unwrap_or(encoder.num_labels), seed);
        };
        let tokenizer = subject.tokenizer.as_ref().context("--data needs --model's tokenizer")?;
        let columns = &args.columns;
        let mut texts = read_rows(path, columns)?;
        // Before the cut, since a file may be sorted by label. Capture reads none.
        let (mut ids, found) = match purpose {
            Purpose::Train(_) => labels_of(&texts, columns)?,
            Purpose::Capture => (vec![None; texts.len()], None),
        };
        let limit = args.limit.unwrap_or(texts.len());
        texts.truncate(limit);
        ids.truncate(limit);
        let max_length = model::max_length(encoder, columns.max_length)?;
        let encodings = tokenizer.encode(&texts, max_length)?;
        let classes = labels.or(found).unwrap_or(encoder.num_labels);
        if let Some(found) = found.filter(|&found| found > classes) {
            bail!("--labels {classes}: the data has {found} classes; give at least as many");
        }
        let source = Some(path.display().to_string());
        Ok(Self { encodings, labels: ids, classes, source, texts, max_length })
    }

    /// Rows of one length with any tokens and any labels.
    fn made_up(args: &RowsAsked, encoder: &EncoderConfig, classes: usize, seed: u64) -> anyhow::Result<Self> {
        let (length, batch_rows) = (args.length, args.batch_rows);
        let limit = encoder.max_length();
        if length > limit {
            bail!("--length {length}: the model takes at most {limit} tokens");
        }
        if batch_rows.checked_mul(length).is_none_or(|tokens| tokens > u32::MAX as usize) {
            bail!("--batch-rows {batch_rows}: more tokens than fit into one batch");
        }
        let mut numbers = numbers(seed);
        let mut below = |bound: usize| (numbers.next().unwrap_or_default() % bound as u64) as u32;
        let rows: Vec<Vec<u32>> =
            (0..batch_rows).map(|_| (0..length).map(|_| below(encoder.vocab_size)).collect()).collect();
        let labels = (0..batch_rows).map(|_| Some(below(classes))).collect();
        let encodings = Encodings::of_ids(&rows);
        Ok(Self { encodings, labels, classes, source: None, texts: Vec::new(), max_length: limit })
    }

    /// The same texts in the ids of another model.
    pub(super) fn encoded_for(&self, subject: &Subject) -> anyhow::Result<Self> {
        let tokenizer = subject.tokenizer.as_ref().context("a model without a tokenizer reads no texts")?;
        Ok(Self {
            encodings: tokenizer.encode(&self.texts, self.max_length)?,
            labels: self.labels.clone(),
            classes: self.classes,
            source: self.source.clone(),
            texts: self.texts.clone(),
            max_length: self.max_length,
        })
    }

    /// `[N, K]`: made-up logits of a teacher, as spread as a trained one's.
    pub(super) fn teacher_logits(&self, seed: u64) -> Vec<f32> {
        let mut logits = vec![0.0; self.encodings.len() * self.classes];
        Normal::new(seed, "bench: a teacher's logits", 2.0).fill(&mut logits);
        logits
    }
}

/// The rows' class ids and how many classes there are; none of both where no row has a label.
fn labels_of(texts: &[Row], columns: &ColumnsRecipe) -> anyhow::Result<(Vec<Option<u32>>, Option<usize>)> {
    if texts.iter().all(|row| row.label.is_none()) {
        return Ok((vec![None; texts.len()], None));
    }
    let known = match columns.label_names.as_slice() {
        [] => None,
        names => Some(datasets::LabelNames::new(names.to_vec())?),
    };
    let (names, labels) = datasets::reconcile(texts, known.as_ref())?;
    Ok((labels, Some(names.len())))
}

fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |index| number(seed, index))
}
