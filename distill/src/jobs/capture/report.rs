//! What a capture gave, in figures.

use serde::Serialize;

use crate::ui::{self, Table};

/// What `cache` prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CacheReport {
    /// Rows of the data.
    pub(crate) rows: u64,
    /// Of these, different in what the teacher reads.
    pub(crate) unique: u64,
    /// Run through the teacher now.
    pub(crate) forwarded: u64,
    /// Of the unique rows, in the cache before.
    pub(crate) skipped: u64,
    /// Rows that were longer than the teacher reads.
    pub(crate) truncated: u64,
    /// Of all files of the cache but its manifest.
    pub(crate) bytes: u64,
    /// On the labelled rows.
    pub(crate) accuracy: Option<f64>,
    pub(crate) rows_per_second: f64,
    /// In which the teacher ran.
    pub(crate) forward_seconds: f64,
    /// In which the teacher waited for a place to put its answers.
    pub(crate) waited_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) output: String,
}

impl CacheReport {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(["cache", ""]);
        for (what, number) in [
            ("rows", self.rows),
            ("unique", self.unique),
            ("forwarded", self.forwarded),
            ("skipped", self.skipped),
            ("truncated", self.truncated),
        ] {
            table.row([what.to_string(), ui::count(number)]);
        }
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        if let Some(accuracy) = self.accuracy {
            table.row(["teacher's accuracy".to_string(), format!("{accuracy:.4}")]);
        }
        format!("{table}\nwritten: {}", self.output)
    }
}
