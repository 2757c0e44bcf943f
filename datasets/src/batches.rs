//! Packed batches of tokens, and the batching of a whole data set for inference.

use crate::Encodings;
use crate::sampler::cut;

/// A batch of `B` rows with `T` tokens in all, concatenated without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// The tokens of all rows, `[T]`.
    pub input_ids: Vec<u32>,
    /// The token type (segment) of each token, 0 or 1 in BERT, `[T]`.
    pub token_type_ids: Vec<u32>,
    /// The offset of each row, then `T`, `[B + 1]`: row `b` is `starts[b]..starts[b + 1]`.
    pub starts: Vec<u32>,
    /// The index of each row in the data set, `[B]`.
    pub rows: Vec<u32>,
}

impl TokenBatch {
    /// Packs these rows of `encodings`, in this order. Panics if an index is out of range.
    pub fn gather(encodings: &Encodings, rows: &[u32]) -> Self {
        let tokens = rows.iter().map(|row| encodings.length(*row as usize) as usize).sum();
        let mut batch = Self {
            input_ids: Vec::with_capacity(tokens),
            token_type_ids: Vec::with_capacity(tokens),
            starts: Vec::with_capacity(rows.len() + 1),
            rows: rows.to_vec(),
        };
        batch.starts.push(0);
        for &row in rows {
            batch.input_ids.extend_from_slice(encodings.ids(row as usize));
            batch.token_type_ids.extend(encodings.type_ids(row as usize).iter().map(|id| u32::from(*id)));
            batch.starts.push(batch.input_ids.len() as u32);
        }
        batch
    }
}

/// Batches for a forward pass over all rows, as in capture and evaluation: each row once, longest first, so that rows
/// of a batch have similar lengths and the first batch needs the most memory. Rows of equal length keep their order. A
/// batch has at most `batch_tokens` tokens, unless it is a single row that is longer.
pub fn forward_batches(lengths: &[u32], batch_tokens: usize) -> Vec<Vec<u32>> {
    let mut rows: Vec<u32> = (0..lengths.len() as u32).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(lengths[*row as usize]));
    cut(&rows, lengths, batch_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packs_rows_in_the_order_asked_for() {
        let mut encodings = Encodings::new();
        encodings.push(&[1, 5, 2], &[0, 0, 0], false);
        encodings.push(&[], &[], false);
        encodings.push(&[1, 6, 2, 7, 2], &[0, 0, 0, 1, 1], true);
        let batch = TokenBatch::gather(&encodings, &[2, 1, 0]);
        assert_eq!(batch.input_ids, [1, 6, 2, 7, 2, 1, 5, 2]);
        assert_eq!(batch.token_type_ids, [0, 0, 0, 1, 1, 0, 0, 0]);
        assert_eq!(batch.starts, [0, 5, 5, 8]);
        assert_eq!(batch.rows, [2, 1, 0]);
    }

    #[test]
    fn fills_batches_with_the_longest_rows_first() {
        assert_eq!(forward_batches(&[2, 9, 3, 3, 20], 10), [vec![4], vec![1], vec![2, 3, 0]]);
        assert!(forward_batches(&[], 10).is_empty());
    }

    proptest! {
        #[test]
        fn every_row_is_forwarded_once_within_the_budget(
            lengths in prop::collection::vec(0u32..50, 0..100),
            batch_tokens in 0usize..100,
        ) {
            let batches = forward_batches(&lengths, batch_tokens);
            for batch in &batches {
                let tokens: usize = batch.iter().map(|row| lengths[*row as usize] as usize).sum();
                prop_assert!(tokens <= batch_tokens || batch.len() == 1);
            }
            let mut rows: Vec<u32> = batches.into_iter().flatten().collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len() as u32).collect::<Vec<_>>());
        }
    }
}
