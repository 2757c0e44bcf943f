//! The output folder of a training run: what to do if it is not empty, and writing the model and its record at the end.

use std::fs;
use std::path::Path;

use datasets::TextTokenizer;
use nn::Model;

use crate::files::{prepare_output, remove_partial};
use crate::hint::HintExt;
use crate::model::{self, MODEL_FILES};
use crate::recipe::ExportDtype;
use crate::run_record::{RECORD, RunFigures, RunInputs, RunRecord};
use crate::telemetry::{EVENTS, METRICS, METRICS_START, event_files};
use crate::training::Fitted;
use crate::training::checkpoint::{self, CHECKPOINT, EARLIER};
use crate::ui;

/// What to do with a folder that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Return an error.
    Refuse,
    /// Remove the files that would be written.
    Overwrite,
    /// Resume an interrupted run with the same inputs; keep a complete one.
    Resume,
}

impl Existing {
    /// Prepares the folder for a run, or refuses it. Returns the results of a complete run with these inputs, which is
    /// kept.
    pub(crate) fn prepare(self, folder: &Path, inputs: &RunInputs) -> anyhow::Result<Option<RunFigures>> {
        if self != Self::Resume {
            let events = event_files(folder);
            let written: Vec<&str> = written().into_iter().chain(events.iter().map(String::as_str)).collect();
            prepare_output(folder, self == Self::Overwrite, &written)?;
            return Ok(None);
        }
        if let Some(figures) = complete(folder, inputs)? {
            return Ok(Some(figures));
        }
        // Without a sign of a run that began here, whatever lies there is not ours to write over.
        let held = if folder.exists() { remove_partial(folder)? } else { Vec::new() };
        let ours = |bytes: Vec<u8>| bytes.starts_with(METRICS_START) || METRICS_START.starts_with(&bytes);
        let begun = fs::read(folder.join(METRICS)).is_ok_and(ours);
        let begun = begun && held.iter().all(|name| written().contains(&name.as_str()) || name == EVENTS);
        if !begun && !held.iter().any(|name| [CHECKPOINT, EARLIER].contains(&name.as_str())) {
            prepare_output(folder, false, &[])?;
        }
        Ok(None)
    }

    /// How to resume an interrupted run, for messages.
    pub(crate) fn way_on(self) -> &'static str {
        match self {
            Self::Refuse => "the same command with --resume goes on from here",
            Self::Overwrite => "the same command with --resume in place of --overwrite goes on from here",
            Self::Resume => "the same command goes on from here",
        }
    }
}

/// All files that a training run may write, besides event files.
pub(super) fn written() -> Vec<&'static str> {
    [METRICS, CHECKPOINT, EARLIER, RECORD].into_iter().chain(MODEL_FILES).collect()
}

/// The results of a complete run in the folder; an error if it had other inputs.
fn complete(folder: &Path, inputs: &RunInputs) -> anyhow::Result<Option<RunFigures>> {
    let Some(record) = RunRecord::read(folder)? else { return Ok(None) };
    if let Some((field, now, then)) = inputs.difference(&record.inputs) {
        return Err(anyhow::anyhow!(
            "{}: holds a complete run with another `{field}` ({then}, now {now})",
            folder.display()
        ))
        .hint("give the same, or another folder, or replace it with --overwrite");
    }
    // A kill may have come between the record and this.
    checkpoint::remove(folder)?;
    ui::say(format!("{}: complete, kept as it is", folder.display()));
    Ok(Some(record.figures))
}

/// Writes a trained model and its record, and removes the checkpoint.
pub(super) fn finish(
    folder: &Path,
    student: &Model,
    tokenizer: &TextTokenizer,
    inputs: RunInputs,
    fitted: &Fitted,
) -> anyhow::Result<RunFigures> {
    let inputs = RunInputs { fit: fitted.recipe.clone(), ..inputs };
    let bytes = model::save(folder, student.config(), student.parameters(), tokenizer, ExportDtype::F32)?;
    let figures = RunFigures {
        steps: fitted.steps,
        skipped_steps: fitted.skipped,
        kept_epoch: fitted.kept_epoch,
        kept_step: fitted.kept_step,
        parameters: student.parameters().flat().len(),
        bytes,
        validation: fitted.scores.clone(),
        device_peak_memory_bytes: fitted.device_peak_bytes,
        products: fitted.products.clone(),
    };
    RunRecord::new(inputs, figures.clone()).write(folder)?;
    checkpoint::remove(folder)?;
    Ok(figures)
}
