//! The capture pipeline: rows are read and tokenised, run through the teacher, encoded and written, all at once.
//!
//! Data goes through in windows of sixteen forward batches or a few more, which are a function of the data and of the cache's
//! batch size alone. A window is committed whole, so what a kill leaves is a number of whole windows, and the next capture of
//! the same data forms the same batches for the rest. Memory holds a few windows, whatever the size of the data.

mod windows;
mod writing;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cache::{CacheReader, CacheWriter, Captured, HiddenStates, HiddenTokens, LogitForm, NewCache, Outputs, Stale};
use datasets::{Key, LabelNames, TokenBatch, forward_batches};
use nn::hf::HfConfig;
use nn::{Compute, Head, Mode, Model, PackedInput, Parameters, Tap};
use serde::Serialize;

use crate::cached;
use crate::fingerprint::{self, MaskingRecipe};
use crate::hint::HintExt;
use crate::inference::{Running, announce, forward_each, packed};
use crate::interrupt::{self, Interrupted};
use crate::model::{self, TextModel};
use crate::task_data;
use crate::ui::{self, Progress};
pub(crate) use windows::{Source, Window, Windows};
use writing::{Answers, Published, discard, write};

/// The attachment with the tokenizer that keys are made with.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// Windows that wait to be run, and batches that wait to be written.
const WAITING: usize = 2;

/// How a capture runs.
pub(crate) struct Capturing<'a> {
    pub(crate) output: &'a Path,
    pub(crate) existing: ExistingCache,
    pub(crate) running: Running<'a>,
    /// How rows are masked, for a masked-language model.
    pub(crate) masking: Option<MaskingRecipe>,
    /// What is stored.
    pub(crate) captured: Captured,
    /// Goes on with a teacher no better than chance.
    pub(crate) force: bool,
}

/// What to do about a cache that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExistingCache {
    /// Go on with it, or refuse it if it was made otherwise.
    Resume,
    /// Bring it up to date.
    Refresh,
    /// Remove it first.
    Overwrite,
}

/// What `cache` prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CacheReport {
    /// Rows of the data.
    pub(crate) rows: u64,
    /// Of these, different in what the teacher reads.
    pub(crate) unique: u64,
    /// Run through the teacher now.
    pub(crate) forwarded: u64,
    /// Of the unique rows, in the cache before.
    pub(crate) skipped: u64,
    /// Rows that were longer than the teacher reads.
    pub(crate) truncated: u64,
    /// Of all files of the cache but its manifest.
    pub(crate) bytes: u64,
    /// On the labelled rows.
    pub(crate) accuracy: Option<f64>,
    pub(crate) rows_per_second: f64,
    /// In which the teacher ran.
    pub(crate) forward_seconds: f64,
    /// In which the teacher waited for a place to put its answers.
    pub(crate) waited_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) output: String,
}

/// Runs the teacher over the rows that the cache does not have yet.
pub(crate) fn capture(
    teacher: TextModel,
    source: &Source<'_>,
    max_length: usize,
    how: &Capturing<'_>,
) -> anyhow::Result<CacheReport> {
    let start = Instant::now();
    let names = class_names(&teacher.config)?;
    let precision = how.running.compute.precision().to_string();
    let fingerprint = fingerprint::of_teacher(&teacher, max_length, how.masking, &precision, how.captured.clone())?;
    how.captured.check().map_err(|finding| cache::Error::Captured { finding })?;
    // Everything that a row can be refused for is found before the teacher runs.
    let rows = source.check(names.as_ref())?;
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
        ExistingCache::Resume | ExistingCache::Overwrite => CacheWriter::create_or_resume(how.output, &new)?,
    };
    let batch_tokens = writer.reader().batch_tokens();
    if batch_tokens != how.running.batch_tokens {
        let given = ui::count(how.running.batch_tokens as u64);
        let kept = ui::count(batch_tokens as u64);
        ui::say(format!("this cache was begun with batches of {kept} tokens, and goes on so, not with {given}"));
    }
    let masking = how.masking.map(|masking| masking.masking(&teacher.tokenizer)).transpose()?;
    let windows = Windows {
        source,
        tokenizer: &teacher.tokenizer,
        names: names.as_ref(),
        masking: masking.as_ref(),
        max_length,
        batch_tokens,
    };
    announce(how.running.compute);
    let mut model = Asked::new(how.running.compute, teacher.config, teacher.parameters, &how.captured)?;
    let progress = Progress::new("cache", rows, "rows");
    let counts = match run(&windows, &mut model, writer, write, &progress) {
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
    if let (Some(accuracy), Some(names), false) = (accuracy, &names, how.force) {
        task_data::refuse_chance(accuracy, counts.labelled as usize, names.len())?;
    }
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

/// The class names that labels are matched with; none of a masked-language model, for which labels do not matter.
pub(crate) fn class_names(config: &HfConfig) -> anyhow::Result<Option<LabelNames>> {
    Ok(match config.encoder.head {
        Head::Classification => Some(LabelNames::new(config.labels.clone())?),
        Head::MaskedLm => None,
    })
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

/// Runs a capture into a new cache and says what went through; where nothing is to be `written`, the same with the
/// teacher's answers dropped in the last stage.
pub(crate) fn rehearse(
    windows: &Windows<'_>,
    model: &mut Asked,
    writer: CacheWriter,
    written: bool,
) -> anyhow::Result<Counts> {
    let progress = Progress::new("capture", 0, "rows");
    run(windows, model, writer, if written { write } else { discard }, &progress)
}

/// The last stage.
type Writing = fn(CacheWriter, Receiver<Answers>, &Published) -> anyhow::Result<CacheWriter>;

/// What went through.
#[derive(Default)]
pub(crate) struct Counts {
    rows: u64,
    forwarded: u64,
    skipped: u64,
    truncated: u64,
    labelled: u64,
    right: u64,
    pub(crate) bytes: u64,
    forward: Duration,
    pub(crate) waited: Duration,
    pub(crate) elapsed: Duration,
}

/// Runs all stages side by side until the data ends or one of them fails.
fn run(
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

/// Writing ended before the data did, because the forward passes did.
#[derive(Debug, thiserror::Error)]
#[error("the capture ended before its last window was complete")]
struct Unfinished;

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
        let form = model.captured.clone();
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

/// A teacher, and what is asked of it.
pub(crate) struct Asked {
    pub(crate) teacher: Model,
    captured: Captured,
}

impl Asked {
    /// What is stored of its answers.
    pub(crate) fn captured(&self) -> &Captured {
        &self.captured
    }

    pub(crate) fn new(
        compute: &Compute,
        config: HfConfig,
        parameters: Parameters,
        captured: &Captured,
    ) -> anyhow::Result<Self> {
        Ok(Self { teacher: Model::on(compute, config, parameters)?, captured: captured.clone() })
    }

    /// Runs batches and hands on what is to be stored of each.
    pub(crate) fn each(
        &mut self,
        batches: impl Iterator<Item = TokenBatch>,
        mut then: impl FnMut(Answers) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match (self.captured.outputs, self.captured.hidden_states.clone()) {
            (Outputs::Row, None) => forward_each(&mut self.teacher, batches, |rows, logits| {
                then(Answers { rows: rows.to_vec(), logits: logits.to_vec(), ..Answers::default() })
            }),
            (Outputs::Row, Some(form)) => batches.into_iter().try_for_each(|batch| {
                interrupt::check()?;
                let (logits, states) = self.logits_and_states(packed(&batch), &form.layers)?;
                let (hidden, hidden_sizes) = gather_hidden(&states, &batch, &form);
                then(Answers { rows: batch.rows, logits, hidden, hidden_sizes, ..Answers::default() })
            }),
            (Outputs::Token, form) => batches.into_iter().try_for_each(|batch| {
                interrupt::check()?;
                let positions: Vec<u32> = (0..batch.input_ids.len() as u32).collect();
                let input = PackedInput { positions: Some(&positions), ..packed(&batch) };
                let layers = form.as_ref().map_or(&[][..], |form| form.layers.as_slice());
                let (logits, states) = self.logits_and_states(input, layers)?;
                let outputs = batch.starts.windows(2).map(|bounds| (bounds[1] - bounds[0]) as usize).collect();
                let (hidden, hidden_sizes) =
                    form.as_ref().map_or_else(Default::default, |form| gather_hidden(&states, &batch, form));
                then(Answers { rows: batch.rows, logits, outputs, hidden, hidden_sizes, ..Answers::default() })
            }),
        }
    }

    /// What the teacher says of a batch, and the hidden states of these layers.
    fn logits_and_states(
        &mut self,
        input: PackedInput<'_>,
        layers: &[usize],
    ) -> anyhow::Result<(Vec<f32>, Vec<Vec<f32>>)> {
        let taps: Vec<Tap> = layers.iter().map(|&layer| Tap::Hidden(layer)).collect();
        let mut pass = self.teacher.forward(input, &[&[Tap::Logits], taps.as_slice()].concat(), Mode::Eval)?;
        let logits = self.teacher.read(&mut pass, Tap::Logits)?;
        let states = taps.into_iter().map(|tap| self.teacher.read(&mut pass, tap));
        Ok((logits, states.collect::<Result<_, _>>()?))
    }
}

/// The hidden states of a batch, one layer to store after another, to be stored row by row `[layers, tokens, width]`, and
/// how many values each row has.
fn gather_hidden(states: &[Vec<f32>], batch: &TokenBatch, form: &HiddenStates) -> (Vec<f32>, Vec<usize>) {
    let mut hidden = Vec::new();
    let mut sizes = Vec::with_capacity(batch.rows.len());
    for bounds in batch.starts.windows(2) {
        let before = hidden.len();
        let (first, end) = (bounds[0] as usize, bounds[1] as usize);
        let end = if form.tokens == HiddenTokens::First { first + 1 } else { end };
        for state in states {
            hidden.extend_from_slice(&state[first * form.width..end * form.width]);
        }
        sizes.push(hidden.len() - before);
    }
    (hidden, sizes)
}

/// What the teacher would be asked for, with what it cannot answer refused.
pub(crate) fn check_hidden(form: &HiddenStates, layers: usize) -> anyhow::Result<()> {
    let too_deep = form.layers.iter().find(|&&layer| layer > layers);
    too_deep
        .map_or(Ok(()), |layer| {
            Err(anyhow::anyhow!(
                "--hidden-states {layer}: the teacher has {layers} layers; 0 is the embeddings' output, {layers} the last \
                 layer's"
            ))
        })
        .context("cannot capture")
}
