//! A frozen model: found on the Hub or in a folder, and loaded.
//!
//! [`locate`] finds a model's files and [`load`] reads them; an [`nn::Model`] runs what was loaded. What a teacher said is
//! stored by the crate `cache`.

mod error;
mod hub;
mod load;
mod weights;

pub use error::Error;
pub use hub::{Download, HubOptions, ModelFiles, OnDownload, locate, locate_with_progress};
pub use load::{LoadedModel, load, load_base, load_for, read_config};
pub use weights::{RawTensor, read_tensors};

use nn::{Parameters, Slot};

/// A hash of names, shapes and values of all weights, as hexadecimal: the same model gives the same hash, whatever file
/// format or number format without loss it was stored in.
pub fn weights_hash(parameters: &Parameters) -> String {
    hash_of(parameters, |_| true)
}

/// As [`weights_hash`], of the weights before the last linear map, and a hash for each of that map's rows, in the order of
/// the logits: two models that differ in the order of their classes alone have the same ones in another order.
pub fn weights_and_head_hashes(parameters: &Parameters) -> (String, Vec<String>) {
    let is_last = |slot| matches!(slot, Slot::HeadOutputWeight | Slot::HeadOutputBias);
    let body = hash_of(parameters, |slot| !is_last(slot));
    let layout = parameters.layout();
    // A masked-language model has no rows of its own there: its words' embeddings serve.
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
