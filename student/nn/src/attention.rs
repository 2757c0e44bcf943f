//! Scaled dot-product attention of one sequence (Vaswani et al., 2017), forward and backward.
//!
//! The backward pass computes the probabilities again instead of storing them.

use crate::product::{Into, View, product};
use crate::random::DropoutSite;
use crate::simd::{self, vectorized};

/// One sequence's share of a packed batch: its keys are `length` rows of `key_value`, its queries `queries` rows of
/// `query` (all its tokens, or the first alone).
#[derive(Clone, Copy)]
pub(crate) struct Sequence {
    pub(crate) length: usize,
    pub(crate) queries: usize,
    pub(crate) heads: usize,
    pub(crate) hidden: usize,
    /// Number of the sequence's first token, for the dropout mask.
    pub(crate) token: usize,
    /// Longest sequence the model takes, for the dropout mask.
    pub(crate) max_length: usize,
    pub(crate) dropout: Option<DropoutSite>,
}

/// Buffers that one sequence needs at a time; grow once.
#[derive(Default)]
pub(crate) struct Scratch {
    probabilities: Vec<f32>,
    d_probabilities: Vec<f32>,
    dropped: Vec<f32>,
    d_query: Vec<f32>,
    d_key: Vec<f32>,
    d_value: Vec<f32>,
}

impl Sequence {
    /// Writes the attention output of every query.
    ///
    /// # Shapes
    /// - `query`, `context`: `[queries, hidden]`; `key_value`: `[length, 2 * hidden]`
    pub(crate) fn forward(self, query: &[f32], key_value: &[f32], scratch: &mut Scratch, context: &mut [f32]) {
        let size = self.hidden / self.heads;
        for head in 0..self.heads {
            let value = View::new(&key_value[self.hidden + head * size..], self.length, size, 2 * self.hidden);
            let probabilities = self.probabilities(head, query, key_value, scratch);
            self.drop(head, probabilities);
            let probabilities = View::new(probabilities, self.queries, self.length, self.length);
            product(probabilities, value, 1.0, &mut context[head * size..], self.hidden, Into::Fresh);
        }
    }

    /// Replaces `query` and `key_value` by the gradients in them.
    ///
    /// # Shapes
    /// - as in [`forward`](Self::forward); `d_context`: `[queries, hidden]`
    pub(crate) fn backward(self, query: &mut [f32], key_value: &mut [f32], d_context: &[f32], scratch: &mut Scratch) {
        let size = self.hidden / self.heads;
        let (length, queries, hidden) = (self.length, self.queries, self.hidden);
        let inverse_sqrt = 1.0 / (size as f32).sqrt();
        for head in 0..self.heads {
            self.probabilities(head, query, key_value, scratch);
            let Scratch { probabilities, d_probabilities, dropped, d_query, d_key, d_value } = scratch;
            let pairs = queries * length;
            let probabilities = &probabilities[..pairs];
            let (d_probabilities, dropped) = (room(d_probabilities, pairs), room(dropped, pairs));
            let d_query = room(d_query, queries * size);
            let (d_key, d_value) = (room(d_key, length * size), room(d_value, length * size));
            let d_out = View::new(&d_context[head * size..], queries, size, hidden);
            let key = View::new(&key_value[head * size..], length, size, 2 * hidden);
            let value = View::new(&key_value[hidden + head * size..], length, size, 2 * hidden);

            dropped.copy_from_slice(probabilities);
            self.drop(head, dropped);
            product(View::new(dropped, queries, length, length).transposed(), d_out, 1.0, d_value, size, Into::Fresh);
            product(d_out, value.transposed(), 1.0, d_probabilities, length, Into::Fresh);
            self.drop(head, d_probabilities);
            softmax_backward(probabilities, d_probabilities, length);
            let d_scores = View::new(d_probabilities, queries, length, length);
            product(d_scores, key, inverse_sqrt, d_query, size, Into::Fresh);
            let old_query = View::new(&query[head * size..], queries, size, hidden);
            product(d_scores.transposed(), old_query, inverse_sqrt, d_key, size, Into::Fresh);

            scatter(d_query, size, &mut query[head * size..], hidden);
            scatter(d_key, size, &mut key_value[head * size..], 2 * hidden);
            scatter(d_value, size, &mut key_value[hidden + head * size..], 2 * hidden);
        }
    }

    /// softmax(query key^T / sqrt(size)) of one head, `[queries, length]`.
    fn probabilities<'a>(
        &self,
        head: usize,
        query: &[f32],
        key_value: &[f32],
        scratch: &'a mut Scratch,
    ) -> &'a mut [f32] {
        let size = self.hidden / self.heads;
        let probabilities = room(&mut scratch.probabilities, self.queries * self.length);
        let query = View::new(&query[head * size..], self.queries, size, self.hidden);
        let key = View::new(&key_value[head * size..], self.length, size, 2 * self.hidden);
        product(query, key.transposed(), 1.0 / (size as f32).sqrt(), probabilities, self.length, Into::Fresh);
        softmax(probabilities, self.length);
        probabilities
    }

    /// Applies the dropout mask of one head.
    fn drop(&self, head: usize, pairs: &mut [f32]) {
        let Some(site) = self.dropout else { return };
        for (row, values) in pairs.chunks_exact_mut(self.length).enumerate() {
            let element = ((self.token + row) * self.heads + head) * self.max_length;
            drop_row(values, site, element as u32);
        }
    }
}

/// The first `n` values of a buffer that only grows.
fn room(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

vectorized! {
    /// Of every row.
    fn softmax(rows: &mut [f32], length: usize) {
        for row in rows.chunks_exact_mut(length) {
            let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
            for value in row.iter_mut() {
                *value = simd::exp(*value - largest);
            }
            let scale = 1.0 / simd::sum(length, |i| row[i]);
            for value in row.iter_mut() {
                *value *= scale;
            }
        }
    }
}

vectorized! {
    /// Of every row: `d` is the gradient in the probabilities, then in the scores.
    fn softmax_backward(probabilities: &[f32], d: &mut [f32], length: usize) {
        for (probabilities, d) in probabilities.chunks_exact(length).zip(d.chunks_exact_mut(length)) {
            let projection = simd::sum(length, |i| d[i] * probabilities[i]);
            for i in 0..length {
                d[i] = probabilities[i] * (d[i] - projection);
            }
        }
    }
}

vectorized! {
    fn drop_row(values: &mut [f32], site: DropoutSite, element: u32) {
        for (i, value) in values.iter_mut().enumerate() {
            *value *= site.factor(element.wrapping_add(i as u32));
        }
    }
}

fn scatter(rows: &[f32], width: usize, out: &mut [f32], stride: usize) {
    for (row, out) in rows.chunks_exact(width).zip(out.chunks_mut(stride)) {
        out[..width].copy_from_slice(row);
    }
}
