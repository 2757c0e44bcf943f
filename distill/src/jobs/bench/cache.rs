//! Benchmarks writing and reading a cache of synthetic rows, and measures its size.
//!
//! Rows are written through [`CacheWriter`] in commits, like a capture's. Another process reads them, so that memory
//! left over from writing does not distort the reader's. Keys, logits and the order of reading are functions of the
//! seed and the row's number, so none of them is stored: they are computed for a few rows at a time, with the clock
//! stopped.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cache::{CacheReader, CacheWriter, Captured, Dtype, Fingerprint, Key, NewCache, NewRow, StoredRow};
use serde::{Deserialize, Serialize};

use super::made_up::{made_up_fingerprint, number};
use crate::interrupt;
use crate::memory;
use crate::ui::{self, Table};

/// Rows that are made before the clock runs on.
const PORTION: usize = 1024;

/// What `bench cache` prints.
#[derive(Debug, Serialize)]
pub(crate) struct CacheReport {
    bench: &'static str,
    threads: usize,
    seed: u64,
    rows: usize,
    labels: usize,
    dtype: Dtype,
    /// None where the cache was there.
    writing: Option<Writing>,
    files: Files,
    reading: Reading,
}

/// How long writing took.
#[derive(Debug, Serialize)]
struct Writing {
    commit_rows: usize,
    seconds: f64,
    rows_per_second: f64,
    /// Parts of `seconds`: taking rows in, committing them, and merging the index at the end.
    push_seconds: f64,
    commit_seconds: f64,
    finish_seconds: f64,
    /// In which one plain file of as many bytes was written and flushed, right after.
    plain_file_seconds: f64,
}

/// The room that a cache takes.
#[derive(Debug, Serialize)]
struct Files {
    files: usize,
    /// Of all of them, the manifest too.
    bytes: u64,
    /// Of the logits alone.
    payload_bytes: u64,
    /// 1.15 times the payload and 24 bytes a row.
    allowed_bytes: u64,
}

/// What the reading process found.
#[derive(Debug, Serialize, Deserialize)]
struct Reading {
    open_seconds: f64,
    /// Every row once in random order, by its key.
    passes: Vec<Pass>,
    anonymous_memory_bytes: Option<AnonymousMemory>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Pass {
    threads: usize,
    /// Whether pages were mapped and blocks checked in it, since no pass was before.
    first: bool,
    /// Whether the keys of a portion were looked up together, as training does, or one after the other.
    at_once: bool,
    rows_per_second: f64,
}

/// What the reading process took besides the pages of files.
#[derive(Debug, Serialize, Deserialize)]
struct AnonymousMemory {
    /// More after opening than before.
    open: u64,
    /// More after the passes of one thread than before opening.
    read: u64,
    /// All of it then, the program's own included.
    process: u64,
}

/// The cache to write and read.
pub(crate) struct CacheBench {
    pub(crate) rows: usize,
    /// Logits of a row.
    pub(crate) labels: usize,
    pub(crate) dtype: Dtype,
    pub(crate) commit_rows: usize,
    pub(crate) seed: u64,
    /// A temporary one where none is given.
    pub(crate) output: Option<PathBuf>,
    /// Whether the cache is there, and only read.
    pub(crate) reuse: bool,
}

/// Writes a cache and has it read.
pub(crate) fn run(args: &CacheBench) -> anyhow::Result<CacheReport> {
    let temporary = match args.output {
        Some(_) => None,
        None => Some(tempfile::tempdir().context("no temporary folder")?),
    };
    let dir = args.output.as_deref().or(temporary.as_ref().map(tempfile::TempDir::path));
    let dir = dir.context("no folder")?;
    let made_up = MadeUp { seed: args.seed, rows: args.rows as u64, labels: args.labels };
    let (writing, reading) = match args.reuse {
        true => (None, read(dir, &made_up)?),
        false => (Some(write(dir, &made_up, args)?), read_elsewhere(dir, args)?),
    };
    Ok(CacheReport {
        bench: "cache",
        threads: rayon::current_num_threads(),
        seed: args.seed,
        rows: args.rows,
        labels: args.labels,
        dtype: args.dtype,
        writing,
        files: Files::of(dir, args)?,
        reading,
    })
}

/// Rows whose keys and logits are functions of their numbers.
struct MadeUp {
    seed: u64,
    rows: u64,
    labels: usize,
}

impl MadeUp {
    fn fingerprint(&self, dtype: Dtype) -> Fingerprint {
        made_up_fingerprint(&format!("bench cache, seed {}", self.seed), &Captured::dense(self.labels, dtype))
    }

    /// As random as a hash, and no two alike.
    fn key(&self, row: u64) -> Key {
        let mut key = Key::default();
        key[..8].copy_from_slice(&number(self.seed, row).to_le_bytes());
        key[8..].copy_from_slice(&number(!self.seed, row).to_le_bytes());
        key
    }

    /// Appends a row's logits: multiples of 1/16 from -8 to 8, which every number format holds and every order adds up
    /// to the same sum.
    fn logits(&self, row: u64, logits: &mut Vec<f32>) {
        let end = logits.len() + self.labels;
        let words = self.labels.div_ceil(8) as u64;
        for word in 0..words {
            let bytes = number(self.seed.rotate_left(32), row * words + word).to_le_bytes();
            logits.extend(bytes.map(|byte| f32::from(byte.cast_signed()) / 16.0));
        }
        logits.truncate(end);
    }

    /// The row to read at this place of a random order: a Feistel network over the next power of four, gone through until
    /// it gives a row.
    fn shuffled(&self, place: u64) -> u64 {
        let half = (u64::BITS - self.rows.leading_zeros()).div_ceil(2);
        let mask = (1 << half) - 1;
        let mut place = place;
        loop {
            let (mut left, mut right) = (place >> half, place & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (number(self.seed ^ round, right) & mask));
            }
            place = left << half | right;
            if place < self.rows {
                return place;
            }
        }
    }
}

/// Writes all rows and commits them in portions; making them is not counted.
fn write(dir: &Path, made_up: &MadeUp, args: &CacheBench) -> anyhow::Result<Writing> {
    let fingerprint = made_up.fingerprint(args.dtype);
    let new = NewCache { fingerprint: &fingerprint, batch_tokens: 0, attachments: &[] };
    let mut writer = CacheWriter::create_or_resume(dir, &new)?;
    if writer.rows() > 0 {
        bail!("{}: there is a cache already; give --reuse to read it, or another --output", dir.display());
    }
    let [mut push, mut commit] = [Duration::ZERO; 2];
    let (mut keys, mut logits) = (Vec::new(), Vec::new());
    for first in (0..made_up.rows).step_by(PORTION) {
        interrupt::check()?;
        keys.clear();
        logits.clear();
        for row in first..made_up.rows.min(first + PORTION as u64) {
            keys.push(made_up.key(row));
            made_up.logits(row, &mut logits);
        }
        let logits_of = logits.chunks_exact(made_up.labels);
        let rows =
            keys.iter().zip(logits_of).map(|(&key, logits)| NewRow { key, logits: logits.into(), hidden_states: &[] });
        let rows: Vec<NewRow<'_>> = rows.collect();
        let clock = Instant::now();
        writer.push(&rows)?;
        push += clock.elapsed();
        if writer.pending() >= args.commit_rows {
            let clock = Instant::now();
            writer.commit()?;
            commit += clock.elapsed();
        }
    }
    let clock = Instant::now();
    writer.commit()?;
    commit += clock.elapsed();
    let clock = Instant::now();
    writer.finish()?;
    let finish = clock.elapsed();
    let seconds = (push + commit + finish).as_secs_f64();
    Ok(Writing {
        commit_rows: args.commit_rows,
        seconds,
        rows_per_second: made_up.rows as f64 / seconds,
        push_seconds: push.as_secs_f64(),
        commit_seconds: commit.as_secs_f64(),
        finish_seconds: finish.as_secs_f64(),
        plain_file_seconds: write_plain(dir, writer.bytes())?.as_secs_f64(),
    })
}

/// Writes a nameless file of so many bytes, and flushes it.
fn write_plain(dir: &Path, bytes: u64) -> anyhow::Result<Duration> {
    let block: Vec<u8> = (0..1 << 17).flat_map(|index| number(0, index).to_le_bytes()).collect();
    let write = || -> io::Result<Duration> {
        let mut file: File = tempfile::tempfile_in(dir)?;
        let clock = Instant::now();
        let mut left = bytes as usize;
        while left > 0 {
            let part = left.min(block.len());
            file.write_all(&block[..part])?;
            left -= part;
        }
        file.sync_all()?;
        Ok(clock.elapsed())
    };
    write().with_context(|| format!("{}: cannot write a plain file", dir.display()))
}

/// Has another process read the cache, and takes over what it found.
fn read_elsewhere(dir: &Path, args: &CacheBench) -> anyhow::Result<Reading> {
    #[derive(Deserialize)]
    struct Found {
        reading: Reading,
    }
    let program = std::env::current_exe().context("this program's own file is not known")?;
    let output = Command::new(program)
        .args(["bench", "cache", "--reuse", "--json", "--output"])
        .arg(dir)
        .arg(format!("--threads={}", rayon::current_num_threads()))
        .arg(format!("--rows={}", args.rows))
        .arg(format!("--labels={}", args.labels))
        .arg(format!("--seed={}", args.seed))
        .output()
        .context("cannot start the process that reads")?;
    interrupt::check()?;
    ensure!(output.status.success(), "reading failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let found: Found = serde_json::from_slice(&output.stdout).context("the process that reads said something else")?;
    Ok(found.reading)
}

/// Opens the cache and reads every row by its key, in random order: by one thread twice, then by several.
fn read(dir: &Path, made_up: &MadeUp) -> anyhow::Result<Reading> {
    // What a pass needs of its own is there before memory is looked at.
    let mut portion = Portion::default();
    portion.make(made_up, 0..made_up.rows.min(PORTION as u64));
    let before = memory::anonymous();
    let clock = Instant::now();
    let reader = CacheReader::open(dir, Some(&made_up.fingerprint(Dtype::F32)))?;
    let open_seconds = clock.elapsed().as_secs_f64();
    let opened = memory::anonymous();
    if reader.len() as u64 != made_up.rows {
        bail!("{}: {} rows; give them as --rows", dir.display(), reader.len());
    }
    let mut passes = Vec::new();
    for (first, at_once) in [(true, false), (false, false), (false, true)] {
        let clock = read_part(&reader, made_up, 0..made_up.rows, at_once, &mut portion)?;
        let rows_per_second = made_up.rows as f64 / clock.as_secs_f64().max(1e-9);
        passes.push(Pass { threads: 1, first, at_once, rows_per_second });
    }
    let after = memory::anonymous();
    let most_threads = rayon::current_num_threads().max(2);
    let mut threads = 2;
    while threads <= most_threads {
        let rows_per_second = read_side_by_side(&reader, made_up, threads)?;
        passes.push(Pass { threads, first: false, at_once: true, rows_per_second });
        threads *= 2;
    }
    let memory = before.zip(opened).zip(after).map(|((before, opened), after)| AnonymousMemory {
        open: opened.saturating_sub(before),
        read: after.saturating_sub(before),
        process: after,
    });
    Ok(Reading { open_seconds, passes, anonymous_memory_bytes: memory })
}

/// Rows a second of all threads together, each of which reads another part.
fn read_side_by_side(reader: &CacheReader, made_up: &MadeUp, threads: usize) -> anyhow::Result<f64> {
    let share = made_up.rows.div_ceil(threads as u64);
    thread::scope(|scope| {
        let mut reading = Vec::with_capacity(threads);
        for first in (0..made_up.rows).step_by(share as usize) {
            let places = first..made_up.rows.min(first + share);
            let rows = (places.end - places.start) as f64;
            reading.push(scope.spawn(move || {
                let clock = read_part(reader, made_up, places, true, &mut Portion::default())?;
                anyhow::Ok(rows / clock.as_secs_f64().max(1e-9))
            }));
        }
        let joined = reading.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.sum()
    })
}

/// Some rows to read, with what is to be found.
#[derive(Default)]
struct Portion {
    keys: Vec<Key>,
    /// The sum of each row's logits, as it was written and as it was read.
    expected: Vec<f32>,
    found: Vec<Option<f32>>,
    logits: Vec<f32>,
}

impl Portion {
    fn make(&mut self, made_up: &MadeUp, places: std::ops::Range<u64>) {
        self.keys.clear();
        self.expected.clear();
        self.found.clear();
        for place in places {
            let row = made_up.shuffled(place);
            self.logits.clear();
            made_up.logits(row, &mut self.logits);
            self.keys.push(made_up.key(row));
            self.expected.push(sum(&self.logits));
        }
        self.found.reserve(self.keys.len());
    }
}

/// Reads the rows at these places of the order, adds up the logits of each, and compares the sums with those of the rows
/// that were written. Returns for how long it read.
fn read_part(
    reader: &CacheReader,
    made_up: &MadeUp,
    places: std::ops::Range<u64>,
    at_once: bool,
    portion: &mut Portion,
) -> anyhow::Result<Duration> {
    let mut reading = Duration::ZERO;
    for first in places.clone().step_by(PORTION) {
        interrupt::check()?;
        portion.make(made_up, first..places.end.min(first + PORTION as u64));
        let clock = Instant::now();
        let Portion { keys, logits, found, .. } = portion;
        let mut add_up = |row: Option<StoredRow<'_>>| {
            logits.clear();
            if let Some(row) = row {
                row.append_logits(logits);
            }
            found.push(row.map(|_| sum(logits)));
        };
        match at_once {
            true => reader.get_many(keys, |_, row| add_up(row))?,
            false => keys.iter().try_for_each(|key| reader.get(key).map(&mut add_up))?,
        }
        reading += clock.elapsed();
        for ((key, expected), found) in portion.keys.iter().zip(&portion.expected).zip(&portion.found) {
            if Some(*expected) != *found {
                bail!("the row with key {} adds up to {found:?}, not to {expected}", cache::key_hex(key));
            }
        }
    }
    Ok(reading)
}

/// Of numbers that any order adds up to the same: several sums side by side.
fn sum(logits: &[f32]) -> f32 {
    let (chunks, rest) = logits.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, logit)| *sum += logit);
    }
    sums.iter().chain(rest).sum()
}

impl Files {
    fn of(dir: &Path, args: &CacheBench) -> anyhow::Result<Self> {
        let (mut files, mut bytes) = (0, 0);
        let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
        for entry in entries {
            let length = entry.and_then(|entry| entry.metadata()).with_context(|| dir.display().to_string())?.len();
            files += 1;
            bytes += length;
        }
        let payload_bytes = (args.rows * args.labels * args.dtype.bytes()) as u64;
        let allowed_bytes = payload_bytes + payload_bytes * 15 / 100 + 24 * args.rows as u64;
        Ok(Self { files, bytes, payload_bytes, allowed_bytes })
    }
}

impl CacheReport {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(["bench cache", ""]);
        let mut row = |what: &str, figure: String| {
            table.row([what.to_string(), figure]);
        };
        let per_second = |rows: f64| ui::count(rows.round() as u64);
        row("rows", ui::count(self.rows as u64));
        if let Some(writing) = &self.writing {
            row("rows written a second", per_second(writing.rows_per_second));
            row("seconds of writing", format!("{:.2}", writing.seconds));
            row("of these, taking rows in", format!("{:.2}", writing.push_seconds));
            row("commits", format!("{:.2}", writing.commit_seconds));
            row("merging the index", format!("{:.2}", writing.finish_seconds));
            row("seconds of a plain file as large", format!("{:.2}", writing.plain_file_seconds));
        }
        row("bytes of all files", ui::bytes(self.files.bytes));
        row("bytes of the logits", ui::bytes(self.files.payload_bytes));
        let share = self.files.bytes as f64 / self.files.allowed_bytes as f64;
        row("of 1.15 times these and 24 bytes a row", ui::percent(share));
        row("milliseconds to open", format!("{:.2}", 1e3 * self.reading.open_seconds));
        for pass in &self.reading.passes {
            let what = match (pass.first, pass.at_once, pass.threads) {
                (true, ..) => "rows read a second, blocks checked".to_owned(),
                (_, false, _) => "again".to_owned(),
                (_, true, 1) => "as training reads, many at once".to_owned(),
                (_, true, threads) => format!("{threads} threads"),
            };
            row(&what, per_second(pass.rows_per_second));
        }
        if let Some(memory) = &self.reading.anonymous_memory_bytes {
            row("memory of the reader, opened", ui::bytes(memory.open));
            row("memory of the reader, after reading", ui::bytes(memory.read));
        }
        let dtype = self.dtype.bytes() * 8;
        format!("{table}\n{} labels in {dtype} bits, {} threads", self.labels, self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_has_every_row_once() {
        for rows in [1, 2, 5, 1000] {
            let made_up = MadeUp { seed: 7, rows, labels: 1 };
            let mut order: Vec<u64> = (0..rows).map(|place| made_up.shuffled(place)).collect();
            assert!(rows < 1000 || !order.is_sorted());
            order.sort_unstable();
            assert!(order.into_iter().eq(0..rows), "{rows}");
        }
    }

    #[test]
    fn logits_are_the_same_in_every_format() {
        let made_up = MadeUp { seed: 7, rows: 1, labels: 77 };
        let mut logits = Vec::new();
        made_up.logits(5, &mut logits);
        assert_eq!(logits.len(), 77);
        assert!(logits.iter().all(|&logit| half::bf16::from_f32(logit).to_f32() == logit));
        assert!(logits.iter().all(|&logit| half::f16::from_f32(logit).to_f32() == logit));
    }
}
