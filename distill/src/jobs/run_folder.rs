//! The output folder of a training run: what to do if it is not empty, and writing the model and its record at the end.
//! A search of its settings lies in a folder of its own within.

use std::fs;
use std::path::Path;

use datasets::TextTokenizer;
use nn::Model;

use crate::files::{prepare_output, remove_partial};
use crate::hint::HintExt;
use crate::model::{self, MODEL_FILES};
use crate::objective::PROJECTIONS;
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
    /// The same, for one of several trainings of a command that has prepared its folder; how to resume the command, for
    /// messages.
    Begun(&'static str),
    /// The same, for the first training of a search, in `OUTPUT/tune/RUNG/SETTING`. It prepares `OUTPUT` too, as is said
    /// here: after all checks, like any training.
    Searching(&'static Self),
}

impl Existing {
    /// Prepares the folder for a run, or refuses it. Returns the results of a complete run with these inputs, which is
    /// kept.
    pub(crate) fn prepare(self, folder: &Path, inputs: &RunInputs) -> anyhow::Result<Option<RunFigures>> {
        match self {
            Self::Refuse | Self::Overwrite => {
                self.clear(folder)?;
                return Ok(None);
            }
            Self::Searching(of) => of.prepare_search(folder.ancestors().nth(3).unwrap_or(folder))?,
            Self::Resume | Self::Begun(_) => {}
        }
        if let Some(figures) = complete(folder, inputs)? {
            return Ok(Some(figures));
        }
        // Without a sign of a run that began here, whatever lies there is not ours to write over.
        let mut held = if folder.exists() { remove_partial(folder)? } else { Vec::new() };
        let names = held.len();
        held.retain(|name| name != SEARCH || !is_search(folder));
        if held.is_empty() && names > 0 {
            return Ok(None);
        }
        let ours = |bytes: Vec<u8>| bytes.starts_with(METRICS_START) || METRICS_START.starts_with(&bytes);
        let begun = fs::read(folder.join(METRICS)).is_ok_and(ours);
        let begun = begun && held.iter().all(|name| written().contains(&name.as_str()) || name == EVENTS);
        if !begun && !held.iter().any(|name| [CHECKPOINT, EARLIER].contains(&name.as_str())) {
            prepare_output(folder, false, &[])?;
        }
        Ok(None)
    }

    /// Prepares the folder for a search of settings, and for the run that follows from it.
    fn prepare_search(self, folder: &Path) -> anyhow::Result<()> {
        match self.resumes() {
            true if is_search(folder) => Ok(()),
            true => Ok(prepare_output(folder, false, &[])?),
            false => self.clear(folder),
        }
    }

    /// Refuses a folder that a search cannot lie in, before anything else is looked at.
    pub(super) fn refuse_search(self, folder: &Path) -> anyhow::Result<()> {
        match folder.exists() && self != Self::Overwrite {
            true => self.prepare_search(folder),
            false => Ok(()),
        }
    }

    /// For the first training of a search.
    pub(super) fn searching(self) -> Self {
        match self {
            Self::Refuse => Self::Searching(&Self::Refuse),
            Self::Overwrite => Self::Searching(&Self::Overwrite),
            Self::Resume => Self::Searching(&Self::Resume),
            begun => begun,
        }
    }

    /// For the later trainings of a command.
    pub(super) fn begun(self) -> Self {
        Self::Begun(self.way_on())
    }

    /// Whether what an earlier search has left goes on.
    pub(super) fn keeps_search(self) -> bool {
        match self {
            Self::Searching(of) => of.keeps_search(),
            _ => self.resumes(),
        }
    }

    /// Refuses what is in the folder, or removes it.
    fn clear(self, folder: &Path) -> anyhow::Result<()> {
        match self {
            Self::Overwrite => clear_run(folder),
            _ => Ok(prepare_output(folder, false, &[])?),
        }
    }

    /// Whether an interrupted run goes on.
    pub(super) fn resumes(self) -> bool {
        matches!(self, Self::Resume | Self::Begun(_) | Self::Searching(_))
    }

    /// How to resume an interrupted run, for messages.
    pub(crate) fn way_on(self) -> &'static str {
        match self {
            Self::Refuse => "the same command with --resume goes on from here",
            Self::Overwrite => "the same command with --resume in place of --overwrite goes on from here",
            Self::Resume => "the same command goes on from here",
            Self::Begun(way_on) => way_on,
            Self::Searching(of) => of.way_on(),
        }
    }
}

/// Removes what a training and a search of its settings wrote, and nothing else.
pub(super) fn clear_run(folder: &Path) -> anyhow::Result<()> {
    let others = [event_files(folder), search_files(folder)].concat();
    let written: Vec<&str> = written().into_iter().chain(others.iter().map(String::as_str)).collect();
    Ok(prepare_output(folder, true, &written)?)
}

/// The folder of a search of settings, in that of the run.
pub(super) const SEARCH: &str = "tune";

/// What a search has tried and chosen, in its folder.
pub(super) const SEARCHED: &str = "tune.json";

/// Whether a run's folder holds a search, were it only begun.
fn is_search(folder: &Path) -> bool {
    let search = folder.join(SEARCH);
    let ours = |name: &String| name == SEARCHED || name.starts_with("rung-");
    search.is_dir() && remove_partial(&search).is_ok_and(|names| names.iter().all(ours))
}

/// The files of a search, as paths in the folder of its run.
pub(super) fn search_files(folder: &Path) -> Vec<String> {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let mut files = vec![format!("{SEARCH}/{SEARCHED}")];
    for rung in names(&folder.join(SEARCH)).iter().filter(|name| name.starts_with("rung-")) {
        for setting in names(&folder.join(SEARCH).join(rung)).iter().filter(|name| name.starts_with("setting-")) {
            files.extend(written().iter().map(|name| format!("{SEARCH}/{rung}/{setting}/{name}")));
        }
    }
    files
}

/// All files that a training run may write, besides event files.
fn written() -> Vec<&'static str> {
    [METRICS, CHECKPOINT, EARLIER, RECORD, PROJECTIONS].into_iter().chain(MODEL_FILES).collect()
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
        validation_loss: fitted.loss,
        gradient_shares: fitted.shares.clone(),
        device_peak_memory_bytes: fitted.device_peak_bytes,
        products: fitted.products.clone(),
    };
    fitted.projections.write(folder)?;
    RunRecord::new(inputs, figures.clone()).write(folder)?;
    checkpoint::remove(folder)?;
    Ok(figures)
}
