//! The parallel stages of a capture: read and tokenise, run the teacher, write.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use cache::{CacheReader, CacheWriter, LogitForm};
use datasets::{Key, TokenBatch, forward_batches};

use super::asked::Asked;
use super::windows::{Window, Windows};
use super::writing::{Answers, Published, Unfinished, discard, write};
use crate::interrupt;
use crate::signal::cached;
use crate::telemetry::Progress;

/// Windows that wait to be run, and batches that wait to be written.
const WAITING: usize = 2;

/// Runs a capture and says what went through.
pub(super) fn run(
    windows: &Windows<'_>,
    model: &mut Asked,
    writer: CacheWriter,
    progress: &Progress,
) -> anyhow::Result<Counts> {
    run_all(windows, model, writer, write, progress)
}

/// Runs a capture into a new cache and says what went through; where nothing is to be `written`, the same with the
/// teacher's answers dropped in the last stage.
pub(crate) fn rehearse(
    windows: &Windows<'_>,
    model: &mut Asked,
    writer: CacheWriter,
    written: bool,
) -> anyhow::Result<Counts> {
    let progress = Progress::new("capture", 0, "rows");
    run_all(windows, model, writer, if written { write } else { discard }, &progress)
}

/// The last stage.
type Writing = fn(CacheWriter, Receiver<Answers>, &Published) -> anyhow::Result<CacheWriter>;

/// What went through.
#[derive(Default)]
pub(crate) struct Counts {
    pub(super) rows: u64,
    pub(super) forwarded: u64,
    pub(super) skipped: u64,
    pub(super) truncated: u64,
    pub(super) labelled: u64,
    pub(super) right: u64,
    pub(crate) bytes: u64,
    pub(super) forward: Duration,
    pub(crate) waited: Duration,
    pub(crate) elapsed: Duration,
}

/// Runs all stages side by side until the data ends or one of them fails.
fn run_all(
    windows: &Windows<'_>,
    model: &mut Asked,
    writer: CacheWriter,
    write: Writing,
    progress: &Progress,
) -> anyhow::Result<Counts> {
    let start = Instant::now();
    let published = Published::new(writer.reader().clone());
    thread::scope(|scope| {
        let (to_forward, ready) = sync_channel(WAITING);
        let reading = scope.spawn(move || windows.each(|window| to_forward.send(window).is_ok()));
        let (to_write, answered) = sync_channel(WAITING);
        let published = &published;
        let writing = scope.spawn(move || write(writer, answered, published));

        let mut forwarding = Forwarding::new(published, windows.batch_tokens);
        let forwarded = ready.iter().try_for_each(|window| {
            let rows = window.keys.len() as u64;
            forwarding.window(&window, model, |answers| {
                let clock = Instant::now();
                // Where nobody takes them, writing has failed and says why itself.
                let taken = to_write.send(answers).is_ok();
                (taken, clock.elapsed())
            })?;
            progress.inc(rows);
            Ok::<_, anyhow::Error>(())
        });
        drop((ready, to_write));
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The first cause: what fails to be written ends the forward passes, and these end the reading.
        let writer = match (written, forwarded) {
            (Err(error), Ok(()) | Err(_)) if !error.is::<Unfinished>() => return Err(error),
            (_, Err(error)) => return Err(error),
            (written, Ok(())) => written?,
        };
        read?;
        let mut counts = forwarding.counts;
        counts.bytes = writer.bytes();
        counts.elapsed = start.elapsed();
        Ok(counts)
    })
}

/// Decides what of each window is run, runs it, and counts.
struct Forwarding<'a> {
    published: &'a Published,
    batch_tokens: usize,
    /// Rows committed when the capture began.
    before: u64,
    /// Which of these the data had already, a bit each.
    met: Vec<u64>,
    /// The keys of windows whose commit has not been seen yet, each with the class that the teacher chose.
    in_flight: Vec<(u64, HashMap<Key, u32>)>,
    windows: u64,
    counts: Counts,
}

impl<'a> Forwarding<'a> {
    fn new(published: &'a Published, batch_tokens: usize) -> Self {
        let before = published.reader().0.next_number();
        let (met, counts) = (vec![0; before.div_ceil(64) as usize], Counts::default());
        Self { published, batch_tokens, before, met, in_flight: Vec::new(), windows: 0, counts }
    }

    /// Runs what of a window nobody has yet, and hands it on; `send` says whether it was taken, and after how long.
    fn window(
        &mut self,
        window: &Window,
        model: &mut Asked,
        mut send: impl FnMut(Answers) -> (bool, Duration),
    ) -> anyhow::Result<()> {
        // Where all rows are cached, no forward pass asks.
        interrupt::check()?;
        let (reader, committed) = self.published.reader();
        self.in_flight.retain(|(number, _)| *number >= committed);
        let missing = self.missing(window, &reader)?;
        let lengths: Vec<u32> = missing.iter().map(|&row| window.encodings.length(row as usize)).collect();
        let batches = forward_batches(&lengths, self.batch_tokens);
        let batches = batches.iter().map(|batch| {
            let rows: Vec<u32> = batch.iter().map(|&index| missing[index as usize]).collect();
            TokenBatch::gather(&window.encodings, &rows)
        });
        let mut chosen = HashMap::with_capacity(missing.len());
        let clock = Instant::now();
        let mut waited = Duration::ZERO;
        let form = model.captured().clone();
        let mut hand_on = |mut answers: Answers| {
            answers.keys = answers.rows.iter().map(|&row| window.keys[row as usize]).collect();
            let first_outputs = answers.first_outputs(&form);
            chosen.extend(answers.keys.iter().copied().zip(first_outputs));
            let (taken, after) = send(answers);
            waited += after;
            if taken { Ok(()) } else { Err(anyhow::Error::new(Unfinished)) }
        };
        model.each(batches, &mut hand_on)?;
        if !missing.is_empty() {
            hand_on(Answers::end_of_window())?;
        }
        self.counts.forward += clock.elapsed().saturating_sub(waited);
        self.counts.waited += waited;
        self.counts.rows += window.keys.len() as u64;
        self.counts.forwarded += missing.len() as u64;
        self.counts.truncated += window.encodings.truncated_count() as u64;
        if !missing.is_empty() {
            self.in_flight.push((self.windows, chosen));
            self.windows += 1;
        }
        self.count_right(window, &reader)
    }

    /// The first row of each key that is neither in the cache nor on its way there.
    fn missing(&mut self, window: &Window, reader: &CacheReader) -> anyhow::Result<Vec<u32>> {
        let mut new = HashSet::new();
        let mut missing = Vec::new();
        for (row, key) in window.keys.iter().enumerate() {
            if self.in_flight.iter().any(|(_, keys)| keys.contains_key(key)) {
                continue;
            }
            match reader.number(key)? {
                Some(number) if u64::from(number) < self.before => {
                    let (word, bit) = (&mut self.met[number as usize / 64], 1 << (number % 64));
                    self.counts.skipped += u64::from(*word & bit == 0);
                    *word |= bit;
                }
                Some(_) => {}
                None if new.insert(key) => missing.push(row as u32),
                None => {}
            }
        }
        Ok(missing)
    }

    /// Compares the teacher's choices, as they are stored, with the labels of a window; a sample tells none for certain.
    fn count_right(&mut self, window: &Window, reader: &CacheReader) -> anyhow::Result<()> {
        if matches!(reader.captured().logits, LogitForm::Sample { .. }) {
            return Ok(());
        }
        for (key, label) in window.keys.iter().zip(&window.labels) {
            let Some(label) = label else { continue };
            let fresh = self.in_flight.iter().rev().find_map(|(_, chosen)| chosen.get(key).copied());
            let choice = match fresh {
                Some(choice) => Some(choice),
                None => cached::choice(reader, key)?,
            };
            self.counts.labelled += u64::from(choice.is_some());
            self.counts.right += u64::from(choice == Some(*label));
        }
        Ok(())
    }
}
