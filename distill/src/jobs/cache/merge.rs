//! Merges several caches.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::files::refuse_source;
use crate::ui::{self, Table};

/// What `cache merge` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    caches: usize,
    rows: usize,
    /// Rows that were in more than one cache.
    shared: usize,
    /// Shared rows whose bytes differ.
    differing: usize,
    largest_difference: f32,
    output: String,
}

/// Merges caches.
pub(crate) fn merge(caches: &[PathBuf], output: &Path) -> anyhow::Result<Report> {
    for input in caches {
        refuse_source(input, output)?;
    }
    let inputs: Vec<&Path> = caches.iter().map(AsRef::as_ref).collect();
    let merged = cache::merge(&inputs, output)?;
    Ok(Report {
        caches: inputs.len(),
        rows: merged.rows,
        shared: merged.shared,
        differing: merged.differing,
        largest_difference: merged.largest_difference,
        output: output.display().to_string(),
    })
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new([format!("{} caches", self.caches), String::new()]);
        table.row(["rows".to_string(), ui::count(self.rows as u64)]);
        table.row(["in several of them".to_string(), ui::count(self.shared as u64)]);
        table.row(["of these not equal".to_string(), ui::count(self.differing as u64)]);
        if self.differing > 0 {
            table.row(["largest difference of a logit".to_string(), format!("{:e}", self.largest_difference)]);
        }
        format!("{table}\nwritten: {}", self.output)
    }
}
