//! Text rows to token batches: reads labelled text, maps labels to class ids, tokenises once and makes batches.
//!
//! This crate knows nothing of tensors, devices and models.
//!
//! ```no_run
//! use datasets::{Columns, TextTokenizer, TokenBatch, hold_out, read_rows, reconcile};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), datasets::Error> {
//! let rows = read_rows(Path::new("train.jsonl.gz"), &Columns::default())?;
//! let (_names, labels) = reconcile(&rows, None)?;
//! let _held_out = hold_out(&rows, &labels);
//! let tokenizer = TextTokenizer::from_folder(Path::new("teacher"))?;
//! let encodings = tokenizer.encode(&rows, 128)?;
//! let batch = TokenBatch::gather(&encodings, &[0, 1, 2]);
//! assert_eq!(batch.starts.len(), 4);
//! # Ok(())
//! # }
//! ```

pub mod augment;
mod batches;
mod blocks;
mod clean;
mod detect;
mod encodings;
mod error;
mod hold_out;
mod inspect;
mod labels;
mod mask;
mod prune;
mod record;
mod rows;
mod sampler;
mod select;
mod streamed;
mod text_key;
mod tokenizer;
mod whole;
mod write;

pub use batches::{TokenBatch, forward_batches};
pub use blocks::{Block, for_each_block};
pub use clean::{ChineseDictionary, Language, Links, Spelling, TextStep, UnicodeForm};
pub use clean::{CleanReport, Cleaner, Example, LabelRows, Limits, RowSteps, StepReport};
pub use encodings::{Encodings, EncodingsFile, Key};
pub use error::Error;
pub use hold_out::hold_out;
pub use inspect::{Bin, Count, Inspection, Inspector, Lengths, Repeat, Repeats, Shared, Unknown, Writing};
pub use labels::{LabelNames, reconcile};
pub use mask::{MaskedBatch, MaskedRow, Masking};
pub use prune::{PrunedVocabulary, prune_vocabulary};
pub use record::{Record, for_each_whole};
pub use rows::{Cell, Columns, LabelColumn, Objects, Quotes, Rest, Row, Skipped, Skipping, Unit};
pub use rows::{for_each_record, for_each_row, has_columns, parse_rows, read_rows, unit_of};
pub use sampler::{Epoch, Sampler, order};
pub use select::{Shares, Similarity, by_class, sample};
pub use streamed::{RowLength, encode_and_hold_out, encode_file};
pub use text_key::text_key;
pub use tokenizer::{TextTokenizer, TokenizerFiles};
pub use write::{RecordFormat, RecordWriter};
