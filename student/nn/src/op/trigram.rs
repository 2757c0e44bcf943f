//! The embeddings of three neighbours side by side (Sun et al., 2020: MobileBERT).

use candle_core::{DType, Device, Result, Tensor};

/// Of each token: the next one's row, its own, that of the one before; zeros where the text ends.
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
