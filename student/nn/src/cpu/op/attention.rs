//! [`Attention`] on the CPU, text by text and head by head.
//!
//! The backward pass computes the probabilities again instead of storing them.

use std::ops::Range;

use super::super::chunk::{Run, Scratch, Taken};
use super::super::product::{Into, View, product};
use crate::cpu::simd::{self, vectorized};
use crate::op::{Attention, Op};

use crate::random::DropoutSite;
use crate::value::{Columns, Rows};

pub(in crate::cpu) fn forward(run: &mut Run<'_>, op: &Op, attention: &Attention) {
    let mut out = run.take_value(op.out);
    let mut scratch = std::mem::take(&mut run.chunk.scratch);
    let width = run.width(op.out);
    let [query, key, value] = [0, 1, 2].map(|input| Operand::new(run, op.inputs[input]));
    let [query, key, value] = [&query, &key, &value].map(|operand| (operand, run.value(operand.columns.value)));
    each_head(run, op, attention, |head| {
        if head.queries.is_empty() {
            return;
        }
        let probabilities = head.probabilities(
            query.0.view(query.1, &head.queries, head),
            key.0.view(key.1, &head.keys, head),
            &mut scratch,
        );
        head.drop(run, op, attention, probabilities);
        let probabilities = View::new(probabilities, head.queries.len(), head.keys.len(), head.keys.len());
        let out = &mut out[head.queries.start * width + head.column..];
        product(probabilities, value.0.view(value.1, &head.keys, head), 1.0, out, width, Into::Fresh);
    });
    run.chunk.scratch = scratch;
    run.put(out);
}

/// Replaces queries, keys and values by the gradients in them.
pub(in crate::cpu) fn backward(run: &mut Run<'_>, op: &Op, attention: &Attention) {
    let mut scratch = std::mem::take(&mut run.chunk.scratch);
    let width = run.width(op.out);
    let operands = [0, 1, 2].map(|input| Operand::new(run, op.inputs[input]));
    // Several operands may be columns of one value.
    let mut places: Vec<Taken> = Vec::new();
    let place_of = [0, 1, 2].map(|input| {
        let value = op.inputs[input].value;
        match op.inputs[..input].iter().position(|other| other.value == value) {
            Some(earlier) => usize::min(earlier, places.len() - 1),
            None => {
                places.push(run.take_replaced(value));
                places.len() - 1
            }
        }
    });
    let [query, key, value] = &operands;
    each_head(run, op, attention, |head| {
        let (queries, length, size) = (head.queries.len(), head.keys.len(), head.size);
        let inverse_sqrt = 1.0 / (size as f32).sqrt();
        if queries > 0 {
            let [q, k] = [(query, 0, &head.queries), (key, 1, &head.keys)]
                .map(|(operand, input, rows)| operand.view(&places[place_of[input]], rows, head));
            head.probabilities(q, k, &mut scratch);
        }
        let Scratch { probabilities, d_probabilities, dropped, d_query, d_key, d_value } = &mut scratch;
        let pairs = queries * length;
        let probabilities = room(probabilities, pairs);
        let (d_probabilities, dropped) = (room(d_probabilities, pairs), room(dropped, pairs));
        let d_query = room(d_query, queries * size);
        let (d_key, d_value) = (room(d_key, length * size), room(d_value, length * size));
        if queries == 0 {
            d_key.fill(0.0);
            d_value.fill(0.0);
        } else {
            let [q, k, v] = [(query, 0, &head.queries), (key, 1, &head.keys), (value, 2, &head.keys)]
                .map(|(operand, input, rows)| operand.view(&places[place_of[input]], rows, head));
            let d_out = &run.gradient(op.out)[head.queries.start * width + head.column..];
            let d_out = View::new(d_out, queries, size, width);
            dropped.copy_from_slice(probabilities);
            head.drop(run, op, attention, dropped);
            product(View::new(dropped, queries, length, length).transposed(), d_out, 1.0, d_value, size, Into::Fresh);
            product(d_out, v.transposed(), 1.0, d_probabilities, length, Into::Fresh);
            head.drop(run, op, attention, d_probabilities);
            softmax_backward(probabilities, d_probabilities, length);
            let d_scores = View::new(d_probabilities, queries, length, length);
            product(d_scores, k, inverse_sqrt, d_query, size, Into::Fresh);
            product(d_scores.transposed(), q, inverse_sqrt, d_key, size, Into::Fresh);
            query.scatter(d_query, &mut places[place_of[0]], &head.queries, head);
        }
        key.scatter(d_key, &mut places[place_of[1]], &head.keys, head);
        value.scatter(d_value, &mut places[place_of[2]], &head.keys, head);
    });
    places.into_iter().for_each(|place| run.put(place));
    run.chunk.scratch = scratch;
}

/// One head of one text.
struct Head {
    index: usize,
    /// Where its columns begin in the output, and how many they are.
    column: usize,
    size: usize,
    /// Its rows of the queries, and of the keys and values.
    queries: Range<usize>,
    keys: Range<usize>,
}

fn each_head(run: &Run<'_>, op: &Op, attention: &Attention, mut work: impl FnMut(&Head)) {
    let size = run.width(op.out) / attention.heads;
    let (queries, keys) = (&run.rows(op.out).starts, &run.chunk.selected.of(Rows::Tokens).starts);
    for text in 0..keys.len() - 1 {
        for index in 0..attention.heads {
            let (queries, keys) = (queries[text]..queries[text + 1], keys[text]..keys[text + 1]);
            work(&Head { index, column: index * size, size, queries, keys });
        }
    }
}

impl Head {
    /// softmax(query key^T / sqrt(size)), `[queries, keys]`.
    fn probabilities<'s>(&self, query: View<'_>, key: View<'_>, scratch: &'s mut Scratch) -> &'s mut [f32] {
        let length = self.keys.len();
        let probabilities = room(&mut scratch.probabilities, self.queries.len() * length);
        product(query, key.transposed(), 1.0 / (self.size as f32).sqrt(), probabilities, length, Into::Fresh);
        softmax(probabilities, length);
        probabilities
    }

    /// Applies the dropout mask.
    fn drop(&self, run: &Run<'_>, op: &Op, attention: &Attention, pairs: &mut [f32]) {
        let Some(mask) = run.mask(attention.site) else { return };
        let tokens = &run.rows(op.out).tokens[self.queries.clone()];
        for (values, &token) in pairs.chunks_exact_mut(self.keys.len()).zip(tokens) {
            let (mask, first) = mask.row(attention.element(run.token(token), self.index));
            drop_row(values, mask, first);
        }
    }
}

/// Columns of a value, and how far apart its rows are.
struct Operand {
    columns: Columns,
    stride: usize,
}

impl Operand {
    fn new(run: &Run<'_>, columns: Columns) -> Self {
        Self { columns, stride: run.width(columns.value) }
    }

    fn start(&self, rows: &Range<usize>, head: &Head) -> usize {
        rows.start * self.stride + self.columns.first + head.column
    }

    /// A head's part of some rows.
    fn view<'v>(&self, data: &'v [f32], rows: &Range<usize>, head: &Head) -> View<'v> {
        View::new(&data[self.start(rows, head)..], rows.len(), head.size, self.stride)
    }

    fn scatter(&self, from: &[f32], data: &mut [f32], rows: &Range<usize>, head: &Head) {
        let data = data[self.start(rows, head)..].chunks_mut(self.stride);
        for (row, out) in from.chunks_exact(head.size).zip(data) {
            out[..head.size].copy_from_slice(row);
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
    fn drop_row(values: &mut [f32], mask: DropoutSite, first: u32) {
        for (i, value) in values.iter_mut().enumerate() {
            *value *= mask.factor(first.wrapping_add(i as u32));
        }
    }
}
