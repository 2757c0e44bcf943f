//! [`Decode`] on the CPU: two products into one output, over the columns of the input. The weights' gradients are made
//! behind the pass, over all chunks.

use super::super::chunk::Run;
use super::super::linear::{add_bias, add_rows};
use super::super::product::{Into, View, product};
use super::linear::back_through_words;
use crate::op::{Decode, Op};
use crate::slot::Span;

pub(in crate::cpu) fn forward(run: &mut Run<'_>, op: &Op, decode: &Decode) {
    let mut out = run.take_value(op.out);
    let (x, vocabulary) = (run.value(op.inputs[0].value), run.width(op.out));
    let Decode { embedding, more, .. } = *decode;
    let rows = x.len() / (embedding + more);
    if rows > 0 {
        let parameters = run.context.parameters;
        let columns = |first: usize, count| View::new(&x[first..], rows, count, embedding + more);
        let words = View::new(parameters.get(decode.words), vocabulary, embedding, embedding).transposed();
        let rest = View::new(parameters.get(decode.rest), more, vocabulary, vocabulary);
        product(columns(0, embedding), words, 1.0, &mut out, vocabulary, Into::Fresh);
        product(columns(embedding, more), rest, 1.0, &mut out, vocabulary, Into::Sum);
        add_bias(&mut out, parameters.get(decode.bias));
    }
    run.put(out);
}

pub(in crate::cpu) fn backward(run: &mut Run<'_>, index: usize, op: &Op, decode: &Decode) {
    let Decode { embedding, more, .. } = *decode;
    let width = embedding + more;
    let mut vectors = run.take_vectors();
    let [d_bias] = run.vectors(&mut vectors, [Span::from(decode.bias)]);
    add_rows(run.gradient(op.out), d_bias);
    run.put_vectors(vectors);
    let mut d_x = run.take_gradient(op.inputs[0].value);
    if !run.context.plan.adds(index, 0) {
        d_x.fill(0.0);
    }
    let (d_out, vocabulary) = (run.gradient(op.out), run.width(op.out));
    let rows = d_out.len() / vocabulary;
    if rows > 0 {
        let [words, rest] = [decode.words, decode.rest].map(|slot| run.context.parameters.get(slot));
        back_through_words(d_out, words, [rows, vocabulary, embedding], &mut d_x, width);
        let d_out = View::new(d_out, rows, vocabulary, vocabulary);
        let rest = View::new(rest, more, vocabulary, vocabulary).transposed();
        product(d_out, rest, 1.0, &mut d_x[embedding..], width, Into::Sum);
    }
    run.put(d_x);
}
