//! Layer norm (Ba et al., 2016), or only scale and shift (NoNorm of MobileBERT, Sun et al., 2020).

use candle_core::{D, Result, Tensor};

use super::Row;
use crate::slot::Slot;

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias`, row by row; without an epsilon `x * weight + bias`.
///
/// # Shapes
/// - `x`, output: `[rows, width]`; `weight`, `bias`: `[width]`
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormSlots {
    pub(crate) weight: Slot,
    pub(crate) bias: Slot,
    pub(crate) epsilon: Option<f32>,
}

impl NormSlots {
    // candle_nn's own layer norm drops gradients; this one is made of operators that have them.
    pub(super) fn state(&self, row: &Row<'_>, x: &Tensor) -> Result<Tensor> {
        let normalized = match self.epsilon {
            Some(epsilon) => {
                let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
                let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
                centered.broadcast_div(&(variance + f64::from(epsilon))?.sqrt()?)?
            }
            None => x.clone(),
        };
        normalized.broadcast_mul(row.get(self.weight))?.broadcast_add(row.get(self.bias))
    }
}
