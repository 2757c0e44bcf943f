//! Embeddings: the sum of a token's rows in each table, then norm and dropout.

use candle_core::{Device, Result, Tensor};

use super::Row;
use super::{NormSlots, Site};
use crate::slot::Slot;

/// `dropout(norm(table_1[..] + table_2[..] + ..))`; the norm is optional.
///
/// # Shapes
/// - tables: `[.., width]`; output: `[T, width]`
#[derive(Clone, Debug)]
pub(crate) struct Embed {
    /// In the order in which they are added.
    pub(crate) tables: Vec<Table>,
    pub(crate) norm: Option<NormSlots>,
    pub(crate) site: Option<Site>,
}

/// A table and the row of it that a token takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) slot: Slot,
    pub(crate) lookup: Lookup,
}

/// Which row of a table a token takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookup {
    /// By token id.
    Word,
    /// By token type.
    Type,
    /// By position within the text; the first token has row `offset`.
    Position { offset: usize },
}

impl Embed {
    pub(super) fn state(&self, row: &Row<'_>) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for table in &self.tables {
            let ids: Vec<u32> = match table.lookup {
                Lookup::Word => row.input_ids.to_vec(),
                Lookup::Type => row.token_type_ids.to_vec(),
                Lookup::Position { offset } => (offset as u32..).take(row.input_ids.len()).collect(),
            };
            let rows = row.get(table.slot).index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
            sum = Some(sum.map_or(Ok(rows.clone()), |sum| sum + rows)?);
        }
        let sum = sum.ok_or_else(|| candle_core::Error::Msg("embeddings without a table".into()))?;
        let normed = self.norm.map_or(Ok(sum.clone()), |norm| norm.state(row, &sum))?;
        row.drop_out(&normed, self.site, row.token)
    }
}
