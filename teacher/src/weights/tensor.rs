//! What a weights file holds, whatever its format.

/// A tensor as it came from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTensor {
    /// Length along each dimension.
    pub shape: Vec<usize>,
    /// The numbers, the last dimension running fastest.
    pub data: Vec<f32>,
}

/// The named tensors of a file.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    pub(crate) floats: Vec<(String, RawTensor)>,
    /// Names of tensors of integers, such as `position_ids`, with their types: no weights, unless they are quantised ones.
    pub(crate) integers: Vec<(String, String)>,
}

/// The numbers of `N` bytes each, as f32.
pub(super) fn as_f32<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
}
