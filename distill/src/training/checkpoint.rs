//! Checkpoints to resume training from: weights, moments, the best weights so far and the position in the run, in one
//! file with a checksum.
//!
//! A thread of its own writes them, from a copy, while the training goes on. The one before stays beside it until the next
//! one is whole, and is read where the newest is damaged.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::bail;
use nn::cuda::ProductChoices;
use nn::{AdamW, Layout, Parameters};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::debug_span;

use super::keep::Best;
use super::{optimizer, progress::Progress};
use crate::files::{self, FileError};
use crate::recipe::FitRecipe;
use crate::run_record::RunInputs;
use crate::ui;

/// The newest checkpoint's file name in a run's folder.
pub(crate) const CHECKPOINT: &str = "checkpoint.safetensors";

/// That of the one before.
pub(crate) const EARLIER: &str = "checkpoint.earlier.safetensors";

/// Version of the checkpoint's fields. Version 1, which is still read, has no checksum and no progress.
const SCHEMA_VERSION: u32 = 2;

/// The position in a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) schema_version: u32,
    /// Steps taken, skipped ones included.
    pub(crate) step: usize,
    /// Steps that the optimiser has taken.
    #[serde(default)]
    optimizer_steps: Option<u64>,
    /// Steps that each projection has taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) projection_steps: Vec<u64>,
    /// Size of `metrics.jsonl` at that time, in bytes.
    pub(crate) metrics_bytes: u64,
    /// The best evaluation so far.
    pub(crate) best: Option<Best>,
    #[serde(default)]
    pub(crate) progress: Progress,
    pub(crate) inputs: RunInputs,
    /// How a GPU computes products, if that was chosen by timing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) products: Option<ProductChoices>,
}

impl State {
    pub(crate) fn new(
        step: usize,
        metrics_bytes: u64,
        best: Option<Best>,
        progress: Progress,
        inputs: RunInputs,
        products: Option<ProductChoices>,
    ) -> Self {
        let (schema_version, optimizer_steps, projection_steps) = (SCHEMA_VERSION, None, Vec::new());
        Self {
            schema_version,
            step,
            optimizer_steps,
            projection_steps,
            metrics_bytes,
            best,
            progress,
            inputs,
            products,
        }
    }
}

/// The contents of a checkpoint.
pub(crate) struct Restored {
    pub(crate) state: State,
    pub(crate) optimizer: AdamW,
    /// Values of the projections; empty without any.
    pub(crate) projections: Vec<f32>,
    pub(crate) best_parameters: Option<Vec<f32>>,
}

/// Writes a run's checkpoints, one at a time, beside the training.
pub(crate) struct Writer {
    folder: PathBuf,
    /// Steps from one to the next, where they are counted.
    every: Option<usize>,
    /// Time from one to the next.
    interval: Option<Duration>,
    latest: Instant,
    /// The write in progress; it returns its buffers for the next one.
    writing: Option<JoinHandle<anyhow::Result<Copied>>>,
}

/// A training's buffers, copied so that it can go on.
#[derive(Default)]
struct Copied {
    parameters: Vec<f32>,
    first_moment: Vec<f32>,
    second_moment: Vec<f32>,
    /// The moving average of the parameters; empty without one.
    average: Vec<f32>,
    /// Values of the projections; empty without any.
    projections: Vec<f32>,
}

impl Writer {
    /// For checkpoints every so many steps and so many minutes.
    pub(crate) fn new(folder: &Path, every: Option<usize>, minutes: Option<f64>) -> Self {
        let interval = minutes.map(|minutes| Duration::try_from_secs_f64(60.0 * minutes).unwrap_or(Duration::MAX));
        Self { folder: folder.to_owned(), every, interval, latest: Instant::now(), writing: None }
    }

    /// Whether a checkpoint is to be written after so many steps. The clock that is asked never goes back.
    pub(crate) fn is_due(&self, steps: usize) -> bool {
        let by_steps = self.every.is_some_and(|every| steps.is_multiple_of(every));
        by_steps || self.interval.is_some_and(|interval| self.latest.elapsed() >= interval)
    }

    /// Copies a training's state and begins to write it. An error if the one before could not be written.
    pub(crate) fn save(
        &mut self,
        mut state: State,
        parameters: &Parameters,
        optimizer: &AdamW,
        (projection_steps, projections): (Vec<u64>, Vec<f32>),
        best_parameters: Option<Arc<Vec<f32>>>,
    ) -> anyhow::Result<()> {
        let _span = debug_span!("checkpoint").entered();
        let mut copied = self.wait()?;
        let (steps, first, second) = optimizer.state();
        state.optimizer_steps = Some(steps);
        state.projection_steps = projection_steps;
        copied.projections = projections;
        let buffers = [
            (&mut copied.parameters, parameters.flat()),
            (&mut copied.first_moment, first),
            (&mut copied.second_moment, second),
            (&mut copied.average, optimizer.average().unwrap_or_default()),
        ];
        for (copy, values) in buffers {
            copy.clear();
            copy.extend_from_slice(values);
        }
        self.latest = Instant::now();
        let folder = self.folder.clone();
        let write = move || {
            write(&folder, &state, &copied, best_parameters.as_ref().map(|best| best.as_slice()))?;
            Ok(copied)
        };
        self.writing = Some(std::thread::spawn(write));
        Ok(())
    }

    /// Waits until the last checkpoint is whole.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.wait().map(drop)
    }

    fn wait(&mut self) -> anyhow::Result<Copied> {
        match self.writing.take() {
            Some(writing) => writing.join().map_err(|_| anyhow::anyhow!("the thread that writes checkpoints ended"))?,
            None => Ok(Copied::default()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // An error on the way out has been told; the checkpoint is still to be whole.
        let _ = self.wait();
    }
}

/// Writes a checkpoint. The one that was there becomes the earlier one when the new one is whole.
fn write(folder: &Path, state: &State, copied: &Copied, best_parameters: Option<&[f32]>) -> anyhow::Result<()> {
    let _span = debug_span!("write checkpoint").entered();
    let mut tensors = vec![
        ("parameters", copied.parameters.as_slice()),
        ("first_moment", &copied.first_moment),
        ("second_moment", &copied.second_moment),
    ];
    let others = [("average", copied.average.as_slice()), ("projections", &copied.projections)];
    tensors.extend(others.into_iter().filter(|(_, values)| !values.is_empty()));
    tensors.extend(best_parameters.map(|best| ("best_parameters", best)));
    let state = serde_json::to_string(state)?;
    let checksum = checksum(&state, tensors.iter().map(|(name, values)| (*name, little_endian(values))));
    let header = header(&tensors, json!({ "state": state, "checksum": checksum }));
    let (path, earlier) = (folder.join(CHECKPOINT), folder.join(EARLIER));
    let write = |file: &mut File| {
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, values)| file.write_all(&little_endian(values)))
    };
    let keep_earlier = || match fs::rename(&path, &earlier) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    files::replace_whole(&path, write, keep_earlier).map_err(|source| FileError::writing(&path, source).into())
}

/// The start of a file of safetensors, up to the values; that crate writes whole files alone, from a copy in memory or under
/// a name of its own.
fn header(tensors: &[(&str, &[f32])], metadata: Value) -> Vec<u8> {
    let mut header = json!({ "__metadata__": metadata });
    let mut end = 0;
    for (name, values) in tensors {
        let start = end;
        end += 4 * values.len();
        header[*name] = json!({ "dtype": "F32", "shape": [values.len()], "data_offsets": [start, end] });
    }
    let mut text = header.to_string();
    // Values begin at a multiple of 8.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Values as a file has them.
fn little_endian(values: &[f32]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(values)),
        false => Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    }
}

/// Of everything that a checkpoint holds, in the order of the tensors' names.
fn checksum<'a>(state: &str, tensors: impl Iterator<Item = (&'a str, Cow<'a, [u8]>)>) -> String {
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by_key(|(name, _)| *name);
    let mut hasher = blake3::Hasher::new();
    hasher.update(state.as_bytes());
    for (name, bytes) in tensors {
        hasher.update(name.as_bytes()).update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

/// Reads the newest checkpoint of a run that is whole into `parameters`; `None` if there is none.
pub(crate) fn load(
    folder: &Path,
    inputs: &RunInputs,
    parameters: &mut Parameters,
    recipe: &FitRecipe,
) -> anyhow::Result<Option<Restored>> {
    let found: Vec<PathBuf> =
        [CHECKPOINT, EARLIER].map(|name| folder.join(name)).into_iter().filter(|path| path.exists()).collect();
    let mut damage = None;
    for path in &found {
        let bytes = fs::read(path).map_err(|source| FileError::Read { path: path.clone(), source })?;
        match parse(path, &bytes, inputs, parameters, recipe) {
            Ok(restored) => {
                if let Some(damage) = damage {
                    // The next checkpoint would take the place of this good one for it.
                    let newest = folder.join(CHECKPOINT);
                    fs::remove_file(&newest).map_err(|source| FileError::writing(&newest, source))?;
                    ui::say(format!("{damage}; going on from the checkpoint before it"));
                }
                return Ok(Some(restored));
            }
            Err(Unread::Damaged(reason)) => {
                _ = damage.get_or_insert(format!("{}: a damaged checkpoint ({reason})", path.display()))
            }
            Err(Unread::Other(error)) => return Err(error),
        }
    }
    match damage {
        Some(damage) => bail!("{damage}; start afresh with --overwrite"),
        None => Ok(None),
    }
}

/// Why a checkpoint cannot be gone on from.
enum Unread {
    Damaged(String),
    Other(anyhow::Error),
}

fn damaged(reason: impl std::fmt::Display) -> Unread {
    Unread::Damaged(reason.to_string())
}

fn parse(
    path: &Path,
    bytes: &[u8],
    inputs: &RunInputs,
    parameters: &mut Parameters,
    recipe: &FitRecipe,
) -> Result<Restored, Unread> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let text = metadata.get("state").ok_or_else(|| damaged("it says nothing of the run"))?;
    let state: State = serde_json::from_str(text).map_err(damaged)?;
    if !(1..=SCHEMA_VERSION).contains(&state.schema_version) {
        let (found, path) = (state.schema_version, path.display());
        return Err(Unread::Other(anyhow::anyhow!(
            "{path}: schema_version is {found}, this build reads up to {SCHEMA_VERSION}; go on with the version that wrote it"
        )));
    }
    let found = || checksum(text, tensors.iter().map(|(name, tensor)| (name, Cow::Borrowed(tensor.data()))));
    if state.schema_version > 1 && metadata.get("checksum") != Some(&found()) {
        return Err(damaged("its checksum is another"));
    }
    if let Some((field, now, then)) = inputs.difference(&state.inputs) {
        return Err(Unread::Other(anyhow::anyhow!(
            "{}: the training that was stopped had another `{field}` ({}, now {}); give the same, or start afresh with \
             --overwrite",
            path.display(),
            shorten(&then),
            shorten(&now)
        )));
    }
    let layout: Arc<Layout> = parameters.layout().clone();
    let values = |name: &str| -> Result<Vec<f32>, Unread> {
        let tensor = tensors.tensor(name).map_err(damaged)?;
        let (values, _) = tensor.data().as_chunks::<4>();
        Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    };
    let flat = |name: &str| -> Result<Vec<f32>, Unread> {
        let values = values(name)?;
        match values.len() == layout.len() {
            true => Ok(values),
            false => Err(damaged(format!("`{name}` has {} values, the model {}", values.len(), layout.len()))),
        }
    };
    let steps = state.optimizer_steps.unwrap_or(state.step as u64);
    let (first, second) = (flat("first_moment")?, flat("second_moment")?);
    let optimizer = AdamW::restore(layout.clone(), recipe.weight_decay, steps, first, second)
        .ok_or_else(|| damaged("its moments are not of this model"))?;
    let average = recipe.ema_decay.map(|_| flat("average")).transpose()?;
    let optimizer = optimizer::with_settings(optimizer, recipe, &layout, || average).map_err(Unread::Other)?;
    let best_parameters = state.best.as_ref().map(|_| flat("best_parameters")).transpose()?;
    parameters.flat_mut().copy_from_slice(&flat("parameters")?);
    let projections = if state.projection_steps.is_empty() { Vec::new() } else { values("projections")? };
    Ok(Restored { state, optimizer, projections, best_parameters })
}

/// Removes the checkpoints of a run that is complete.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    for path in [CHECKPOINT, EARLIER].map(|name| folder.join(name)) {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::writing(&path, source).into());
            }
            _ => {}
        }
    }
    Ok(())
}

fn shorten(text: &str) -> String {
    if text.chars().count() > 60 { text.chars().take(60).chain("...".chars()).collect() } else { text.to_string() }
}
