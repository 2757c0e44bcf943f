//! Reads the tensors of a model's weight files (safetensors, also sharded, or `pytorch_model.bin`) into f32. `load.rs`
//! maps them to parameters.

mod lfs;
mod pickle;
mod safetensors;
mod tensor;

use std::collections::BTreeMap;

pub use tensor::RawTensor;

use crate::{Error, ModelFiles};

/// All tensors of a model by name.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    /// As f32.
    pub(crate) tensors: BTreeMap<String, RawTensor>,
    /// Of integers, with the names of their types: no weights, unless they are quantised ones.
    pub(crate) integers: BTreeMap<String, String>,
}

/// All tensors of a model by name, as f32. Integer tensors, such as `position_ids`, are skipped.
pub fn read_tensors(files: &ModelFiles) -> Result<BTreeMap<String, RawTensor>, Error> {
    Ok(read_checkpoint(files)?.tensors)
}

/// As [`read_tensors`], with word of what is left out.
pub(crate) fn read_checkpoint(files: &ModelFiles) -> Result<Checkpoint, Error> {
    let mut checkpoint = Checkpoint::default();
    for path in &files.weights {
        let read = match path.extension() {
            Some(extension) if extension == "safetensors" => safetensors::read(path)?,
            _ => pickle::read(path)?,
        };
        for (tensor, raw) in read.floats {
            if checkpoint.tensors.contains_key(&tensor) {
                return Err(Error::TensorTwice { path: path.clone(), tensor });
            }
            checkpoint.tensors.insert(tensor, raw);
        }
        checkpoint.integers.extend(read.integers);
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests;
