//! Concatenates the embeddings of three neighbouring tokens (MobileBERT, Sun et al., 2020).

use candle_core::{DType, Device, Result, Tensor};

/// For each token: the row of the next token, its own, and that of the previous one; zeros beyond the ends of the text.
///
/// # Shapes
/// - `x`: `[T, width]`; output: `[rows, 3 * width]`
pub(super) fn state(x: &Tensor) -> Result<Tensor> {
    let (length, width) = x.dims2()?;
    let nothing = Tensor::zeros((1, width), DType::F32, &Device::Cpu)?;
    let next = Tensor::cat(&[&x.narrow(0, 1, length - 1)?, &nothing], 0)?;
    let before = Tensor::cat(&[&nothing, &x.narrow(0, 0, length - 1)?], 0)?;
    Tensor::cat(&[&next, x, &before], 1)
}
