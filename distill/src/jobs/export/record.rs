//! The record of an export, `distill.json`.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::card::CardFigures;
use crate::files;
use crate::recipe::ExportDtype;
use crate::run_record::{RECORD, RunRecord};

/// Version of [`ExportRecord`]'s fields. In version 1, which is still read, macro-F1 was over all classes, also those that do
/// not occur.
pub(super) const SCHEMA_VERSION: u32 = 2;

/// `distill.json` of an export: its inputs, and the record of the run it comes from. Written first, and again once the
/// export is verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ExportRecord {
    pub(super) schema_version: u32,
    pub(super) export: ExportInputs,
    /// Whether the export was read back and matched its source.
    pub(super) verified: bool,
    pub(super) parameters: usize,
    /// Of the weights' file.
    pub(super) bytes: Option<u64>,
    pub(super) figures: Option<CardFigures>,
    pub(super) run: Option<RunRecord>,
}

/// The inputs of an export: everything that determines its weights, configuration and tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ExportInputs {
    /// Hash of the weights, before any rounding.
    pub(super) model: String,
    /// Hash of the tokenizer.
    pub(super) tokenizer: String,
    /// Class names, by id.
    pub(super) labels: Vec<String>,
    pub(super) dtype: ExportDtype,
}

impl ExportRecord {
    /// The record in an export's folder; `None` where there is none, or one of a run.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(RECORD);
        if !path.exists() {
            return Ok(None);
        }
        let json: serde_json::Value = serde_json::from_str(&files::read_to_string(&path)?)
            .with_context(|| format!("{}: no JSON", path.display()))?;
        if json.get("export").is_none() {
            return Ok(None);
        }
        let found = json["schema_version"].as_u64().unwrap_or(0);
        if !(1..=u64::from(SCHEMA_VERSION)).contains(&found) {
            bail!(
                "{}: schema_version is {found}, this build reads {SCHEMA_VERSION}; update distill, or export again",
                path.display()
            );
        }
        let mut record: Self =
            serde_json::from_value(json).with_context(|| format!("{}: not an export's record", path.display()))?;
        if let Some(figures) = record.figures.as_mut().filter(|_| record.schema_version < 2) {
            figures.scores.macro_f1 = None;
        }
        record.run = record.run.map(RunRecord::in_this_version);
        Ok(Some(Self { schema_version: SCHEMA_VERSION, ..record }))
    }

    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(files::write_whole(&folder.join(RECORD), json.as_bytes())?)
    }
}
