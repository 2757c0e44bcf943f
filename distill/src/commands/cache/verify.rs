//! `distill cache verify`: every checksum of a cache.

use anyhow::bail;
use serde::Serialize;

use crate::cli::VerifyArgs;
use crate::ui::{self, Ui};

/// What `cache verify` prints.
#[derive(Debug, Serialize)]
struct Report {
    sound: bool,
    files: usize,
    bytes: u64,
    rows: u64,
    /// What is wrong, one sentence a file.
    damage: Vec<String>,
}

/// Checks a cache; damage is an error once it has been listed.
pub(super) fn run(args: &VerifyArgs, ui: &Ui) -> anyhow::Result<()> {
    let found = cache::verify(&args.cache)?;
    let damage: Vec<String> = found.damage.iter().map(ToString::to_string).collect();
    let report = Report { sound: damage.is_empty(), files: found.files, bytes: found.bytes, rows: found.rows, damage };
    ui.result(&report, Report::text)?;
    if !report.sound {
        bail!("{}: {} of {} files damaged", args.cache.display(), report.damage.len(), report.files);
    }
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let counts = format!("{} files, {}, {} rows", self.files, ui::bytes(self.bytes), ui::count(self.rows));
        match self.sound {
            true => format!("sound: {counts}"),
            false => format!("{}\ndamaged: {counts}", self.damage.join("\n")),
        }
    }
}
