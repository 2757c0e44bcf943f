//! The output matrix of a masked-language model whose hidden states are wider than its word embeddings.

use candle_core::{Result, Tensor};

use super::{Lengths, Products, Row};
use crate::slot::Slot;
use crate::value::Value;

/// `out = x[:, ..embedding] words^T + x[:, embedding..] rest + bias`
///
/// # Shapes
/// - `x`: `[rows, embedding + more]`; `words`: `[vocabulary, embedding]`; `rest`: `[more, vocabulary]`; `bias`:
///   `[vocabulary]`; `out`: `[rows, vocabulary]`
#[derive(Clone, Debug)]
pub(crate) struct Decode {
    pub(crate) words: Slot,
    pub(crate) rest: Slot,
    pub(crate) bias: Slot,
    /// Number of columns of `x` that are multiplied by `words`, and number of the remaining ones.
    pub(crate) embedding: usize,
    pub(crate) more: usize,
}

impl Decode {
    pub(super) fn products(&self, out: Value, lengths: &Lengths) -> Products {
        let inner = self.embedding + self.more;
        Products { linear: 2 * lengths.rows(out.rows) * (inner * out.width) as u64, attention: 0 }
    }

    pub(super) fn state(&self, row: &Row<'_>, x: &Tensor) -> Result<Tensor> {
        let words = x.narrow(1, 0, self.embedding)?.contiguous()?.matmul(&row.get(self.words).t()?)?;
        let rest = x.narrow(1, self.embedding, self.more)?.contiguous()?.matmul(row.get(self.rest))?;
        (words + rest)?.broadcast_add(row.get(self.bias))
    }
}
