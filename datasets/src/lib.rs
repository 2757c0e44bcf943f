//! Text rows to token batches: reads labelled text, settles its labels, tokenises it once and cuts it into batches.
//!
//! This crate knows no tensor and no device. What a teacher or a student makes of a [`TokenBatch`] is theirs.
//!
//! ```no_run
//! use datasets::{Columns, TextTokenizer, TokenBatch, hold_out, read_rows, reconcile};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), datasets::Error> {
//! let rows = read_rows(Path::new("train.jsonl.gz"), &Columns::default())?;
//! let (train, _validation) = hold_out(rows);
//! let (_names, _labels) = reconcile(&train, None)?;
//! let tokenizer = TextTokenizer::from_folder(Path::new("teacher"))?;
//! let encodings = tokenizer.encode(&train, 128)?;
//! let batch = TokenBatch::gather(&encodings, &[0, 1, 2]);
//! assert_eq!(batch.starts.len(), 4);
//! # Ok(())
//! # }
//! ```

mod batches;
mod encodings;
mod error;
mod hold_out;
mod labels;
mod mask;
mod prune;
mod rows;
mod sampler;
mod text_key;
mod tokenizer;

pub use batches::{TokenBatch, forward_batches};
pub use encodings::{Encodings, Key};
pub use error::Error;
pub use hold_out::hold_out;
pub use labels::{LabelNames, reconcile};
pub use mask::{MaskedBatch, MaskedRow, Masking};
pub use prune::{PrunedVocabulary, prune_vocabulary};
pub use rows::{Cell, Columns, RawLabel, Rest, Row, for_each_record, for_each_row, parse_rows, read_rows, take_row};
pub use sampler::{Epoch, Sampler, order};
pub use text_key::text_key;
pub use tokenizer::{TextTokenizer, TokenizerFiles};
