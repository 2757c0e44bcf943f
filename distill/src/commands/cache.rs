//! `distill cache`: runs the frozen teacher over a data set and stores what it says.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Instant;

use cache::{CacheReader, CacheWriter};
use datasets::{Encodings, TokenBatch, forward_batches};
use serde::Serialize;
use teacher::Teacher;

use crate::cli::CacheArgs;
use crate::fingerprint;
use crate::hint::HintExt;
use crate::inference::{Running, announce, forward_each};
use crate::interrupt::Interrupted;
use crate::metrics;
use crate::model::{self, TextModel};
use crate::recipe::ColumnsRecipe;
use crate::task_data;
use crate::ui::{self, Progress, Table, Ui};

/// Batches between two commits: what a kill costs at most.
const COMMIT_BATCHES: usize = 16;

/// Stores what a teacher says of a data set.
pub(crate) fn run(args: CacheArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let columns = ColumnsRecipe::from(&args.columns);
    let mut teacher = model::load_classifier(&args.teacher, &args.hub)?;
    let names = teacher.name_labels(&columns.label_names)?;
    let split = task_data::read(&args.data, &columns, Some(&names))?;
    let max_length = teacher.max_length(columns.max_length)?;
    let report = capture(
        teacher,
        &split,
        max_length,
        &Capturing {
            output: &args.output.output,
            overwrite: args.output.overwrite,
            running: Running { compute: &compute, batch_tokens: args.compute.batch_tokens },
            force: args.force,
        },
    )?;
    ui.result(&report, CacheReport::text)?;
    Ok(())
}

/// How a capture runs.
pub(crate) struct Capturing<'a> {
    pub(crate) output: &'a Path,
    pub(crate) overwrite: bool,
    pub(crate) running: Running<'a>,
    /// Goes on with a teacher no better than chance.
    pub(crate) force: bool,
}

/// What `cache` prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CacheReport {
    /// Rows of the data.
    rows: usize,
    /// Of these, different in what the teacher reads.
    unique: usize,
    /// Run through the teacher now.
    pub(crate) forwarded: usize,
    /// Of the unique rows, in the cache before.
    skipped: usize,
    /// Rows that were longer than the teacher reads.
    truncated: usize,
    /// Of all shards.
    bytes: u64,
    /// On the labelled rows.
    accuracy: Option<f64>,
    rows_per_second: f64,
    seconds: f64,
    output: String,
}

/// Runs the teacher over the rows that the cache does not have yet.
pub(crate) fn capture(
    teacher: TextModel,
    split: &task_data::Split,
    max_length: usize,
    how: &Capturing<'_>,
) -> anyhow::Result<CacheReport> {
    let start = Instant::now();
    let names = datasets::LabelNames::new(teacher.config.labels.clone())?;
    let fingerprint = fingerprint::of_teacher(&teacher, &names, max_length)?;
    let encodings = teacher.tokenizer.encode(&split.rows, max_length)?;
    model::report_truncated(encodings.truncated_count(), encodings.len(), max_length);
    let keys: Vec<_> = (0..encodings.len()).map(|row| encodings.key(row)).collect();
    if how.overwrite {
        cache::remove(how.output)?;
    }
    let mut writer = CacheWriter::create_or_resume(how.output, &fingerprint, names.len())?;

    let mut seen = HashSet::new();
    let unique: Vec<u32> = (0..keys.len() as u32).filter(|&row| seen.insert(keys[row as usize])).collect();
    let missing: Vec<u32> = unique.iter().copied().filter(|&row| !writer.contains(&keys[row as usize])).collect();
    let lengths: Vec<u32> = missing.iter().map(|&row| encodings.length(row as usize)).collect();
    announce(how.running.compute);
    let mut model = Teacher::on(how.running.compute, teacher.config, teacher.parameters)?;
    let progress = Progress::new("cache", missing.len() as u64, "rows");
    let clock = Instant::now();
    // Longest first, cut by tokens: what is left after a stop is cut as it would have been without it.
    let batches = forward_batches(&lengths, how.running.batch_tokens);
    let batches = batches.iter().map(|batch| {
        let rows: Vec<u32> = batch.iter().map(|&index| missing[index as usize]).collect();
        TokenBatch::gather(&encodings, &rows)
    });
    let mut done = 0;
    let forwarded = forward_each(&mut model, batches, |rows, logits| {
        for (&row, logits) in rows.iter().zip(logits.chunks_exact(names.len())) {
            writer.push(keys[row as usize], logits)?;
        }
        done += 1;
        if done % COMMIT_BATCHES == 0 {
            writer.commit()?;
        }
        progress.inc(rows.len() as u64);
        Ok(())
    });
    match forwarded {
        Err(error) if error.is::<Interrupted>() => return Err(error).hint("the same command goes on from here"),
        forwarded => forwarded?,
    }
    writer.commit()?;
    progress.finish();
    let elapsed = clock.elapsed().as_secs_f64();
    let bytes = writer.bytes();
    drop(writer);

    let accuracy = accuracy(how.output, &encodings, &split.labels, names.len())?;
    if let (Some((accuracy, labelled)), false) = (accuracy, how.force) {
        task_data::refuse_chance(accuracy, labelled, names.len())?;
    }
    Ok(CacheReport {
        rows: keys.len(),
        unique: unique.len(),
        forwarded: missing.len(),
        skipped: unique.len() - missing.len(),
        truncated: encodings.truncated_count(),
        bytes,
        accuracy: accuracy.map(|(accuracy, _)| accuracy),
        rows_per_second: missing.len() as f64 / elapsed.max(1e-9),
        seconds: start.elapsed().as_secs_f64(),
        output: how.output.display().to_string(),
    })
}

/// The cached teacher's accuracy on the rows that have labels, and how many they are.
fn accuracy(
    dir: &Path,
    encodings: &Encodings,
    labels: &[Option<u32>],
    classes: usize,
) -> anyhow::Result<Option<(f64, usize)>> {
    let reader = CacheReader::open(dir, None)?;
    Ok(cached_accuracy(&reader, |row| encodings.key(row), labels, classes))
}

/// The cached teacher's accuracy on the labelled rows whose logits are cached, and how many they are.
pub(crate) fn cached_accuracy(
    reader: &CacheReader,
    key: impl Fn(usize) -> datasets::Key,
    labels: &[Option<u32>],
    classes: usize,
) -> Option<(f64, usize)> {
    let mut counts: BTreeMap<bool, usize> = BTreeMap::new();
    for (row, label) in labels.iter().enumerate() {
        if let (Some(label), Some(logits)) = (label, reader.get(&key(row))) {
            let right = metrics::predictions(logits, classes).first() == Some(label);
            *counts.entry(right).or_default() += 1;
        }
    }
    let labelled = counts.values().sum::<usize>();
    let right = counts.get(&true).copied().unwrap_or(0);
    (labelled > 0).then(|| (right as f64 / labelled as f64, labelled))
}

impl CacheReport {
    fn text(&self) -> String {
        let mut table = Table::new(["cache", ""]);
        for (what, number) in [
            ("rows", self.rows),
            ("unique", self.unique),
            ("forwarded", self.forwarded),
            ("skipped", self.skipped),
            ("truncated", self.truncated),
        ] {
            table.row([what.to_string(), ui::count(number as u64)]);
        }
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        if let Some(accuracy) = self.accuracy {
            table.row(["teacher's accuracy".to_string(), format!("{accuracy:.4}")]);
        }
        format!("{table}\nwritten: {}", self.output)
    }
}
