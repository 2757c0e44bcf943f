//! Operands on the device: addresses, number formats, and the shapes that kernels and products take.

use std::borrow::Cow;
use std::ops::Range;

use half::bf16;

/// An address on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ptr(pub(crate) u64);

impl Ptr {
    /// What kernels take for "there is none".
    pub(crate) const NULL: Self = Self(0);

    pub(crate) fn offset_bytes(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// What a matrix is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Number {
    F32,
    Bf16,
}

impl Number {
    pub(crate) fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    pub(crate) fn name(self) -> &'static str {
        if self == Self::F32 { "f32" } else { "bf16" }
    }

    /// Values as they stand on the device, rounded.
    pub(crate) fn encode(self, values: &[f32]) -> Cow<'_, [u8]> {
        if self == Self::F32 {
            return Cow::Borrowed(bytemuck::cast_slice(values));
        }
        Cow::Owned(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect())
    }

    /// The reverse of [`encode`](Self::encode).
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
        }
    }
}

/// The precision of a pass. Sums, norms and master weights are always `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in `f32`.
    F32,
    /// `f32` in memory; matrix products read 10 bits of the mantissa.
    Tf32,
    /// Activations and the weights that products read are `bf16`.
    Bf16,
}

impl Precision {
    /// What activations are made of.
    pub(crate) fn number(self) -> Number {
        if self == Self::Bf16 { Number::Bf16 } else { Number::F32 }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Tf32 { "tf32" } else { self.number().name() })
    }
}

/// Numbers in rows on the device: `[rows, width]`, each row `stride` elements behind the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Matrix {
    pub(crate) at: Ptr,
    pub(crate) number: Number,
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) stride: usize,
}

/// `f32 [len]`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vector {
    pub(crate) at: Ptr,
    pub(crate) len: usize,
}

/// `u32 [len]`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    pub(crate) at: Ptr,
    pub(crate) len: usize,
}

impl Matrix {
    /// Rows without gaps.
    pub(crate) fn new(number: Number, at: Ptr, [rows, width]: [usize; 2]) -> Self {
        Self { at, number, rows, width, stride: width }
    }

    pub(crate) fn shape(self) -> [usize; 2] {
        [self.rows, self.width]
    }

    /// Some columns of all rows.
    pub(crate) fn columns(self, columns: Range<usize>) -> Self {
        let at = self.at.offset_bytes(columns.start * self.number.bytes());
        Self { at, width: columns.len(), ..self }
    }
}
