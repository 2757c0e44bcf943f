//! Refusals of a tokenizer's files.

use crate::Error;

/// Refuses a file for this reason.
pub(super) fn bad(file: &str, reason: impl std::fmt::Display) -> Error {
    Error::BadTokenizer { file: file.to_owned(), reason: reason.to_string() }
}
