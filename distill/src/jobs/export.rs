//! `distill export`: writes a folder that Hugging Face `transformers` loads, with a model card, then reads it back and
//! compares its logits with those of the source.

mod compare;
mod record;
mod report;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use half::{bf16, f16};
use nn::{Compute, Parameters};
use serde::Serialize;
use teacher::HubOptions;

use super::evaluate::Measured;
use super::run_folder::Existing;
use crate::card::{CardFigures, ModelCard};
use crate::data::Split;
use crate::files::{self, prepare_output};
use crate::fingerprint;
use crate::hint::HintExt;
use crate::inference::Running;
use crate::model::{self, MODEL_FILES, TextModel};
use crate::recipe::ExportDtype;
use crate::run_record::{RECORD, RunRecord};
use crate::scores::Scores;
use crate::tasks::single_label;
use crate::ui;
use compare::{Comparison, compare};
use record::{ExportInputs, ExportRecord};
pub(crate) use report::ExportReport;

/// File name of the model card, as expected by the Hub.
pub(crate) const CARD: &str = "README.md";

/// A finished export.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Exported {
    pub(crate) dtype: ExportDtype,
    /// Of the weights' file.
    pub(crate) bytes: u64,
    output: String,
}

/// Exports a run with scores measured on it, unless the folder already holds this export. An unfinished one, or one
/// with other scores, is rewritten; anything else in the folder is an error.
pub(crate) fn export(
    source: &Path,
    output: &Path,
    dtype: ExportDtype,
    measured: Option<(&str, &Measured)>,
) -> anyhow::Result<Exported> {
    let source = Source::load(source)?;
    let exported = |bytes| Exported { dtype, bytes, output: output.display().to_string() };
    if let (Some(record), Some((rows, measured))) = (ExportRecord::read(output)?, measured) {
        let figures = record.figures.as_ref();
        let same_figures = figures.is_some_and(|f| f.measured_on == rows && f.scores == measured.scores);
        let bytes = fs::metadata(output.join(model::WEIGHTS)).map(|metadata| metadata.len()).ok();
        let whole = record.verified && record.bytes == bytes && output.join(CARD).exists();
        if let (true, true, true, Some(bytes)) = (whole, same_figures, record.export == source.inputs(dtype), bytes) {
            ui::say(format!("{}: complete, kept as it is", output.display()));
            return Ok(exported(bytes));
        }
    }
    Ok(exported(write(source, output, dtype, measured)?.bytes))
}

/// Writes an export in place of one of the same inputs, or into an empty folder.
fn write(
    source: Source,
    output: &Path,
    dtype: ExportDtype,
    measured: Option<(&str, &Measured)>,
) -> anyhow::Result<ExportReport> {
    let figures = match measured {
        None => Figures::OfTheRun,
        Some((rows, measured)) => Figures::Measured(rows, &measured.scores),
    };
    let max_length = source.max_length(None)?;
    let running = Running::new(&Compute::Cpu, None);
    Export { output, existing: Existing::Resume, dtype, max_length, running, figures }.run(source)
}

/// Refuses a folder that holds something other than an export.
pub(crate) fn refuse_foreign(output: &Path) -> anyhow::Result<()> {
    if output.exists() && ExportRecord::read(output)?.is_none() {
        prepare_output(output, false, &[])?;
    }
    Ok(())
}

/// The model to export, with the record of its run if there is one.
pub(crate) struct Source {
    folder: PathBuf,
    pub(crate) model: TextModel,
    run: Option<RunRecord>,
}

impl Source {
    /// Loads the folder of a run, of an export, or of any other classifier.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Self> {
        if !folder.is_dir() {
            return Err(anyhow::anyhow!("{}: no such folder", folder.display()))
                .hint("--model takes the folder that distill train or distill finetune wrote");
        }
        let local = HubOptions { revision: None, offline: true };
        let model = single_label::load(&folder.display().to_string(), &local)?;
        let run = match ExportRecord::read(folder)? {
            Some(export) => export.run,
            None => RunRecord::read(folder)?,
        };
        Ok(Self { folder: folder.to_owned(), model, run })
    }

    /// What an export of it in this number format follows from.
    fn inputs(&self, dtype: ExportDtype) -> ExportInputs {
        ExportInputs {
            model: teacher::weights_hash(&self.model.parameters),
            tokenizer: fingerprint::of_tokenizer(&self.model.tokenizer),
            labels: self.model.config.labels.clone(),
            dtype,
        }
    }

    /// Maximum length of a text in tokens: the requested one, or that of the training.
    pub(crate) fn max_length(&self, asked: Option<usize>) -> anyhow::Result<usize> {
        let trained = self.run.as_ref().map(|run| run.inputs.max_length);
        self.model.max_length(asked.or(trained))
    }
}

/// The settings of an export.
pub(crate) struct Export<'a> {
    pub(crate) output: &'a Path,
    pub(crate) existing: Existing,
    pub(crate) dtype: ExportDtype,
    /// Maximum length of a text in tokens.
    pub(crate) max_length: usize,
    pub(crate) running: Running<'a>,
    pub(crate) figures: Figures<'a>,
}

/// The source of the scores on the model card.
pub(crate) enum Figures<'a> {
    /// The run's record, if there is one.
    OfTheRun,
    /// Measured on the model before its export: what the rows are called, and the figures.
    Measured(&'a str, &'a Scores),
    /// To be measured on the export: what the rows are called, and the rows.
    Measure(&'a str, &'a Split),
}

impl Export<'_> {
    pub(crate) fn run(self, source: Source) -> anyhow::Result<ExportReport> {
        let start = Instant::now();
        let inputs = source.inputs(self.dtype);
        let Source { folder, model, run } = source;
        check_range(&model.parameters, self.dtype)?;
        let mut record = ExportRecord {
            schema_version: record::SCHEMA_VERSION,
            export: inputs,
            verified: false,
            parameters: model.parameters.flat().len(),
            bytes: None,
            figures: None,
            run,
        };
        self.prepare(&folder, &record.export)?;
        record.write(self.output)?;
        let bytes = model::save(self.output, &model.config, &model.parameters, &model.tokenizer, self.dtype)?;

        let rows = match self.figures {
            Figures::Measure(_, split) => split.rows.clone(),
            _ => compare::synthetic_rows(&model.tokenizer),
        };
        let Comparison { config, exported_logits, rows, largest_difference, label_changes } =
            compare(model, self.output, self.dtype, &rows, self.max_length, self.running)?;

        let as_exported = self.dtype == ExportDtype::F32;
        let figures = match self.figures {
            Figures::OfTheRun => {
                let scores = record.run.as_ref().and_then(|run| run.figures.validation.clone());
                scores.map(|scores| CardFigures {
                    measured_on: "the run's validation rows".to_string(),
                    as_exported,
                    scores,
                })
            }
            Figures::Measured(rows, scores) => {
                Some(CardFigures { measured_on: rows.to_string(), as_exported, scores: scores.clone() })
            }
            Figures::Measure(rows, split) => {
                let scores = Scores::of(&exported_logits, None, &split.labels, config.labels.len())?;
                Some(CardFigures { measured_on: rows.to_string(), as_exported: true, scores })
            }
        };
        let card = ModelCard {
            config: &config,
            dtype: self.dtype,
            parameters: record.parameters,
            bytes,
            max_length: self.max_length,
            figures: figures.as_ref(),
            run: record.run.as_ref(),
        };
        files::write_whole(&self.output.join(CARD), card.markdown().as_bytes())?;
        record = ExportRecord { verified: true, bytes: Some(bytes), figures, ..record };
        record.write(self.output)?;
        Ok(ExportReport {
            dtype: self.dtype,
            compared_rows: rows,
            largest_difference,
            label_changes,
            figures: record.figures,
            parameters: record.parameters,
            bytes,
            seconds: start.elapsed().as_secs_f64(),
            output: self.output.display().to_string(),
        })
    }

    /// Prepares the output folder, or refuses it.
    fn prepare(&self, source: &Path, inputs: &ExportInputs) -> anyhow::Result<()> {
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if same(source, self.output) {
            bail!("{}: the export would replace the model it is made of; choose another --output", source.display());
        }
        let overwrite = match self.existing {
            Existing::Refuse => false,
            Existing::Overwrite => true,
            Existing::Resume | Existing::Begun(_) | Existing::Searching(_) => match ExportRecord::read(self.output)? {
                Some(record) if record.export == *inputs => true,
                Some(_) => {
                    return Err(anyhow::anyhow!("{}: holds the export of another model", self.output.display()))
                        .hint("give another folder, or replace it with --overwrite");
                }
                None => false,
            },
        };
        Ok(prepare_output(self.output, overwrite, &exported())?)
    }
}

/// All files that an export writes.
pub(super) fn exported() -> Vec<&'static str> {
    [CARD, RECORD].into_iter().chain(MODEL_FILES).collect()
}

/// Refuses weights that the number format cannot hold.
fn check_range(parameters: &Parameters, dtype: ExportDtype) -> anyhow::Result<()> {
    let held = |value: f32| match dtype {
        ExportDtype::F32 => value.is_finite(),
        ExportDtype::F16 => f16::from_f32(value).is_finite(),
        ExportDtype::Bf16 => bf16::from_f32(value).is_finite(),
    };
    for entry in parameters.layout().entries() {
        let Some(&value) = parameters.get(entry.slot).iter().find(|&&value| !held(value)) else { continue };
        if !value.is_finite() {
            bail!("tensor `{}` holds {value}; the weights are damaged, or the training diverged", entry.name);
        }
        bail!("tensor `{}` holds {value}, and f16 ends at 65504; export with --dtype bf16 or f32", entry.name);
    }
    Ok(())
}
