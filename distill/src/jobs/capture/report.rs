//! The report of a capture.

use serde::Serialize;

use crate::ui::{self, Table};

/// What `cache` prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CacheReport {
    /// Number of rows in the data.
    pub(crate) rows: u64,
    /// Number of different keys.
    pub(crate) unique: u64,
    /// Rows run through the teacher in this capture.
    pub(crate) forwarded: u64,
    /// Unique rows that were already cached.
    pub(crate) skipped: u64,
    /// Rows truncated to the maximum length.
    pub(crate) truncated: u64,
    /// Size of all files of the cache, without the manifest.
    pub(crate) bytes: u64,
    /// The teacher's accuracy on the labelled rows.
    pub(crate) accuracy: Option<f64>,
    pub(crate) rows_per_second: f64,
    /// Time spent in the teacher.
    pub(crate) forward_seconds: f64,
    /// Time that the teacher waited for the writer.
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
