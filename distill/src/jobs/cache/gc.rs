//! Rewrites a cache without rows that are no longer needed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::bail;
use cache::CacheWriter;
use datasets::Key;
use serde::Serialize;

use super::keys::Keys;
use crate::recipe::ColumnsRecipe;
use crate::ui::{self, Table};

/// What `cache gc` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows_before: usize,
    rows: usize,
    bytes_before: u64,
    bytes: u64,
}

/// Rewrites a cache; if data is given, only with the rows of the data.
pub(crate) fn gc(dir: &Path, data: &[PathBuf], columns: &ColumnsRecipe) -> anyhow::Result<Report> {
    let mut writer = CacheWriter::resume(dir)?;
    let (rows_before, bytes_before) = (writer.rows(), writer.bytes());
    let mut kept: HashSet<Key> = HashSet::new();
    for data in data {
        let keys = Keys::new(dir, writer.reader(), columns)?;
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
            bail!("{}: no row of the data is cached here, so nothing was dropped; see --data", dir.display());
        }
    }
    writer.rewrite(|key| data.is_empty() || kept.contains(key), None)?;
    Ok(Report { rows_before, rows: writer.rows(), bytes_before, bytes: writer.bytes() })
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(["", "before", "now"]);
        let (before, now) = (ui::count(self.rows_before as u64), ui::count(self.rows as u64));
        table.row(["rows".to_string(), before, now]);
        table.row(["bytes".to_string(), ui::bytes(self.bytes_before), ui::bytes(self.bytes)]);
        table.to_string()
    }
}
