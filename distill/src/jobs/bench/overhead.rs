//! Measures what writing adds to a capture: the same rows in the same batches through the same pipeline, alternately
//! with all outputs written to a cache and with all outputs discarded. Both include tokenising and forward passes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cache::{CacheWriter, Captured, NewCache};
use datasets::TextTokenizer;
use serde::Serialize;

use super::clock::{Budget, Times};
use super::made_up::made_up_fingerprint;
use super::rows::Rows;
use crate::jobs::capture::{Asked, Source, Windows, rehearse};
use crate::tasks::Targets;
use crate::ui::{self, Table, percent};

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Overhead {
    stored: Captured,
    /// One pass over the rows with every answer dropped.
    dropped: Times,
    /// The same with every answer written, up to the last byte on the disk.
    written: Times,
    /// By how much `written` is slower, from each pair of neighbours.
    of_pairs: Vec<f64>,
    /// Their median.
    overhead: f64,
    /// The same of the processor's seconds in all threads, which say less of the disk and more of a busy machine; none where
    /// the system does not say.
    processor_overhead: Option<f64>,
    /// In which the teacher waited for a place to put its answers, a figure a repeat.
    waited_seconds: Vec<f64>,
    /// Of the cache.
    bytes: u64,
}

/// Captures the rows in turns, in new folders within `dir`, which are removed afterwards.
pub(super) fn measure(
    dir: &Path,
    model: &mut Asked,
    tokenizer: &TextTokenizer,
    rows: &Rows,
    batch_tokens: usize,
    budget: Budget,
) -> anyhow::Result<Overhead> {
    let source = Source::Rows { rows: &rows.texts, labels: &rows.labels };
    let max_length = rows.max_length;
    let windows =
        Windows { source: &source, tokenizer, names: None, targets: &Targets::Labels, max_length, batch_tokens };
    let fingerprint = made_up_fingerprint("bench capture", model.captured());
    let new = NewCache { fingerprint: &fingerprint, batch_tokens, attachments: &[] };
    fs::create_dir_all(dir)?;
    let mut pass = |written: bool| -> anyhow::Result<Pass> {
        let folder = tempfile::tempdir_in(dir)?;
        let writer = CacheWriter::create_or_resume(folder.path(), &new)?;
        let before = processor_seconds();
        let counts = rehearse(&windows, model, writer, written)?;
        let processor = before.zip(processor_seconds()).map(|(before, after)| after - before);
        let (elapsed, waited) = (counts.elapsed.as_secs_f64(), counts.waited);
        Ok(Pass { elapsed, processor, waited, bytes: counts.bytes })
    };
    pass(true)?;
    let (mut dropped, mut written) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while !budget.is_spent(dropped.len(), start) {
        // Whichever comes first, the other has the warmer machine.
        let first = dropped.len() % 2 == 0;
        for writes in [!first, first] {
            if writes { written.push(pass(true)?) } else { dropped.push(pass(false)?) }
        }
    }
    let ratios = |of: fn(&Pass) -> Option<f64>| -> Option<Vec<f64>> {
        dropped.iter().zip(&written).map(|(dropped, written)| Some(of(written)? / of(dropped)? - 1.0)).collect()
    };
    let median = |ratios: Vec<f64>| Times::of(1, ratios).median_seconds;
    let times = |passes: &[Pass]| Times::of(1, passes.iter().map(|pass| pass.elapsed).collect());
    let of_pairs = ratios(|pass| Some(pass.elapsed)).unwrap_or_default();
    Ok(Overhead {
        stored: fingerprint.captured.clone(),
        dropped: times(&dropped),
        written: times(&written),
        overhead: median(of_pairs.clone()),
        of_pairs,
        processor_overhead: ratios(|pass| pass.processor.filter(|&seconds| seconds > 0.0)).map(median),
        waited_seconds: written.iter().map(|pass| pass.waited.as_secs_f64()).collect(),
        bytes: written.last().map_or(0, |pass| pass.bytes),
    })
}

/// One pass over the rows.
struct Pass {
    elapsed: f64,
    processor: Option<f64>,
    waited: Duration,
    bytes: u64,
}

impl Overhead {
    pub(super) fn text(&self) -> String {
        let mut table = Table::new(["writing", ""]);
        let mut row = |what: &str, figure: String| {
            table.row([what.to_string(), figure]);
        };
        let slowest = self.of_pairs.iter().copied().fold(f64::MIN, f64::max);
        let fastest = self.of_pairs.iter().copied().fold(f64::MAX, f64::min);
        row("seconds, answers dropped", format!("{:.3}", self.dropped.median_seconds));
        row("seconds, answers written", format!("{:.3}", self.written.median_seconds));
        row("slower by", percent(self.overhead));
        row("from pair to pair", format!("{} to {}", percent(fastest), percent(slowest)));
        row("more of the processor", self.processor_overhead.map_or("-".to_string(), percent));
        row("bytes", ui::bytes(self.bytes));
        table.to_string()
    }
}

/// Seconds that all threads of this process have run, as Linux counts them: in hundredths.
fn processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything, stand the state and ten more fields.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}
