//! Selection of some of a value's rows.

use candle_core::{Device, Result, Tensor};

use super::Row;
use crate::value::Rows;

/// The first token of a text, or its masked tokens.
pub(super) fn state(rows: Rows, row: &Row<'_>, x: &Tensor) -> Result<Tensor> {
    match rows {
        Rows::Tokens => Ok(x.clone()),
        Rows::First => x.narrow(0, 0, 1),
        Rows::Positions => x.index_select(&Tensor::new(row.positions, &Device::Cpu)?, 0),
    }
}
