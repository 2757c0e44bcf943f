//! [`Linear`] on the CPU: one product for the output, one for the gradient in the input. The weight's gradient is made
//! behind the pass, over all chunks.

use super::super::chunk::Run;
use super::super::linear::{add_bias, add_rows, linear, linear_backward, linear_panels};
use super::super::product::{Into, View, product};
use crate::op::{Linear, Op};
use crate::slot::Slot;

/// Words that one product of the way back through an output matrix of a vocabulary reads: as many as keep a panel of them
/// in the second-level cache.
const WORDS: usize = 1024;

pub(in crate::cpu) fn forward(run: &mut Run<'_>, op: &Op, map: &Linear) {
    let mut out = run.take_value(op.out);
    let x = run.value(op.inputs[0].value);
    let rows = x.len() / map.inner;
    match run.context.prepared.and_then(|prepared| prepared.get(&map.weight)) {
        Some(panels) => linear_panels(x, panels, rows, map.inner, &mut out),
        None => linear(x, run.context.parameters.span(map.weight), rows, map.inner, &mut out, Into::Fresh),
    }
    if let Some(bias) = map.bias {
        add_bias(&mut out, run.context.parameters.span(bias));
    }
    run.put(out);
}

pub(in crate::cpu) fn backward(run: &mut Run<'_>, index: usize, op: &Op, map: &Linear) {
    let input = op.inputs[0].value;
    if let Some(bias) = map.bias {
        let mut vectors = run.take_vectors();
        let [d_bias] = run.vectors(&mut vectors, [bias]);
        add_rows(run.gradient(op.out), d_bias);
        run.put_vectors(vectors);
    }
    let mut d_x = run.take_gradient(input);
    let d_out = run.gradient(op.out);
    let weight = run.context.parameters.span(map.weight);
    let (rows, outer) = (d_x.len() / map.inner, run.width(op.out));
    let into = if run.context.plan.adds(index, 0) { Into::Sum } else { Into::Fresh };
    if map.weight.first == Slot::WordEmbeddings {
        if into == Into::Fresh {
            d_x.fill(0.0);
        }
        back_through_words(d_out, weight, [rows, outer, map.inner], &mut d_x, map.inner);
    } else {
        linear_backward(d_out, weight, rows, map.inner, &mut d_x, into);
    }
    run.put(d_x);
}

/// `d_x [rows, inner] += d_out [rows, outer] words`, where the output matrix `[outer, inner]` is a vocabulary's.
pub(super) fn back_through_words(
    d_out: &[f32],
    words: &[f32],
    [rows, outer, inner]: [usize; 3],
    d_x: &mut [f32],
    stride: usize,
) {
    for first in (0..outer).step_by(WORDS) {
        let count = WORDS.min(outer - first);
        let d_out = View::new(d_out.get(first..).unwrap_or_default(), rows, count, outer);
        let words = View::new(&words[first * inner..(first + count) * inner], count, inner, inner);
        product(d_out, words, 1.0, d_x, stride, Into::Sum);
    }
}
