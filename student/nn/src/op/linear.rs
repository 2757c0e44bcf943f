//! Linear maps.

use candle_core::{Result, Tensor};

use super::Row;
use super::{Lengths, Products};
use crate::slot::Span;
use crate::value::Value;

/// `out = x weight^T + bias`
///
/// # Shapes
/// - `x`: `[rows, inner]`; `weight`: `[outer, inner]`; `bias`: `[outer]`; `out`: `[rows, outer]`
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// One weight, or several adjacent ones.
    pub(crate) weight: Span,
    /// `None` if there is no bias, or if the next operation adds it.
    pub(crate) bias: Option<Span>,
    pub(crate) inner: usize,
}

impl Linear {
    pub(super) fn products(&self, out: Value, lengths: &Lengths) -> Products {
        Products { linear: 2 * lengths.rows(out.rows) * (self.inner * out.width) as u64, attention: 0 }
    }

    pub(super) fn state(&self, row: &Row<'_>, x: &Tensor) -> Result<Tensor> {
        let product = x.matmul(&row.get(self.weight.first).t()?)?;
        self.bias.map_or(Ok(product.clone()), |bias| product.broadcast_add(row.get(bias.first)))
    }
}
