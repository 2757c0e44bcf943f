//! Writes a cache of whole logits that no teacher computes here: imported ones, or the mean of several teachers'.

use std::path::Path;

use anyhow::anyhow;
use cache::{CacheWriter, NewCache, NewLogits, NewRow};
use datasets::Key;

/// Rows that are committed at a time.
pub(super) const COMMITTED_ROWS: usize = 1 << 16;

/// Opens the cache in this folder to write to it; an error with this finding if one of other outputs is there.
pub(super) fn create(output: &Path, new: &NewCache<'_>, finding: &str) -> anyhow::Result<CacheWriter> {
    CacheWriter::create_or_resume(output, new).map_err(|error| match error {
        cache::Error::Fingerprint { dir, .. } => anyhow!("{}: {finding}", dir.display()),
        error => error.into(),
    })
}

/// Adds rows with their logits, and commits them.
pub(super) fn commit<'a>(writer: &mut CacheWriter, rows: impl Iterator<Item = (Key, &'a [f32])>) -> anyhow::Result<()> {
    let rows: Vec<NewRow<'_>> =
        rows.map(|(key, logits)| NewRow { key, logits: NewLogits::All(logits), hidden_states: &[] }).collect();
    writer.push(&rows)?;
    Ok(writer.commit()?)
}
