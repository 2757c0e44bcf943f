//! Checkpoints to resume training from: weights, moments, the best weights so far and the position in the run, in one
//! file that is written atomically.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use nn::{AdamW, Layout, Parameters};
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use tracing::trace_span;

use super::keep::Best;
use crate::files::{self, FileError};
use crate::run_record::RunInputs;

/// The checkpoint's file name in a run's folder.
pub(crate) const CHECKPOINT: &str = "checkpoint.safetensors";

/// Version of the checkpoint's fields.
const SCHEMA_VERSION: u32 = 1;

/// The position in a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) schema_version: u32,
    /// Optimiser steps taken.
    pub(crate) step: usize,
    /// Size of `metrics.jsonl` at that time, in bytes.
    pub(crate) metrics_bytes: u64,
    /// The best evaluation so far.
    pub(crate) best: Option<Best>,
    pub(crate) inputs: RunInputs,
}

impl State {
    pub(crate) fn new(step: usize, metrics_bytes: u64, best: Option<Best>, inputs: RunInputs) -> Self {
        Self { schema_version: SCHEMA_VERSION, step, metrics_bytes, best, inputs }
    }
}

/// The contents of a checkpoint.
pub(crate) struct Restored {
    pub(crate) state: State,
    pub(crate) optimizer: AdamW,
    pub(crate) best_parameters: Option<Vec<f32>>,
}

/// Writes a checkpoint, replacing the previous one.
pub(crate) fn save(
    folder: &Path,
    state: &State,
    parameters: &Parameters,
    optimizer: &AdamW,
    best_parameters: Option<&[f32]>,
) -> anyhow::Result<()> {
    let _span = trace_span!("checkpoint").entered();
    let (_, first, second) = optimizer.state();
    let mut tensors = vec![
        ("parameters", Flat::new(parameters.flat())),
        ("first_moment", Flat::new(first)),
        ("second_moment", Flat::new(second)),
    ];
    tensors.extend(best_parameters.map(|best| ("best_parameters", Flat::new(best))));
    let metadata = HashMap::from([("state".to_string(), serde_json::to_string(state)?)]);
    let bytes = safetensors::serialize(tensors, Some(metadata))?;
    Ok(files::write_whole(&folder.join(CHECKPOINT), &bytes)?)
}

/// Reads the checkpoint of a run into `parameters`; `None` if there is none.
pub(crate) fn load(
    folder: &Path,
    inputs: &RunInputs,
    parameters: &mut Parameters,
    weight_decay: f64,
) -> anyhow::Result<Option<Restored>> {
    let path = folder.join(CHECKPOINT);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(|source| FileError::Read { path: path.clone(), source })?;
    let restored = parse(&path, &bytes, parameters, weight_decay)?;
    if let Some((field, now, then)) = inputs.difference(&restored.state.inputs) {
        bail!(
            "{}: the training that was stopped had another `{field}` ({}, now {}); give the same, or start afresh \
             with --overwrite",
            path.display(),
            shorten(&then),
            shorten(&now)
        );
    }
    Ok(Some(restored))
}

fn parse(path: &Path, bytes: &[u8], parameters: &mut Parameters, weight_decay: f64) -> anyhow::Result<Restored> {
    let damaged = || format!("{}: a damaged checkpoint; start afresh with --overwrite", path.display());
    let (_, header) = SafeTensors::read_metadata(bytes).with_context(damaged)?;
    let tensors = SafeTensors::deserialize(bytes).with_context(damaged)?;
    let state = header.metadata().as_ref().and_then(|metadata| metadata.get("state")).with_context(damaged)?;
    let state: State = serde_json::from_str(state).with_context(damaged)?;
    if state.schema_version != SCHEMA_VERSION {
        bail!("{}: schema_version is {}, this build reads {SCHEMA_VERSION}", path.display(), state.schema_version);
    }
    let layout: Arc<Layout> = parameters.layout().clone();
    let flat = |name: &str| -> anyhow::Result<Vec<f32>> {
        let tensor = tensors.tensor(name).with_context(damaged)?;
        let (values, _) = tensor.data().as_chunks::<4>();
        if values.len() != layout.len() {
            bail!("{}: `{name}` has {} values, the model {}", path.display(), values.len(), layout.len());
        }
        Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    };
    parameters.flat_mut().copy_from_slice(&flat("parameters")?);
    let steps = state.step as u64;
    let optimizer = AdamW::restore(layout.clone(), weight_decay, steps, flat("first_moment")?, flat("second_moment")?)
        .with_context(damaged)?;
    let best_parameters = state.best.as_ref().map(|_| flat("best_parameters")).transpose()?;
    Ok(Restored { state, optimizer, best_parameters })
}

/// Removes the checkpoint of a run that is complete.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(CHECKPOINT);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(FileError::writing(&path, source).into()),
        _ => Ok(()),
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() > 60 { text.chars().take(60).chain("...".chars()).collect() } else { text.to_string() }
}

/// A flat `f32` buffer as a tensor.
struct Flat<'a> {
    values: &'a [f32],
    len: usize,
}

impl<'a> Flat<'a> {
    fn new(values: &'a [f32]) -> Self {
        Self { values, len: values.len() }
    }
}

impl View for Flat<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        std::slice::from_ref(&self.len)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.values.len() * 4
    }
}
