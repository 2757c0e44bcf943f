//! Reads a model's weights, in whatever form they were saved, into f32. Which tensor belongs where is for the name
//! tables to say.

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

/// All tensors of a model by name, as f32. Integers, such as `position_ids`, are no weights and are left out.
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
