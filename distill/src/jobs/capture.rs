//! The capture pipeline: reads and tokenises rows, runs the teacher, encodes and writes its outputs, all in parallel.
//!
//! Data is processed in windows of about sixteen forward batches, which depend only on the data and the cache's batch
//! size. A window is committed as a whole, so a kill leaves whole windows, and the next capture of the same data forms
//! the same batches for the rest. Memory holds a few windows, whatever the size of the data.

mod asked;
mod chance;
mod report;
mod stages;
mod stored;
#[cfg(test)]
mod tests;
mod windows;
mod writing;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use cache::{CacheReader, CacheWriter, Captured, Dtype, NewCache, Stale};
use nn::Compute;
use teacher::HubOptions;

use crate::data::{self, Split};
use crate::device;
use crate::fingerprint;
use crate::hint::HintExt;
use crate::inference::{Running, announce};
use crate::interrupt::Interrupted;
use crate::model::{self, TextModel};
use crate::recipe::{ColumnsRecipe, Recipe};
use crate::tasks::Task;
use crate::telemetry::Progress;
use crate::ui;
pub(crate) use asked::Asked;
pub(crate) use report::CacheReport;
pub(crate) use stages::rehearse;
pub(crate) use stored::StoredForm;
pub(crate) use windows::{Source, Windows};

/// The attachment with the tokenizer that keys are made from.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// How a capture runs.
pub(crate) struct Capturing<'a> {
    pub(crate) output: &'a Path,
    pub(crate) existing: ExistingCache,
    pub(crate) running: Running<'a>,
    /// The task.
    pub(crate) task: Task,
    /// What is stored.
    pub(crate) captured: Captured,
    /// Accept a teacher that is no better than chance.
    pub(crate) force: bool,
}

/// What to do with an existing cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExistingCache {
    /// Resume it, or refuse it if its fingerprint differs.
    Resume,
    /// Drop its stale rows and resume it.
    Refresh,
    /// Remove it first.
    Overwrite,
}

/// The settings of a capture, or of an estimate of one: teacher, rows, task and what to store.
pub(crate) struct Asking {
    pub(crate) teacher: String,
    pub(crate) hub: HubOptions,
    pub(crate) data: PathBuf,
    pub(crate) columns: ColumnsRecipe,
    pub(crate) task: Task,
    pub(crate) stored: StoredForm,
    /// Maximum tokens per forward pass; `None` for the device's default.
    pub(crate) batch_tokens: Option<usize>,
}

/// The same with the teacher loaded, and every default resolved.
pub(super) struct Loaded<'a> {
    pub(super) teacher: TextModel,
    pub(super) source: Source<'a>,
    pub(super) captured: Captured,
    pub(super) max_length: usize,
    pub(super) batch_tokens: usize,
}

impl Asking {
    pub(super) fn load(&self, compute: &Compute) -> anyhow::Result<Loaded<'_>> {
        let teacher = self.task.load(&self.teacher, &self.hub, &self.columns.label_names)?;
        let labels_matter = self.task.class_names(&teacher.config)?.is_some();
        let columns = if labels_matter { data::columns_of } else { data::text_columns_of }(&self.columns);
        let captured = self.stored.captured(self.task, &teacher.config.encoder)?;
        let batch_tokens = device::batch_tokens(self.batch_tokens, compute);
        Ok(Loaded {
            max_length: teacher.max_length(self.columns.max_length)?,
            source: Source::File { path: &self.data, columns },
            batch_tokens: self.task.batch_tokens(batch_tokens, &captured, compute),
            captured,
            teacher,
        })
    }
}

/// Captures a file.
pub(crate) fn capture_file(
    asking: &Asking,
    output: &Path,
    existing: ExistingCache,
    force: bool,
    compute: &Compute,
) -> anyhow::Result<CacheReport> {
    let Loaded { teacher, source, captured, max_length, batch_tokens } = asking.load(compute)?;
    let running = Running { compute, batch_tokens };
    let how = Capturing { output, existing, running, task: asking.task, captured, force };
    capture(teacher, &source, max_length, &how)
}

/// Captures all logits of a recipe's rows, or of those that are missing.
pub(crate) fn capture_recipe(
    recipe: &Recipe,
    task: Task,
    teacher: TextModel,
    rows: &Split,
    output: &Path,
    compute: &Compute,
) -> anyhow::Result<CacheReport> {
    let max_length = teacher.max_length(recipe.data.max_length)?;
    let how = Capturing {
        output,
        existing: ExistingCache::Resume,
        running: Running::new(compute, recipe.train.batch_tokens),
        task,
        captured: Captured::dense(teacher.config.labels.len(), Dtype::F32),
        force: recipe.teacher.force,
    };
    capture(teacher, &Source::Rows { rows: &rows.rows, labels: &rows.labels }, max_length, &how)
}

/// Runs the teacher over the rows that are not in the cache yet.
pub(crate) fn capture(
    teacher: TextModel,
    source: &Source<'_>,
    max_length: usize,
    how: &Capturing<'_>,
) -> anyhow::Result<CacheReport> {
    let start = Instant::now();
    let names = how.task.class_names(&teacher.config)?;
    let precision = how.running.compute.precision().to_string();
    let fingerprint = fingerprint::of_teacher(&teacher, max_length, how.task, &precision, how.captured.clone());
    how.captured.check().map_err(|finding| cache::Error::Captured { finding })?;
    if how.existing == ExistingCache::Refresh {
        refuse_made_elsewhere(how.output)?;
    }
    // Everything that a row can be refused for is found before the teacher runs.
    let (rows, mut sample) = source.check(names.as_ref())?;
    let unlabelled = names.is_some() && sample.is_empty();
    announce(how.running.compute);
    let mut model = Asked::new(how.running.compute, teacher.config, teacher.parameters, &how.captured)?;
    let mut refuse_chance = |model: &mut Asked, cache: Option<&CacheReader>| match (&names, how.force) {
        (Some(_), false) => {
            let batch_tokens = how.running.batch_tokens;
            sample.refuse_chance(&mut model.teacher, &teacher.tokenizer, max_length, batch_tokens, cache)
        }
        _ => Ok(()),
    };
    if how.existing != ExistingCache::Resume {
        refuse_chance(&mut model, None)?;
    }
    if how.existing == ExistingCache::Overwrite {
        cache::remove(how.output, &[TOKENIZER])?;
    }
    let tokenizer = teacher.tokenizer.canonical_json().as_bytes();
    let new = NewCache {
        fingerprint: &fingerprint,
        batch_tokens: how.running.batch_tokens,
        attachments: &[(TOKENIZER, tokenizer)],
    };
    let writer = match how.existing {
        ExistingCache::Refresh => {
            let (writer, stale) = CacheWriter::refresh(how.output, &new)?;
            if stale != Stale::Nothing || !writer.reader().is_empty() {
                say_stale(&stale);
            }
            writer
        }
        ExistingCache::Resume => {
            let writer = CacheWriter::create_or_resume(how.output, &new)?;
            if let Err(error) = refuse_chance(&mut model, Some(writer.reader())) {
                if writer.reader().is_empty() {
                    drop(writer);
                    cache::remove(how.output, &[TOKENIZER])?;
                }
                return Err(error);
            }
            writer
        }
        ExistingCache::Overwrite => CacheWriter::create_or_resume(how.output, &new)?,
    };
    let batch_tokens = writer.reader().batch_tokens();
    if batch_tokens != how.running.batch_tokens {
        let given = ui::count(how.running.batch_tokens as u64);
        let kept = ui::count(batch_tokens as u64);
        ui::say(format!("this cache was begun with batches of {kept} tokens, and goes on so, not with {given}"));
    }
    let targets = how.task.targets(&teacher.tokenizer)?;
    let windows = Windows {
        source,
        tokenizer: &teacher.tokenizer,
        names: names.as_ref(),
        targets: &targets,
        max_length,
        batch_tokens,
    };
    if unlabelled {
        data::say_unlabelled("row", "whether the teacher is any better than chance is not known");
    }
    let progress = Progress::new("cache", rows, "rows");
    let counts = match stages::run(&windows, &mut model, writer, &progress) {
        Err(error) if error.is::<Interrupted>() => return Err(error).hint("the same command goes on from here"),
        counts => counts?,
    };
    progress.finish();
    if counts.rows != rows {
        bail!(
            "the data had {} rows when it was checked, and {} when it was captured: it was changed meanwhile; the same \
             command captures what is missing",
            ui::count(rows),
            ui::count(counts.rows)
        );
    }
    model::report_truncated(counts.truncated as usize, counts.rows as usize, max_length);

    let accuracy = (counts.labelled > 0).then(|| counts.right as f64 / counts.labelled as f64);
    Ok(CacheReport {
        rows: counts.rows,
        unique: counts.forwarded + counts.skipped,
        forwarded: counts.forwarded,
        skipped: counts.skipped,
        truncated: counts.truncated,
        bytes: counts.bytes,
        accuracy,
        rows_per_second: counts.forwarded as f64 / counts.elapsed.as_secs_f64().max(1e-9),
        forward_seconds: counts.forward.as_secs_f64(),
        waited_seconds: counts.waited.as_secs_f64(),
        seconds: start.elapsed().as_secs_f64(),
        output: how.output.display().to_string(),
    })
}

/// Refuses a cache whose answers no teacher can give again.
fn refuse_made_elsewhere(dir: &Path) -> anyhow::Result<()> {
    let Ok(cache) = CacheReader::open(dir, None) else { return Ok(()) };
    let made = match cache.fingerprint() {
        print if print.average.is_some() => "are the mean of several teachers'",
        print if print.keyed_by_text() => "were imported",
        _ => return Ok(()),
    };
    bail!(
        "{}: its answers {made}; --refresh would replace them by this teacher's: choose another --output",
        dir.display()
    )
}

/// What of a cache is kept, in words.
fn say_stale(stale: &Stale) {
    match stale {
        Stale::Nothing => ui::say("the cache is up to date with this teacher"),
        Stale::Length => ui::say("another length: the texts that are cut elsewhere now are captured anew"),
        Stale::Order(_) => ui::say(
            "the same classes otherwise ordered or named: the stored logits are put in order, and missing rows captured",
        ),
        Stale::Everything(difference) => ui::say(format!("everything is captured anew: {difference}")),
    }
}
