//! Maps the tensors of a checkpoint to an encoder's parameters.
//!
//! Checkpoints differ: with or without the family's prefix, `gamma`/`beta` for norms, heads of other tasks, position
//! ids stored as tensors. The parameter names come from [`nn::names`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nn::hf::HfConfig;
use nn::{FeedForwardSlot, Head, LayerSlot, Layout, Parameters, Slot, names};
use serde_json::Value;

use crate::Error;
use crate::hub::ModelFiles;
use crate::weights::{Checkpoint, RawTensor, read_checkpoint};

/// A model as read from its files.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// The contents of `config.json`.
    pub config: HfConfig,
    /// The weights; those listed in [`missing_head`](Self::missing_head) are zero.
    pub parameters: Parameters,
    /// Parameters of the head that are not in the checkpoint.
    pub missing_head: Vec<Slot>,
    /// Why the checkpoint's head was left aside, where it was: it is of another task, or its classes cannot be told apart.
    pub other_head: Option<String>,
    /// Tensors of the checkpoint that the encoder has no use for.
    pub unused: Vec<String>,
}

/// [`load_for`] with a classification head.
pub fn load(files: &ModelFiles) -> Result<LoadedModel, Error> {
    load_for(files, Head::Classification)
}

/// Reads `config.json` and the weights of a model, for use with this head, whatever head it was saved with.
///
/// # Errors
/// A config that contradicts the weights, a checkpoint without part of the encoder, or a masked-language model whose
/// output matrix is not tied to its word embeddings. A head that is missing altogether is not an error but reported in
/// [`missing_head`](LoadedModel::missing_head), for the caller to initialise or to refuse.
pub fn load_for(files: &ModelFiles, head: Head) -> Result<LoadedModel, Error> {
    load_with(files, read_config_for(files, head)?, None, HeadOf::Checkpoint)
}

/// As [`load_for`] a classification head that is to be replaced where it is of another task: of several labels, of a score, or
/// with classes that `config.json` does not tell apart. Its last linear map is missing then.
pub fn load_base(files: &ModelFiles) -> Result<LoadedModel, Error> {
    let json = read_json(files)?;
    let path = &files.config;
    let (config, why) =
        nn::hf::read_config_of_base(&json).map_err(|source| Error::Model { path: path.clone(), source })?;
    load_with(files, config, why.map(|why| why.to_string()), HeadOf::Base)
}

/// What becomes of the checkpoint's last linear map.
#[derive(Clone, Copy)]
enum HeadOf {
    /// It is the model's, and fits.
    Checkpoint,
    /// It is replaced where it does not fit.
    Base,
}

fn load_with(
    files: &ModelFiles,
    config: HfConfig,
    other_head: Option<String>,
    head_of: HeadOf,
) -> Result<LoadedModel, Error> {
    let head = config.encoder.head;
    let Checkpoint { tensors: read, integers } = read_checkpoint(files)?;
    let mut tensors: BTreeMap<String, (String, RawTensor)> = BTreeMap::new();
    for (name, tensor) in read {
        tensors.insert(canonical(&name), (name, tensor));
    }
    let weights = &files.weights[0];
    let layout = Layout::new(&config.encoder);
    let mut parameters = Parameters::zeros(layout.clone());
    let mut missing_head = Vec::new();
    for entry in layout.entries() {
        let is_output = matches!(entry.slot, Slot::HeadOutputWeight | Slot::HeadOutputBias);
        let found = tensors.remove(&canonical(&entry.name)).filter(|(_, tensor)| match head_of {
            HeadOf::Checkpoint => true,
            HeadOf::Base => !is_output || other_head.is_none() && tensor.shape == entry.shape,
        });
        match found {
            Some((name, tensor))
                if entry.slot == Slot::HeadOutputWeight
                    && tensor.shape.first() != entry.shape.first()
                    && tensor.shape.get(1) == entry.shape.get(1) =>
            {
                let (found, expected) = (tensor.shape.first().copied().unwrap_or(0), config.labels.len());
                return Err(Error::Classes { path: files.config.clone(), tensor: name, found, expected });
            }
            Some((name, tensor)) => parameters
                .set(entry.slot, &name, &tensor.shape, &tensor.data)
                .map_err(|source| Error::Model { path: weights.clone(), source })?,
            None if names::is_head(entry.slot) => missing_head.push(entry.slot),
            None => {
                let stored: BTreeSet<String> = tensors.keys().cloned().collect();
                return Err(missing(weights, &entry.name, &stored, &integers));
            }
        }
    }
    if head == Head::MaskedLm {
        for &(slot, copy) in names::copies(config.encoder.family) {
            let Some((name, tensor)) = tensors.remove(&canonical(copy)) else { continue };
            if let Some(place) = missing_head.iter().position(|&missing| missing == slot) {
                // The copy alone.
                let set = parameters.set(slot, &name, &tensor.shape, &tensor.data);
                set.map_err(|source| Error::Model { path: weights.clone(), source })?;
                missing_head.remove(place);
            } else if tensor.data != parameters.get(slot) {
                let original = names::hugging_face_name(config.encoder.family, slot);
                return Err(Error::Untied { path: weights.clone(), name, original });
            }
        }
    }
    let layers = config.encoder.num_layers;
    if let Some((name, _)) = tensors.iter().find_map(|(key, value)| (names::layer_of(key)? >= layers).then_some(value))
    {
        return Err(Error::ExtraLayer { path: weights.clone(), name: name.clone(), layers });
    }
    let (family, parts) = (config.encoder.family, config.encoder.blocks.feed_forwards);
    let next = LayerSlot::FeedForward(parts - 1, FeedForwardSlot::IntermediateWeight);
    let next = names::hugging_face_name(family, Slot::Layer(0, next));
    if let Some((name, _)) = tensors.get(&canonical(&next)).filter(|_| family.stacks_feed_forwards()) {
        return Err(Error::ExtraPart { path: weights.clone(), name: name.clone(), parts });
    }
    let unused = tensors.into_values().map(|(name, _)| name).collect();
    Ok(LoadedModel { config, parameters, missing_head, other_head, unused })
}

/// What a missing part of the encoder means: quantised weights stand under its name as integers, or have others beside them,
/// and those that an adapter wraps have another name.
fn missing(path: &Path, name: &str, stored: &BTreeSet<String>, integers: &BTreeMap<String, String>) -> Error {
    /// What the formats of quantised weights call their parts, behind the name of a linear map.
    const PARTS: [&str; 9] = [
        "qweight",
        "qzeros",
        "SCB",
        "scale",
        "scales",
        "weight_scale",
        "weight.absmax",
        "weight_packed",
        "_packed_params._packed_params",
    ];
    let wanted = canonical(name);
    let integer = integers.iter().find(|(other, _)| canonical(other) == wanted);
    if let Some((tensor, dtype)) = integer {
        return Error::TensorType { path: path.to_owned(), tensor: tensor.clone(), dtype: dtype.clone() };
    }
    let linear = wanted.strip_suffix("weight").unwrap_or(&wanted);
    if stored.contains(&format!("{linear}base_layer.weight")) {
        return Error::Unmerged { path: path.to_owned(), tensor: name.replace("weight", "base_layer.weight") };
    }
    let part = PARTS.iter().map(|part| format!("{linear}{part}"));
    let mut part = part.filter(|part| stored.contains(part) || integers.keys().any(|other| canonical(other) == *part));
    match part.next() {
        Some(part) => Error::Quantised { path: path.to_owned(), finding: format!("`{part}` in place of `{name}`") },
        None => Error::MissingTensor { path: path.to_owned(), name: name.to_owned() },
    }
}

/// Reads and checks only `config.json`, of a model that is to get a classification head: one of another task is left aside, as
/// in [`load_base`].
pub fn read_config(files: &ModelFiles) -> Result<HfConfig, Error> {
    let (config, _) = nn::hf::read_config_of_base(&read_json(files)?)
        .map_err(|source| Error::Model { path: files.config.clone(), source })?;
    Ok(config)
}

/// Reads and checks only `config.json`, of a model that is used with this head.
pub fn read_config_for(files: &ModelFiles, head: Head) -> Result<HfConfig, Error> {
    let path = &files.config;
    nn::hf::read_config_for(&read_json(files)?, head).map_err(|source| Error::Model { path: path.clone(), source })
}

/// `config.json`, of a model whose weights are numbers and not codes for them.
fn read_json(files: &ModelFiles) -> Result<Value, Error> {
    let path = &files.config;
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|source| Error::BadJson { path: path.clone(), source })?;
    if let Some(quantised) = json.get("quantization_config").filter(|config| !config.is_null()) {
        let method = quantised.get("quant_method").and_then(Value::as_str).unwrap_or("an unnamed method");
        let finding = format!("`quantization_config` says by {method}");
        return Err(Error::Quantised { path: path.clone(), finding });
    }
    Ok(json)
}

/// A tensor's name without the family's prefix, and with `gamma`/`beta` renamed to `weight`/`bias`.
fn canonical(name: &str) -> String {
    let bare = names::without_prefix(name);
    match bare.rsplit_once('.') {
        Some((stem, "gamma")) => format!("{stem}.weight"),
        Some((stem, "beta")) => format!("{stem}.bias"),
        _ => bare.to_string(),
    }
}
