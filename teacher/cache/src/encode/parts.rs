//! The stored bytes of rows, and how numbers and indices are written to them and read back.

use half::{bf16, f16};

use crate::captured::Dtype;

/// The bytes of rows, each part of all rows side by side.
#[derive(Default, Clone, Debug)]
pub(crate) struct Parts {
    /// Of each row: outputs, and bytes of hidden states.
    pub(crate) sizes: Vec<(u32, u32)>,
    pub(crate) logits: Vec<u8>,
    pub(crate) indices: Vec<u8>,
    pub(crate) tails: Vec<u8>,
    pub(crate) hidden_states: Vec<u8>,
}

impl Parts {
    pub(crate) fn append(&mut self, other: &Self) {
        self.sizes.extend(&other.sizes);
        for (ours, theirs) in [
            (&mut self.logits, &other.logits),
            (&mut self.indices, &other.indices),
            (&mut self.tails, &other.tails),
            (&mut self.hidden_states, &other.hidden_states),
        ] {
            ours.extend_from_slice(theirs);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.logits.len() + self.indices.len() + self.tails.len() + self.hidden_states.len()
    }
}

/// The largest number that 16 bits of f16 hold; larger logits are stored as this, and the recorded error says so.
const F16_MAX: f32 = 65_504.0;

pub(super) fn append_numbers(dtype: Dtype, values: &[f32], bytes: &mut Vec<u8>) {
    match dtype {
        Dtype::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Dtype::F16 => {
            let half = |value: &f32| f16::from_f32(value.clamp(-F16_MAX, F16_MAX)).to_le_bytes();
            bytes.extend(values.iter().flat_map(half));
        }
        Dtype::Bf16 => {
            let largest = bf16::MAX.to_f32();
            let brain = |value: &f32| bf16::from_f32(value.clamp(-largest, largest)).to_le_bytes();
            bytes.extend(values.iter().flat_map(brain));
        }
    }
}

/// Stored numbers as they are read.
pub(crate) fn numbers(dtype: Dtype, bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(dtype.bytes()).map(move |bytes| match (dtype, bytes) {
        (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (Dtype::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        (Dtype::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
        // `chunks_exact` gives no other lengths.
        _ => f32::NAN,
    })
}

pub(super) fn append_indices(short: bool, indices: impl Iterator<Item = u32>, bytes: &mut Vec<u8>) {
    match short {
        true => bytes.extend(indices.flat_map(|index| (index as u16).to_le_bytes())),
        false => bytes.extend(indices.flat_map(u32::to_le_bytes)),
    }
}

/// Stored indices as they are read.
pub(crate) fn indices(short: bool, bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(if short { 2 } else { 4 }).map(|bytes| match *bytes {
        [a, b] => u32::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        // `chunks_exact` gives no other lengths.
        _ => u32::MAX,
    })
}
