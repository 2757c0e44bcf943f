//! The last stage of a capture: encodes the teacher's outputs as they arrive, and commits window by window.

use std::ops::Range;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use cache::{CacheReader, CacheWriter, Captured, Dtype, LogitForm, NewLogits, NewRow, Outputs};
use datasets::Key;
use half::{bf16, f16};
use nn::TopLogits;
use tracing::debug_span;

use crate::scores;

/// Writing ended early because the forward passes did.
#[derive(Debug, thiserror::Error)]
#[error("the capture ended before its last window was complete")]
pub(super) struct Unfinished;

/// The teacher's outputs for a batch.
#[derive(Default)]
pub(crate) struct Answers {
    /// Rows of the window.
    pub(super) rows: Vec<u32>,
    pub(super) keys: Vec<Key>,
    pub(super) logits: Logits,
    /// Outputs of each row, where it has not one.
    pub(super) outputs: Vec<usize>,
    /// Hidden states to store, of one row after the other, and how many values each row has; empty where none are.
    pub(super) hidden: Vec<f32>,
    pub(super) hidden_sizes: Vec<usize>,
    /// Whether the window ends here.
    pub(super) end: bool,
}

/// The logits of a batch's outputs.
pub(super) enum Logits {
    /// `[outputs of all rows, width]`
    All(Vec<f32>),
    /// Of each output what is stored: selected where they were computed.
    Top(TopLogits),
}

impl Default for Logits {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl Logits {
    /// Those of some outputs.
    fn of(&self, outputs: Range<usize>, captured: &Captured) -> NewLogits<'_> {
        let Range { start, end } = outputs;
        match (self, &captured.logits) {
            (Self::Top(top), LogitForm::TopK { k, temperatures, .. }) => {
                let sides = 1 + 2 * temperatures.len();
                NewLogits::Top(cache::TopLogits {
                    values: &top.values[start * k..end * k],
                    columns: &top.columns[start * k..end * k],
                    rest: &top.rest[start * sides..end * sides],
                })
            }
            (Self::Top(_), _) => NewLogits::All(&[]),
            (Self::All(logits), _) => NewLogits::All(&logits[start * captured.width..end * captured.width]),
        }
    }
}

impl Answers {
    /// Says that the window's rows are all there.
    pub(super) fn end_of_window() -> Self {
        Self { end: true, ..Self::default() }
    }

    /// The largest logit of each row's first output, as it is stored: rounding may make two of them equal.
    pub(super) fn first_outputs(&self, captured: &Captured) -> Vec<u32> {
        let width = captured.width;
        let rounded = |logit: &f32| match captured.logits {
            LogitForm::Dense { dtype: Dtype::F16 } => f16::from_f32(*logit).to_f32(),
            LogitForm::Dense { dtype: Dtype::Bf16 } => bf16::from_f32(*logit).to_f32(),
            _ => *logit,
        };
        let mut start = 0;
        let choice = |row: usize| {
            let first = self.logits.of(start..start + 1, captured);
            start += self.outputs.get(row).copied().unwrap_or(1);
            let choice = match first {
                NewLogits::All(logits) => {
                    let logits: Vec<f32> = logits.iter().map(rounded).collect();
                    scores::predictions(&logits, width).first().copied()
                }
                NewLogits::Top(top) => top.columns.first().copied(),
            };
            choice.unwrap_or_default()
        };
        (0..self.rows.len()).map(choice).collect()
    }

    fn push_to(&self, writer: &mut CacheWriter) -> Result<(), cache::Error> {
        let captured = writer.reader().captured();
        let single = captured.outputs == Outputs::Row;
        let (mut first, mut hidden) = (0, self.hidden.as_slice());
        let mut rows = Vec::with_capacity(self.keys.len());
        for (position, &key) in self.keys.iter().enumerate() {
            let outputs = if single { 1 } else { self.outputs[position] };
            let logits = self.logits.of(first..first + outputs, captured);
            let (states, rest) = hidden.split_at(self.hidden_sizes.get(position).copied().unwrap_or(0));
            (first, hidden) = (first + outputs, rest);
            rows.push(NewRow { key, logits, hidden_states: states });
        }
        writer.push(&rows)?;
        Ok(())
    }
}

/// What is committed, for the stages before to look into.
pub(super) struct Published(Mutex<(Arc<CacheReader>, u64)>);

impl Published {
    pub(super) fn new(reader: Arc<CacheReader>) -> Self {
        Self(Mutex::new((reader, 0)))
    }

    /// The cache as it was last committed, and how many windows that were.
    pub(super) fn reader(&self) -> (Arc<CacheReader>, u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn commit(&self, reader: Arc<CacheReader>) {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *published = (reader, published.1 + 1);
    }
}

/// Writes what comes until nothing more does. What of a window has come when its end does not is dropped.
pub(super) fn write(
    mut writer: CacheWriter,
    answered: Receiver<Answers>,
    published: &Published,
) -> anyhow::Result<CacheWriter> {
    for answers in answered {
        debug_span!("write", rows = answers.keys.len()).in_scope(|| answers.push_to(&mut writer))?;
        if answers.end {
            debug_span!("commit").in_scope(|| writer.commit())?;
            published.commit(writer.reader().clone());
        }
    }
    if writer.pending() > 0 {
        return Err(Unfinished.into());
    }
    writer.finish()?;
    Ok(writer)
}

/// Takes what comes and writes nothing: what the other stages cost without this one.
pub(super) fn discard(
    writer: CacheWriter,
    answered: Receiver<Answers>,
    published: &Published,
) -> anyhow::Result<CacheWriter> {
    for answers in answered {
        if answers.end {
            published.commit(writer.reader().clone());
        }
    }
    Ok(writer)
}
