//! Reads a `golden.safetensors` or a `golden_taps.safetensors`: what `transformers` computes of a model on one padded
//! batch.

use std::fs;
use std::path::{Path, PathBuf};

use datasets::TokenBatch;
use nn::Head;
use safetensors::{Dtype, SafeTensors};
use teacher::{HubOptions, LoadedModel};

/// A golden file in memory.
pub(super) struct Golden(Vec<u8>);

/// The rows of a golden file without their padding.
pub(super) struct GoldenBatch {
    pub(super) tokens: TokenBatch,
    /// Of each token, its index in the padded batch.
    pub(super) attended: Vec<usize>,
}

impl Golden {
    pub(super) fn read(folder: &Path) -> Self {
        Self::read_file(folder, "golden.safetensors")
    }

    pub(super) fn read_file(folder: &Path, file: &str) -> Self {
        Self(fs::read(folder.join(file)).expect(file))
    }

    pub(super) fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.0).expect("safetensors").names().into_iter().map(str::to_string).collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).expect("safetensors").tensor(name).is_ok()
    }

    pub(super) fn floats(&self, name: &str) -> Vec<f32> {
        self.numbers(name, Dtype::F32, f32::from_le_bytes)
    }

    pub(super) fn integers(&self, name: &str) -> Vec<i64> {
        self.numbers(name, Dtype::I64, i64::from_le_bytes)
    }

    fn numbers<const N: usize, T>(&self, name: &str, dtype: Dtype, number: fn([u8; N]) -> T) -> Vec<T> {
        let tensors = SafeTensors::deserialize(&self.0).expect("safetensors");
        let tensor = tensors.tensor(name).expect(name);
        assert_eq!(tensor.dtype(), dtype, "{name}");
        tensor.data().as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
    }

    /// The rows, packed through the attention mask.
    pub(super) fn batch(&self) -> GoldenBatch {
        let tensors = SafeTensors::deserialize(&self.0).expect("safetensors");
        let width = tensors.tensor("input_ids").expect("input_ids").shape()[1];
        let mask = self.integers("attention_mask");
        let attended: Vec<usize> = (0..mask.len()).filter(|&index| mask[index] == 1).collect();
        let pick = |name: &str| {
            let padded = self.integers(name);
            attended.iter().map(|&index| padded[index] as u32).collect::<Vec<_>>()
        };
        let mut starts = vec![0];
        for row in mask.chunks_exact(width) {
            starts.push(starts[starts.len() - 1] + row.iter().sum::<i64>() as u32);
        }
        let tokens = TokenBatch {
            input_ids: pick("input_ids"),
            token_type_ids: pick("token_type_ids"),
            rows: (0..starts.len() as u32 - 1).collect(),
            starts,
        };
        GoldenBatch { tokens, attended }
    }
}

impl GoldenBatch {
    /// The attended rows of a padded `[B, L, H]`: `[T, H]`.
    pub(super) fn pack(&self, padded: &[f32], hidden: usize) -> Vec<f32> {
        self.attended.iter().flat_map(|&index| &padded[index * hidden..(index + 1) * hidden]).copied().collect()
    }
}

pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

pub(super) fn load(folder: &Path) -> Result<LoadedModel, teacher::Error> {
    load_for(folder, Head::Classification)
}

pub(super) fn load_for(folder: &Path, head: Head) -> Result<LoadedModel, teacher::Error> {
    let options = HubOptions { revision: None, offline: true };
    teacher::load_for(&teacher::locate(&folder.display().to_string(), &options)?, head)
}

/// The largest absolute difference.
pub(super) fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    // A difference that is not a number must not pass for a small one.
    differences.fold(0.0, |largest, next| if next.is_nan() { f64::INFINITY } else { next.max(largest) })
}
