//! [`Decode`] on a GPU: two products into one output, over the columns of the input, and backwards two for the gradients in
//! the weights and two for that in the input.

use crate::Error;
use crate::cuda::op::linear::run::bias_backward;
use crate::cuda::operand::{Matrix, Number, Precision};
use crate::cuda::run::Run;
use crate::cuda::work::Matmul;
use crate::op::{Decode, Op};
use crate::slot::Slot;

pub(in crate::cuda) fn forward(run: &Run<'_>, op: &Op, decode: &Decode) -> Result<(), Error> {
    let out = run.value(op.out);
    let [x_words, x_rest] = parts(decode, run.value(op.inputs[0].value));
    let words = Matmul {
        a: x_words,
        a_transposed: false,
        b: weight(run, decode.words),
        b_transposed: true,
        c: out,
        accumulate: false,
        bias: Some(run.bias(decode.bias, out)),
        tf32: run.precision == Precision::Tf32,
    };
    run.device.matmul(words)?;
    let b = weight(run, decode.rest);
    run.device.matmul(Matmul { a: x_rest, b, b_transposed: false, accumulate: true, bias: None, ..words })
}

pub(in crate::cuda) fn backward(run: &Run<'_>, index: usize, op: &Op, decode: &Decode) -> Result<(), Error> {
    let d_out = run.gradient(op.out);
    bias_backward(run, d_out, decode.bias)?;
    let [x_words, x_rest] = parts(decode, run.value(op.inputs[0].value));
    let [d_words, d_rest] = parts(decode, run.gradient(op.inputs[0].value));
    let [words, rest] = [decode.words, decode.rest].map(|slot| weight(run, slot));
    let [words_gradient, rest_gradient] = [(decode.words, words), (decode.rest, rest)].map(|(slot, weight)| Matrix {
        at: run.weights.gradient(slot),
        number: Number::F32,
        ..weight
    });
    let of_words = Matmul {
        a: d_out,
        a_transposed: true,
        b: x_words,
        b_transposed: false,
        c: words_gradient,
        accumulate: true,
        bias: None,
        tf32: run.precision == Precision::Tf32,
    };
    run.device.matmul(of_words)?;
    run.device.matmul(Matmul { a: x_rest, b: d_out, c: rest_gradient, ..of_words })?;
    let into_words =
        Matmul { a_transposed: false, b: words, c: d_words, accumulate: run.plan.adds(index, 0), ..of_words };
    run.device.matmul(into_words)?;
    run.device.matmul(Matmul { b: rest, b_transposed: true, c: d_rest, ..into_words })
}

/// The columns that meet the words, and the rest.
fn parts(decode: &Decode, x: Matrix) -> [Matrix; 2] {
    let Decode { embedding, more, .. } = *decode;
    [x.columns(0..embedding), x.columns(embedding..embedding + more)]
}

fn weight(run: &Run<'_>, slot: Slot) -> Matrix {
    Matrix::new(run.precision.number(), run.weights.operand(slot), run.weights.shape(slot))
}
