//! Finds pretrained models on the Hugging Face Hub or in a folder, and loads them.
//!
//! [`locate`] finds a model's files and [`load`] reads them; an [`nn::Model`] runs what was loaded. The crate `cache`
//! stores a teacher's outputs.

mod error;
mod hub;
mod load;
mod weights;

pub use error::Error;
pub use hub::{Download, HubOptions, ModelFiles, OnDownload, locate, locate_with_progress};
pub use load::{LoadedModel, load, load_base, load_for, read_config, read_config_for};
pub use weights::{RawTensor, read_tensors};

use nn::{Parameters, Slot};

/// A BLAKE3 hash, in hexadecimal, of the names, shapes and `f32` values of all weights. It does not depend on the file
/// format, nor on the number format as long as that loses nothing.
pub fn weights_hash(parameters: &Parameters) -> String {
    hash_of(parameters, |_| true)
}

/// [`weights_hash`] of all weights but the last linear layer's, and one hash per row of that layer (weight and bias),
/// in the order of the logits: models that differ only in the order of their classes have the same hashes in another
/// order. A masked-language model has no such rows: the hash is of all weights, and the list is empty.
pub fn weights_and_head_hashes(parameters: &Parameters) -> (String, Vec<String>) {
    let is_last = |slot| matches!(slot, Slot::HeadOutputWeight | Slot::HeadOutputBias);
    let body = hash_of(parameters, |slot| !is_last(slot));
    let layout = parameters.layout();
    // The output matrix of a masked-language model is its word embeddings.
    if layout.entry(Slot::HeadOutputWeight).is_none() {
        return (hash_of(parameters, |_| true), Vec::new());
    }
    let (weight, bias) = (parameters.get(Slot::HeadOutputWeight), parameters.get(Slot::HeadOutputBias));
    let width = weight.len() / bias.len().max(1);
    let row = |(weight, bias): (&[f32], &f32)| {
        let bytes: Vec<u8> = weight.iter().chain([bias]).flat_map(|value| value.to_le_bytes()).collect();
        blake3::hash(&bytes).to_hex()[..32].to_owned()
    };
    (body, weight.chunks_exact(width).zip(bias).map(row).collect())
}

fn hash_of(parameters: &Parameters, wanted: impl Fn(Slot) -> bool) -> String {
    let mut entries: Vec<_> = parameters.layout().entries().iter().filter(|entry| wanted(entry.slot)).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        hasher.update(&(entry.name.len() as u64).to_le_bytes()).update(entry.name.as_bytes());
        hasher.update(&(entry.shape.len() as u64).to_le_bytes());
        for size in &entry.shape {
            hasher.update(&(*size as u64).to_le_bytes());
        }
        let mut bytes = Vec::with_capacity(1 << 16);
        for chunk in parameters.get(entry.slot).chunks(1 << 14) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            hasher.update(&bytes);
        }
    }
    hasher.finalize().to_hex().to_string()
}
