//! Standalone dropout.

use candle_core::{Result, Tensor};

use super::{Row, Site};
use crate::value::Rows;

/// Elements are numbered by text if the value has one row per text, and by token if it has one per token.
pub(super) fn state(site: Site, row: &Row<'_>, rows: Rows, x: &Tensor) -> Result<Tensor> {
    row.drop_out(x, Some(site), if rows == Rows::First { row.text } else { row.token })
}
