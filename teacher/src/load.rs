//! Maps the tensors of a checkpoint to an encoder's parameters.
//!
//! Checkpoints differ: with or without the family's prefix, `gamma`/`beta` for norms, heads of other tasks, position
//! ids stored as tensors. The parameter names come from [`nn::names`].

use std::collections::BTreeMap;

use nn::hf::HfConfig;
use nn::{FeedForwardSlot, Head, LayerSlot, Layout, Parameters, Slot, names};
use serde_json::Value;

use crate::Error;
use crate::hub::ModelFiles;
use crate::weights::{RawTensor, read_tensors};

/// A model as read from its files.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// The contents of `config.json`.
    pub config: HfConfig,
    /// The weights; those listed in [`missing_head`](Self::missing_head) are zero.
    pub parameters: Parameters,
    /// Parameters of the head that are not in the checkpoint.
    pub missing_head: Vec<Slot>,
    /// Names of tensors in the checkpoint that the model does not use.
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
    let config = read_config_for(files, head)?;
    let mut tensors: BTreeMap<String, (String, RawTensor)> = BTreeMap::new();
    for (name, tensor) in read_tensors(files)? {
        tensors.insert(canonical(&name), (name, tensor));
    }
    let weights = &files.weights[0];
    let layout = Layout::new(&config.encoder);
    let mut parameters = Parameters::zeros(layout.clone());
    let mut missing_head = Vec::new();
    for entry in layout.entries() {
        match tensors.remove(&canonical(&entry.name)) {
            Some((name, tensor)) => parameters
                .set(entry.slot, &name, &tensor.shape, &tensor.data)
                .map_err(|source| Error::Model { path: weights.clone(), source })?,
            None if names::is_head(entry.slot) => missing_head.push(entry.slot),
            None => return Err(Error::MissingTensor { path: weights.clone(), name: entry.name.clone() }),
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
    Ok(LoadedModel { config, parameters, missing_head, unused })
}

/// Reads and checks only `config.json`, of a model with a classification head.
pub fn read_config(files: &ModelFiles) -> Result<HfConfig, Error> {
    read_config_for(files, Head::Classification)
}

fn read_config_for(files: &ModelFiles, head: Head) -> Result<HfConfig, Error> {
    let path = &files.config;
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|source| Error::BadJson { path: path.clone(), source })?;
    nn::hf::read_config_for(&json, head).map_err(|source| Error::Model { path: path.clone(), source })
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
