//! Dropout on its own.

use candle_core::{Result, Tensor};

use super::{Row, Site};
use crate::value::Rows;

/// On its own, dropout numbers the texts where the value has one row a text, and tokens where it has all.
pub(super) fn state(site: Site, row: &Row<'_>, rows: Rows, x: &Tensor) -> Result<Tensor> {
    row.drop_out(x, Some(site), if rows == Rows::First { row.text } else { row.token })
}
