//! The end of a residual branch: bias, dropout, residual connection and norm.

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
    /// The bias of the branch's last linear map.
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
