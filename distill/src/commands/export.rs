//! `distill export`: writes a folder that Hugging Face `transformers` loads as it is, with a model card, and reads it
//! back to see that it answers as the model it was made of.

mod compare;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use half::{bf16, f16};
use nn::{Compute, Parameters};
use serde::{Deserialize, Serialize};

use super::evaluate::Measured;
use super::train::Existing;
use crate::card::{CardFigures, ModelCard};
use crate::cli::{DeviceArgs, ExportArgs, ExportDtype, HubArgs, PrecisionChoice};
use crate::files::{self, prepare_output};
use crate::fingerprint;
use crate::hint::HintExt;
use crate::inference::Running;
use crate::metrics::Scores;
use crate::model::{self, MODEL_FILES, TextModel};
use crate::recipe::ColumnsRecipe;
use crate::run_record::{RECORD, RunRecord};
use crate::task_data::{self, Split};
use crate::ui::{self, Table, Ui};
use compare::{Comparison, compare};

/// The model card's file name, where the Hub looks for it.
pub(crate) const CARD: &str = "README.md";

/// Version of [`ExportRecord`]'s fields.
const SCHEMA_VERSION: u32 = 1;

/// Exports a model.
pub(crate) fn run(args: ExportArgs, ui: &Ui) -> anyhow::Result<()> {
    // In f32 wherever that is: rounded activations would hide what the number format of the weights does.
    let compute = DeviceArgs { precision: PrecisionChoice::F32, ..args.compute.device }.resolve()?;
    let columns = ColumnsRecipe::from(&args.columns);
    let mut source = Source::load(&args.model)?;
    let names = source.model.name_labels(&columns.label_names)?;
    let max_length = source.max_length(columns.max_length)?;
    let data = match &args.data {
        None => None,
        Some(path) => {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            Some((name, task_data::read(path, &columns, Some(&names))?))
        }
    };
    let report = Export {
        output: &args.output.output,
        existing: if args.output.overwrite { Existing::Overwrite } else { Existing::Refuse },
        dtype: args.dtype,
        max_length,
        running: Running { compute: &compute, batch_tokens: args.compute.batch_tokens },
        figures: match &data {
            None => Figures::OfTheRun,
            Some((name, split)) => Figures::Measure(name, split),
        },
    }
    .run(source)?;
    ui.result(&report, ExportReport::text)?;
    Ok(())
}

/// An export that is there.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Exported {
    pub(crate) dtype: ExportDtype,
    /// Of the weights' file.
    pub(crate) bytes: u64,
    output: String,
}

/// Exports a run with figures that were measured on it, unless the folder holds that very export. One that was stopped,
/// or that has other figures, is written anew; anything else in the folder is refused.
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
    let running = Running { compute: &Compute::Cpu, batch_tokens: 4096 };
    Export { output, existing: Existing::Resume, dtype, max_length, running, figures }.run(source)
}

/// Refuses a folder that holds something other than an export.
pub(crate) fn refuse_foreign(output: &Path) -> anyhow::Result<()> {
    if output.exists() && ExportRecord::read(output)?.is_none() {
        prepare_output(output, false, &[])?;
    }
    Ok(())
}

/// What is exported: a classifier and, where it is one of ours, how it was made.
struct Source {
    folder: PathBuf,
    model: TextModel,
    run: Option<RunRecord>,
}

impl Source {
    /// Loads the folder of a run, of an export, or of any other classifier.
    fn load(folder: &Path) -> anyhow::Result<Self> {
        if !folder.is_dir() {
            return Err(anyhow::anyhow!("{}: no such folder", folder.display()))
                .hint("--model takes the folder that distill train or distill finetune wrote");
        }
        let local = HubArgs { revision: None, offline: true };
        let model = model::load_classifier(&folder.display().to_string(), &local)?;
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

    /// Tokens kept of a text: what was asked for, or as many as in training.
    fn max_length(&self, asked: Option<usize>) -> anyhow::Result<usize> {
        let trained = self.run.as_ref().map(|run| run.inputs.max_length);
        self.model.max_length(asked.or(trained))
    }
}

/// An export in the making.
struct Export<'a> {
    output: &'a Path,
    existing: Existing,
    dtype: ExportDtype,
    /// Tokens kept of a text where it is run.
    max_length: usize,
    running: Running<'a>,
    figures: Figures<'a>,
}

/// Where the figures on the card come from.
enum Figures<'a> {
    /// The run's record, if there is one.
    OfTheRun,
    /// Measured on the model before its export: what the rows are called, and the figures.
    Measured(&'a str, &'a Scores),
    /// To be measured on the export: what the rows are called, and the rows.
    Measure(&'a str, &'a Split),
}

impl Export<'_> {
    fn run(self, source: Source) -> anyhow::Result<ExportReport> {
        let start = Instant::now();
        let inputs = source.inputs(self.dtype);
        let Source { folder, model, run } = source;
        check_range(&model.parameters, self.dtype)?;
        let mut record = ExportRecord {
            schema_version: SCHEMA_VERSION,
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

    /// Makes room in the output, or refuses it.
    fn prepare(&self, source: &Path, inputs: &ExportInputs) -> anyhow::Result<()> {
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if same(source, self.output) {
            bail!("{}: the export would replace the model it is made of; choose another --output", source.display());
        }
        let overwrite = match self.existing {
            Existing::Refuse => false,
            Existing::Overwrite => true,
            Existing::Resume => match ExportRecord::read(self.output)? {
                Some(record) if record.export == *inputs => true,
                Some(_) => {
                    return Err(anyhow::anyhow!("{}: holds the export of another model", self.output.display()))
                        .hint("give another folder, or replace it with --overwrite");
                }
                None => false,
            },
        };
        let written: Vec<_> = [CARD, RECORD].into_iter().chain(MODEL_FILES).collect();
        Ok(prepare_output(self.output, overwrite, &written)?)
    }
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

/// `distill.json` of an export: what it was made of, and the record of the run behind it. Written first and again when
/// the export is verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ExportRecord {
    schema_version: u32,
    export: ExportInputs,
    /// Whether the folder was read back and answered as it should.
    verified: bool,
    parameters: usize,
    /// Of the weights' file.
    bytes: Option<u64>,
    figures: Option<CardFigures>,
    run: Option<RunRecord>,
}

/// What an export's weights, configuration and tokenizer follow from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ExportInputs {
    /// Hash of the weights, before any rounding.
    model: String,
    /// Hash of the tokenizer.
    tokenizer: String,
    /// Class names, by id.
    labels: Vec<String>,
    dtype: ExportDtype,
}

impl ExportRecord {
    /// The record in an export's folder; `None` where there is none, or one of a run.
    fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
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
        if found != u64::from(SCHEMA_VERSION) {
            bail!(
                "{}: schema_version is {found}, this build reads {SCHEMA_VERSION}; update distill, or export again",
                path.display()
            );
        }
        let record =
            serde_json::from_value(json).with_context(|| format!("{}: not an export's record", path.display()))?;
        Ok(Some(record))
    }

    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(files::write_whole(&folder.join(RECORD), json.as_bytes())?)
    }
}

/// What `export` prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExportReport {
    dtype: ExportDtype,
    /// Rows that the export and its source were compared on.
    compared_rows: usize,
    /// Between a logit of the export and of its source.
    largest_difference: f32,
    /// Rows of these that got another label by rounding.
    label_changes: usize,
    /// What the card says.
    figures: Option<CardFigures>,
    parameters: usize,
    /// Of the weights' file.
    pub(crate) bytes: u64,
    seconds: f64,
    output: String,
}

impl ExportReport {
    fn text(&self) -> String {
        let mut table = Table::new(["export", ""]);
        table.row(["parameters".to_string(), ui::count(self.parameters as u64)]);
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        table.row(["rows compared with its source".to_string(), ui::count(self.compared_rows as u64)]);
        table.row(["largest difference of a logit".to_string(), self.largest_difference.to_string()]);
        table.row(["labels changed by rounding".to_string(), ui::count(self.label_changes as u64)]);
        if let Some(figures) = &self.figures
            && let Some(accuracy) = figures.scores.accuracy
        {
            table.row([format!("accuracy on {}", figures.measured_on), format!("{accuracy:.4}")]);
        }
        format!("{table}\nwritten: {}", self.output)
    }
}

#[cfg(test)]
mod tests;
