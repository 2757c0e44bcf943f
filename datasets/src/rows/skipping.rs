//! Rows that cannot be read: the first one is an error, or all are skipped, counted, and the first ones kept to be shown.

use crate::Error;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

/// What happens to rows that cannot be read. Copies count together.
#[derive(Debug, Clone, Default)]
pub struct Skipping(Option<Arc<Mutex<Skipped>>>);

/// Rows that were skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// How many.
    pub rows: usize,
    /// Why, of the first ones, with file and line.
    pub first: Vec<String>,
}

/// Reasons that are kept.
const FIRST: usize = 5;

impl Skipping {
    /// Such rows are skipped, instead of the first being an error.
    pub fn on() -> Self {
        Self(Some(Arc::default()))
    }

    /// What was skipped so far; nothing where nothing would be.
    pub fn skipped(&self) -> Option<Skipped> {
        Some(self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Goes on behind a row that has this error; or returns it, if it is not of one row alone, or none are skipped.
    pub(super) fn pass(&self, error: Error) -> Result<(), Error> {
        let of_row = matches!(
            error,
            Error::MissingText { .. }
                | Error::WrongType { .. }
                | Error::ColumnCount { .. }
                | Error::Json { .. }
                | Error::InvalidUtf8 { .. }
                | Error::RowNotUtf8 { .. }
                | Error::NoColumn { .. }
        );
        match &self.0 {
            Some(skipped) if of_row => {
                let mut skipped = skipped.lock().unwrap_or_else(PoisonError::into_inner);
                skipped.rows += 1;
                if skipped.first.len() < FIRST {
                    skipped.first.push(error.to_string());
                }
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// Two are equal if they do the same; what they have counted is no part of it.
impl PartialEq for Skipping {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_some() == other.0.is_some()
    }
}

impl Eq for Skipping {}
