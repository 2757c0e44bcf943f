//! Scaled dot-product attention (Vaswani et al., 2017).

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::softmax;

use super::Row;
use super::Site;
use super::{Lengths, Products};
use crate::value::{Rows, Value};

/// `dropout(softmax(query key^T / sqrt(size))) value`, for each text and each of its heads.
///
/// The mask numbers a pair of query and key as `(token * heads + head) * max_length + key`, where `token` is the query's
/// number within the step and `key` the key's within the text.
///
/// # Shapes
/// - `query`: `[rows, heads * size]`; `key`, `value`: `[T, heads * size]`; `out`: `[rows, heads * size]`
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    /// The longest text that the model takes.
    pub(crate) max_length: usize,
    /// On the probabilities.
    pub(crate) site: Option<Site>,
}

impl Attention {
    /// The number of a query's first pair in the mask.
    pub(crate) fn element(&self, token: u64, head: usize) -> u64 {
        (token * self.heads as u64 + head as u64) * self.max_length as u64
    }

    pub(super) fn products(out: Value, lengths: &Lengths) -> Products {
        let pairs = match out.rows {
            Rows::Tokens => lengths.pairs,
            Rows::First => lengths.tokens,
            Rows::Positions => 0,
        };
        Products { linear: 0, attention: 4 * out.width as u64 * pairs }
    }

    pub(super) fn state(&self, row: &Row<'_>, inputs: &[Tensor]) -> Result<Tensor> {
        let [query, key, value] = [0, 1, 2].map(|input| self.heads_apart(&inputs[input]));
        let (query, key, value) = (query?, key?, value?);
        let (_, length, size) = query.dims3()?;
        let scores = (query.matmul(&key.transpose(1, 2)?.contiguous()?)? / (size as f64).sqrt())?;
        let probabilities = self.drop_out(row, &softmax(&scores, D::Minus1)?)?;
        probabilities.matmul(&value)?.transpose(0, 1)?.contiguous()?.reshape((length, self.heads * size))
    }

    /// `[L, heads * size]` to `[heads, L, size]`
    fn heads_apart(&self, x: &Tensor) -> Result<Tensor> {
        let (length, width) = x.dims2()?;
        x.reshape((length, self.heads, width / self.heads))?.transpose(0, 1)?.contiguous()
    }

    /// Masks probabilities `[heads, L, L]`.
    fn drop_out(&self, row: &Row<'_>, x: &Tensor) -> Result<Tensor> {
        let Some(site) = row.site(self.site) else { return Ok(x.clone()) };
        let (heads, queries, keys) = x.dims3()?;
        let mut mask = Vec::with_capacity(x.elem_count());
        for head in 0..heads {
            for query in 0..queries {
                let (site, first) = site.row(self.element(row.token + query as u64, head));
                mask.extend((0..keys as u32).map(|key| site.factor(first.wrapping_add(key))));
            }
        }
        x.mul(&Tensor::from_vec(mask, x.shape(), &Device::Cpu)?.to_dtype(DType::F32)?)
    }
}
