//! Encodes a teacher's outputs as the bytes of a row, and measures the error.

mod hidden;
mod parts;
mod sample;
mod tails;
mod top_k;
mod vector;

pub(crate) use hidden::decode as decode_hidden;
pub(crate) use parts::{Parts, indices, numbers};
pub use top_k::TopLogits;

use crate::captured::{Captured, Dtype, LogitForm, Outputs};
use crate::recorded::{RecordedError, divergence};
use crate::{Error, Key, key_hex};
use parts::append_numbers;

/// A teacher's outputs for one row.
#[derive(Clone, Copy, Debug)]
pub struct NewRow<'a> {
    /// Hash of its token ids and type ids.
    pub key: Key,
    /// Before softmax; must be finite.
    pub logits: NewLogits<'a>,
    /// `[layers, tokens, width]` of the layers and tokens that are to be stored, or empty where none are.
    pub hidden_states: &'a [f32],
}

/// The logits of a row's outputs.
#[derive(Clone, Copy, Debug)]
pub enum NewLogits<'a> {
    /// `[outputs, width]`
    All(&'a [f32]),
    /// The top k, already selected by the caller.
    Top(TopLogits<'a>),
}

impl<'a, T: AsRef<[f32]> + ?Sized> From<&'a T> for NewLogits<'a> {
    fn from(logits: &'a T) -> Self {
        Self::All(logits.as_ref())
    }
}

impl NewLogits<'_> {
    /// How many are there.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::All(logits) => logits.len(),
            Self::Top(top) => top.values.len(),
        }
    }
}

/// Encodes rows one after another.
pub(crate) struct Encoder<'a> {
    captured: &'a Captured,
    top_k: top_k::Scratch,
    sample: sample::Scratch,
    hidden: Option<hidden::Compressor>,
    pub(crate) parts: Parts,
    pub(crate) error: RecordedError,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(captured: &'a Captured) -> Self {
        let error = RecordedError::new(captured);
        let (top_k, sample) = (top_k::Scratch::default(), sample::Scratch::default());
        Self { captured, top_k, sample, hidden: None, parts: Parts::default(), error }
    }

    /// Appends a row, or refuses it.
    pub(crate) fn push(&mut self, row: &NewRow<'_>) -> Result<(), Error> {
        let expected = match (row.logits, &self.captured.logits) {
            (NewLogits::All(_), _) => self.captured.width,
            (NewLogits::Top(_), LogitForm::TopK { k, .. }) => *k,
            (NewLogits::Top(_), _) => {
                return Err(Error::Captured {
                    finding: "the largest logits alone, where others are stored".to_owned(),
                });
            }
        };
        let found = row.logits.len();
        let whole = match self.captured.outputs {
            Outputs::Row => found == expected,
            Outputs::Token => found.is_multiple_of(expected) && found > 0,
        };
        if !whole {
            return Err(Error::Width { key: key_hex(&row.key), found, expected });
        }
        let values = row.hidden_states.len();
        if let Some(expected) = self.captured.hidden_states.as_ref().and_then(|form| form.misfit(values)) {
            return Err(Error::HiddenWidth { key: key_hex(&row.key), found: values, expected });
        }
        check_finite(row, "hidden value", row.hidden_states, 0)?;
        let outputs = found / expected;
        match row.logits {
            NewLogits::All(logits) => self.all_outputs(row, logits)?,
            NewLogits::Top(top) => self.top_outputs(row, &top, outputs)?,
        }
        let before = self.parts.hidden_states.len();
        if self.captured.hidden_states.is_some() {
            let compressor = self.hidden.get_or_insert_with(hidden::Compressor::new);
            compressor.append(row.hidden_states, &mut self.parts.hidden_states, &mut self.error);
        }
        let hidden_bytes = (self.parts.hidden_states.len() - before) as u32;
        self.parts.sizes.push((outputs as u32, hidden_bytes));
        Ok(())
    }

    fn all_outputs(&mut self, row: &NewRow<'_>, all: &[f32]) -> Result<(), Error> {
        let width = self.captured.width;
        for (output, logits) in all.chunks_exact(width).enumerate() {
            // Here and not before, so that those of a vocabulary come from memory once.
            check_finite(row, "logit", logits, output * width)?;
            let ahead = all.get((output + 1) * width..(output + 2) * width).unwrap_or_default();
            self.output(&row.key, output, logits, ahead);
        }
        Ok(())
    }

    /// Appends outputs that come as they are stored, or refuses them. Of those that were not selected nobody asks here.
    fn top_outputs(&mut self, row: &NewRow<'_>, top: &TopLogits<'_>, outputs: usize) -> Result<(), Error> {
        let LogitForm::TopK { k, dtype, temperatures } = &self.captured.logits else { return Ok(()) };
        let form = top_k::Form { k: *k, dtype: *dtype, temperatures, short: self.captured.short_indices() };
        let (width, sides) = (self.captured.width, form.sides());
        if top.columns.len() != outputs * k || top.rest.len() != outputs * sides {
            let (columns, rest) = (top.columns.len(), top.rest.len());
            let finding = format!("{columns} columns and {rest} sums for {outputs} outputs of {k} logits");
            return Err(Error::Captured { finding });
        }
        if let Some(column) = top.columns.iter().find(|&&column| column as usize >= width) {
            return Err(Error::Captured { finding: format!("column {column} of {width} logits") });
        }
        for output in 0..outputs {
            let one = top.output(output, *k, sides);
            if let Some(at) = one.values.iter().position(|value| !value.is_finite()) {
                let (position, value) = (output * width + one.columns[at] as usize, one.values[at]);
                return Err(Error::NotFinite { key: key_hex(&row.key), what: "logit", position, value });
            }
            check_finite(row, "sum over logits", one.rest, output * sides)?;
            self.error.outputs += 1;
            top_k::append_selected(&form, &one, width, &mut self.parts, &mut self.error);
        }
        Ok(())
    }

    /// Appends one output; `ahead` is the next one, which memory may bring meanwhile.
    fn output(&mut self, key: &Key, output: usize, logits: &[f32], ahead: &[f32]) {
        self.error.outputs += 1;
        match &self.captured.logits {
            LogitForm::Dense { dtype } => {
                let start = self.parts.logits.len();
                append_numbers(*dtype, logits, &mut self.parts.logits);
                if *dtype != Dtype::F32 {
                    let stored: Vec<f32> = numbers(*dtype, &self.parts.logits[start..]).collect();
                    self.error.compare(logits, &stored);
                    for at in &mut self.error.divergences {
                        at.add(divergence(logits, &stored, at.temperature));
                    }
                }
            }
            LogitForm::TopK { k, dtype, temperatures } => {
                let temperatures = temperatures.as_slice();
                let form = top_k::Form { k: *k, dtype: *dtype, temperatures, short: self.captured.short_indices() };
                self.top_k.append(&form, logits, ahead, &mut self.parts, &mut self.error);
            }
            LogitForm::Sample { draws, temperature, seed } => {
                let randomness = sample::Randomness { seed: *seed, key, output };
                let short = self.captured.short_indices();
                self.sample.append(*draws, *temperature, short, &randomness, logits, &mut self.parts, &mut self.error);
            }
        }
    }
}

/// Refuses values that are no numbers; `first` is the number of the first of them in their row.
fn check_finite(row: &NewRow<'_>, what: &'static str, values: &[f32], first: usize) -> Result<(), Error> {
    if vector::all_finite(values) {
        return Ok(());
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(position) => {
            Err(Error::NotFinite { key: key_hex(&row.key), what, position: first + position, value: values[position] })
        }
        None => Ok(()),
    }
}
