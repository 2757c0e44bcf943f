//! The end of a branch: bias, dropout, residual connection and layer norm.

use candle_core::{Result, Tensor};

use super::Row;
use super::{NormSlots, Site};
use crate::slot::Slot;

/// `norm(dropout(branch + bias) + residual)`
///
/// # Shapes
/// - `branch`, `residual`, output: `[rows, width]`; `bias`: `[width]`
#[derive(Clone, Debug)]
pub(crate) struct ResidualNorm {
    /// Of the linear map that made the branch.
    pub(crate) bias: Slot,
    pub(crate) norm: NormSlots,
    pub(crate) site: Option<Site>,
}

impl ResidualNorm {
    pub(super) fn state(&self, row: &Row<'_>, branch: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let branch = row.drop_out(&branch.broadcast_add(row.get(self.bias))?, self.site, row.token)?;
        self.norm.state(row, &(branch + residual)?)
    }
}
