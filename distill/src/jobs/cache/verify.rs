//! Checks every checksum of a cache.

use std::path::Path;

use serde::Serialize;

use crate::ui;

/// What `cache verify` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) sound: bool,
    pub(crate) files: usize,
    bytes: u64,
    rows: u64,
    /// What is wrong, one sentence a file.
    pub(crate) damage: Vec<String>,
}

/// Checks a cache.
pub(crate) fn verify(dir: &Path) -> anyhow::Result<Report> {
    let found = cache::verify(dir)?;
    let damage: Vec<String> = found.damage.iter().map(ToString::to_string).collect();
    Ok(Report { sound: damage.is_empty(), files: found.files, bytes: found.bytes, rows: found.rows, damage })
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let counts = format!("{} files, {}, {} rows", self.files, ui::bytes(self.bytes), ui::count(self.rows));
        match self.sound {
            true => format!("sound: {counts}"),
            false => format!("{}\ndamaged: {counts}", self.damage.join("\n")),
        }
    }
}
