//! `distill cache gc`: a cache without what nobody reads.

use std::collections::HashSet;

use anyhow::bail;
use cache::CacheWriter;
use datasets::Key;
use serde::Serialize;

use super::inspect::Keys;
use crate::cli::GcArgs;
use crate::ui::{self, Table, Ui};

/// What `cache gc` prints.
#[derive(Debug, Serialize)]
struct Report {
    rows_before: usize,
    rows: usize,
    bytes_before: u64,
    bytes: u64,
}

/// Writes a cache anew.
pub(super) fn run(args: &GcArgs, ui: &Ui) -> anyhow::Result<()> {
    let mut writer = CacheWriter::resume(&args.cache)?;
    let (rows_before, bytes_before) = (writer.rows(), writer.bytes());
    let mut kept: HashSet<Key> = HashSet::new();
    for data in &args.data {
        let keys = Keys::new(&args.cache, writer.reader(), &args.columns)?;
        keys.each(data, |key, _| {
            kept.insert(key);
            Ok(())
        })?;
    }
    if !kept.is_empty() {
        let mut known = false;
        for key in &kept {
            known = known || writer.contains(key)?;
        }
        if !known && rows_before > 0 {
            bail!("{}: no row of the data is cached here, so nothing was dropped; see --data", args.cache.display());
        }
    }
    writer.rewrite(|key| args.data.is_empty() || kept.contains(key), None)?;
    let report = Report { rows_before, rows: writer.rows(), bytes_before, bytes: writer.bytes() };
    ui.result(&report, Report::text)?;
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let mut table = Table::new(["", "before", "now"]);
        let (before, now) = (ui::count(self.rows_before as u64), ui::count(self.rows as u64));
        table.row(["rows".to_string(), before, now]);
        table.row(["bytes".to_string(), ui::bytes(self.bytes_before), ui::bytes(self.bytes)]);
        table.to_string()
    }
}
