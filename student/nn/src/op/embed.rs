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
    /// By token id. The row of `padding` learns nothing here, as with `padding_idx` in PyTorch.
    Word { padding: u32 },
    /// By token type.
    Type,
    /// That of its place within the text.
    Position(Positions),
}

/// How tokens are counted within a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Positions {
    /// The row that the first token takes.
    pub(crate) offset: usize,
    /// The token that is not counted and takes the row before that: RoBERTa's padding, wherever it stands.
    pub(crate) uncounted: Option<u32>,
}

impl Lookup {
    /// The row of the table that gets no gradient, wherever it is looked up: PyTorch's `padding_idx`.
    pub(crate) fn untrained(self) -> Option<usize> {
        match self {
            Self::Word { padding } => Some(padding as usize),
            Self::Type => None,
            Self::Position(positions) => positions.uncounted.map(|_| positions.offset - 1),
        }
    }
}

impl Positions {
    /// The row that each token of a text takes.
    pub(crate) fn rows(self, input_ids: &[u32]) -> impl Iterator<Item = usize> {
        let mut next = self.offset;
        input_ids.iter().map(move |&id| {
            if Some(id) == self.uncounted {
                return self.offset - 1;
            }
            next += 1;
            next - 1
        })
    }
}

impl Embed {
    pub(super) fn state(&self, row: &Row<'_>) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for table in &self.tables {
            let ids: Vec<u32> = match table.lookup {
                Lookup::Word { .. } => row.input_ids.to_vec(),
                Lookup::Type => row.token_type_ids.to_vec(),
                Lookup::Position(positions) => positions.rows(row.input_ids).map(|row| row as u32).collect(),
            };
            let rows = row.get(table.slot).index_select(&Tensor::new(ids.as_slice(), &Device::Cpu)?, 0)?;
            let learns = |&id: &u32| if Some(id as usize) == table.lookup.untrained() { 0f32 } else { 1. };
            let learns = Tensor::from_iter(ids.iter().map(learns), &Device::Cpu)?.unsqueeze(1)?;
            let untrained = rows.detach().broadcast_mul(&learns.affine(-1., 1.)?)?;
            let rows = (rows.broadcast_mul(&learns)? + untrained)?;
            sum = Some(sum.map_or(Ok(rows.clone()), |sum| sum + rows)?);
        }
        let sum = sum.ok_or_else(|| candle_core::Error::Msg("embeddings without a table".into()))?;
        let normed = self.norm.map_or(Ok(sum.clone()), |norm| norm.state(row, &sum))?;
        row.drop_out(&normed, self.site, row.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `create_position_ids_from_input_ids` of `modeling_roberta.py`, with its own numbers.
    #[test]
    fn robertas_padding_is_not_counted_wherever_it_stands() {
        let positions = Positions { offset: 2, uncounted: Some(1) };
        let rows = |ids: &[u32]| positions.rows(ids).collect::<Vec<_>>();
        assert_eq!(rows(&[0, 7, 8, 2]), [2, 3, 4, 5]);
        assert_eq!(rows(&[0, 7, 1, 8, 1, 1, 2]), [2, 3, 1, 4, 1, 1, 5]);
        let berts = Positions { offset: 0, uncounted: None };
        assert_eq!(berts.rows(&[2, 0, 0, 3]).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
