//! Reads data row by row, tokenises it, and splits it into windows.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, bail};
use datasets::{Columns, Encodings, Key, LabelNames, Row, TextTokenizer, for_each_row, reconcile};
use tracing::debug_span;

use super::chance::Sample;
use crate::data;
use crate::interrupt;
use crate::tasks::Targets;

/// Forward batches per window; rows are tokenised in chunks that are not split, so a window may have up to twice as
/// many.
const WINDOW_BATCHES: usize = 16;

/// Rows that are checked at a time.
const CHECKED_ROWS: usize = 4096;

/// Where rows come from.
pub(crate) enum Source<'a> {
    /// A file, which is read twice: checked first, then captured.
    File { path: &'a Path, columns: Columns },
    /// Rows in memory, with their class ids.
    Rows { rows: &'a [Row], labels: &'a [Option<u32>] },
}

/// Some rows in the order of the data, tokenised.
pub(crate) struct Window {
    pub(crate) encodings: Encodings,
    pub(crate) keys: Vec<Key>,
    pub(crate) labels: Vec<Option<u32>>,
}

impl Source<'_> {
    /// Reads everything once and refuses what cannot be captured; returns how many rows there are, and some labelled ones.
    pub(super) fn check(&self, names: Option<&LabelNames>) -> anyhow::Result<(u64, Sample)> {
        if let Source::File { path, .. } = self
            && std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
        {
            bail!("{}: a pipe, and a capture reads its data twice; write it to a file first", path.display());
        }
        let (mut count, mut sample) = (0, Sample::new());
        let label_column = self.in_chunks(CHECKED_ROWS, names, |rows, labels| {
            count += rows.len() as u64;
            rows.iter().zip(labels).for_each(|(row, label)| sample.offer(row, *label));
            interrupt::check()?;
            Ok(true)
        })?;
        if let Source::File { path, .. } = self {
            data::say_label_column(path, label_column.as_deref());
        }
        Ok((count, sample))
    }

    /// Calls `then` with so many rows at a time and their class ids, none without class names, until it says that it has
    /// enough. Returns the name of the labels' column where it was found under another name than `label`.
    pub(crate) fn in_chunks(
        &self,
        chunk_rows: usize,
        names: Option<&LabelNames>,
        mut then: impl FnMut(&[Row], &[Option<u32>]) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Option<String>> {
        match self {
            Source::Rows { rows, labels } => {
                for (rows, labels) in rows.chunks(chunk_rows).zip(labels.chunks(chunk_rows)) {
                    if !then(rows, labels)? {
                        break;
                    }
                }
                Ok(None)
            }
            Source::File { path, columns } => {
                let mut chunk = Vec::with_capacity(chunk_rows);
                let mut result = Ok(true);
                let mut hand_on = |rows: &mut Vec<Row>| -> anyhow::Result<bool> {
                    let labels = match names {
                        Some(names) => reconcile(rows, Some(names)).with_context(|| path.display().to_string())?.1,
                        None => vec![None; rows.len()],
                    };
                    let more = then(rows, &labels)?;
                    rows.clear();
                    Ok(more)
                };
                let label_column = for_each_row(path, columns, |row| {
                    chunk.push(row);
                    if chunk.len() < chunk_rows {
                        return ControlFlow::Continue(());
                    }
                    result = hand_on(&mut chunk);
                    if matches!(result, Ok(true)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })?;
                if result? && !chunk.is_empty() {
                    hand_on(&mut chunk)?;
                }
                Ok(label_column)
            }
        }
    }
}

/// How data is cut into windows: a function of the data and of `batch_tokens`.
pub(crate) struct Windows<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) tokenizer: &'a TextTokenizer,
    /// None where labels do not matter.
    pub(crate) names: Option<&'a LabelNames>,
    pub(crate) targets: &'a Targets,
    pub(crate) max_length: usize,
    pub(crate) batch_tokens: usize,
}

impl Windows<'_> {
    /// Calls `then` with each window, until it says that nobody takes more.
    pub(crate) fn each(&self, mut then: impl FnMut(Window) -> bool) -> anyhow::Result<()> {
        // Rows tokenised at a time: no more than a window of rows as long as can be.
        let chunk_rows = (WINDOW_BATCHES * self.batch_tokens / self.max_length.max(1)).clamp(32, 16_384);
        let (mut encodings, mut labels) = (Encodings::new(), Vec::new());
        let mut stopped = false;
        let mut hand_on = |encodings: &mut Encodings, labels: &mut Vec<Option<u32>>| {
            let encodings = self.targets.read_by_teacher(std::mem::take(encodings));
            let keys = encodings.keys();
            then(Window { encodings, keys, labels: std::mem::take(labels) })
        };
        self.source.in_chunks(chunk_rows, self.names, |rows, classes| {
            let tokenise = || self.tokenizer.encode(rows, self.max_length);
            encodings.append(&debug_span!("tokenise", rows = rows.len()).in_scope(tokenise)?);
            labels.extend_from_slice(classes);
            if encodings.tokens() >= WINDOW_BATCHES * self.batch_tokens {
                stopped = !hand_on(&mut encodings, &mut labels);
            }
            Ok(!stopped)
        })?;
        if !stopped && !encodings.is_empty() {
            hand_on(&mut encodings, &mut labels);
        }
        Ok(())
    }
}
