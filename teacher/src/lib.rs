//! A frozen model: found on the Hub or in a folder, loaded, run.
//!
//! [`locate`] finds a model's files, [`load`] reads them, and a [`Teacher`] says what it thinks of packed batches.
//! What it said is stored by the crate `cache`.

mod error;
mod hub;
mod load;
mod weights;

pub use error::Error;
pub use hub::{Download, HubOptions, ModelFiles, OnDownload, locate, locate_with_progress};
pub use load::{LoadedModel, load, load_for, read_config};
pub use weights::{RawTensor, read_tensors};

use nn::hf::HfConfig;
use nn::{Capture, Compute, EncoderOutput, Engine, Mode, PackedInput, Parameters, Slot};

/// A model that is run and never changed: no dropout, no gradients.
pub struct Teacher {
    config: HfConfig,
    parameters: Parameters,
    engine: Engine,
}

impl Teacher {
    /// A teacher of this configuration and these weights, on the CPU.
    pub fn new(config: HfConfig, parameters: Parameters) -> Result<Self, nn::Error> {
        Self::on(&Compute::Cpu, config, parameters)
    }

    /// The same, wherever it is to compute.
    pub fn on(compute: &Compute, config: HfConfig, parameters: Parameters) -> Result<Self, nn::Error> {
        let engine = Engine::new(compute, &config.encoder, &parameters)?;
        Ok(Self { config, parameters, engine })
    }

    /// What the model is, class names included.
    pub fn config(&self) -> &HfConfig {
        &self.config
    }

    /// Its weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Runs it over a packed batch.
    pub fn forward(&mut self, input: PackedInput<'_>, capture: Capture) -> Result<EncoderOutput, nn::Error> {
        self.engine.forward(&self.parameters, input, capture, Mode::Eval)
    }

    /// Runs a masked-language model and returns what it says of the tokens at these places, ascending numbers within the
    /// batch.
    ///
    /// # Shapes
    /// - `positions`: `[P]`; returns `[P, vocabulary]`, before softmax
    pub fn forward_tokens(&mut self, input: PackedInput<'_>, positions: &[u32]) -> Result<Vec<f32>, nn::Error> {
        let input = PackedInput { positions: Some(positions), ..input };
        Ok(self.forward(input, Capture::LOGITS)?.logits)
    }

    /// Asks for a pass over a packed batch whose logits [`collect`](Self::collect) will give, so that a GPU need not wait
    /// for what is done with those of the batch before.
    pub fn submit(&mut self, input: PackedInput<'_>) -> Result<(), nn::Error> {
        self.engine.submit(&self.parameters, input)
    }

    /// The logits of the oldest batch submitted, `[B, num_labels]`, once more than `behind` are to be collected.
    pub fn collect(&mut self, behind: usize) -> Result<Option<Vec<f32>>, nn::Error> {
        self.engine.collect(behind)
    }
}

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
