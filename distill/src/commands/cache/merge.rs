//! `distill cache merge`: one cache of several.

use std::path::Path;

use serde::Serialize;

use crate::cli::MergeArgs;
use crate::files::refuse_source;
use crate::ui::{self, Table, Ui};

/// What `cache merge` prints.
#[derive(Debug, Serialize)]
struct Report {
    caches: usize,
    rows: usize,
    /// Rows that more than one cache had.
    shared: usize,
    /// Of these, not equal to the byte.
    differing: usize,
    largest_difference: f32,
    output: String,
}

/// Merges caches.
pub(super) fn run(args: &MergeArgs, ui: &Ui) -> anyhow::Result<()> {
    for input in &args.caches {
        refuse_source(input, &args.output)?;
    }
    let inputs: Vec<&Path> = args.caches.iter().map(AsRef::as_ref).collect();
    let merged = cache::merge(&inputs, &args.output)?;
    let report = Report {
        caches: inputs.len(),
        rows: merged.rows,
        shared: merged.shared,
        differing: merged.differing,
        largest_difference: merged.largest_difference,
        output: args.output.display().to_string(),
    };
    ui.result(&report, Report::text)?;
    Ok(())
}

impl Report {
    fn text(&self) -> String {
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
