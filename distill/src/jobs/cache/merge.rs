//! Merges several caches.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use cache::CacheReader;
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
    let merged = cache::merge(&inputs, output).map_err(|error| match error {
        cache::Error::Fingerprint { dir, difference } if is_imported(&dir) => anyhow!(
            "{}: imported answers are merged where all of them were imported alike: {difference}; `distill cache import` \
             makes one cache of several files, each given with --data",
            dir.display()
        ),
        error => error.into(),
    })?;
    Ok(Report {
        caches: inputs.len(),
        rows: merged.rows,
        shared: merged.shared,
        differing: merged.differing,
        largest_difference: merged.largest_difference,
        output: output.display().to_string(),
    })
}

fn is_imported(cache: &Path) -> bool {
    CacheReader::open(cache, None).is_ok_and(|cache| cache.fingerprint().keyed_by_text())
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
