//! [`Linear`] on a GPU: one product for the output with the bias in its epilogue, and backwards one for the gradient in
//! the weight and one for that in the input.

use crate::Error;
use crate::cuda::op::sums::launch::{ColumnSum, column_partials};
use crate::cuda::operand::{Matrix, Number, Precision};
use crate::cuda::run::Run;
use crate::cuda::work::Matmul;
use crate::op::{Kind, Linear, Op};
use crate::slot::Slot;

pub(in crate::cuda) fn forward(run: &Run<'_>, index: usize, op: &Op, map: &Linear) -> Result<(), Error> {
    product(run, index, op, map, run.value(op.inputs[0].value), run.value(op.out))
}

/// The same for these rows of the input and the output.
pub(in crate::cuda) fn product(
    run: &Run<'_>,
    index: usize,
    op: &Op,
    map: &Linear,
    x: Matrix,
    out: Matrix,
) -> Result<(), Error> {
    // The bias of an activation behind is added here; its gradient is made there.
    let mut readers =
        run.plan.program.ops[index..].iter().filter(|reader| reader.inputs.iter().any(|i| i.value == op.out));
    let behind =
        readers.find_map(|reader| if let Kind::Activate(activate) = &reader.kind { Some(activate.bias) } else { None });
    let bias = map.bias.map(|bias| bias.first).or(behind);
    run.device.matmul(Matmul {
        a: x,
        a_transposed: false,
        b: weight(run, map, out.width),
        b_transposed: true,
        c: out,
        accumulate: false,
        bias: bias.map(|bias| run.bias(bias, out)),
        tf32: run.precision == Precision::Tf32,
    })
}

pub(in crate::cuda) fn backward(run: &Run<'_>, index: usize, op: &Op, map: &Linear) -> Result<(), Error> {
    let (x, d_out, d_x) = (run.value(op.inputs[0].value), run.gradient(op.out), run.gradient(op.inputs[0].value));
    if let Some(bias) = map.bias {
        bias_backward(run, d_out, bias.first)?;
    }
    let weight = weight(run, map, d_out.width);
    let gradient = Matrix { at: run.weights.gradient(map.weight.first), number: Number::F32, ..weight };
    let tf32 = run.precision == Precision::Tf32;
    let product = Matmul {
        a: d_out,
        a_transposed: true,
        b: x,
        b_transposed: false,
        c: gradient,
        accumulate: run.weights.adds_gradient(map.weight)?,
        bias: None,
        tf32,
    };
    run.device.matmul(product)?;
    let accumulate = run.plan.adds(index, 0);
    run.device.matmul(Matmul { a_transposed: false, b: weight, c: d_x, accumulate, ..product })
}

/// The gradient of biases, from this one on: the sums of that in the output.
pub(in crate::cuda::op) fn bias_backward(run: &Run<'_>, d_out: Matrix, first: Slot) -> Result<(), Error> {
    let partials = run.partials([column_partials(d_out.rows, d_out.width), d_out.width]);
    ColumnSum { x: d_out, partials }.launch(run.device)?;
    run.reduce(partials, first)
}

/// `[outer, inner]`
fn weight(run: &Run<'_>, map: &Linear, outer: usize) -> Matrix {
    Matrix::new(run.precision.number(), run.weights.operand(map.weight.first), [outer, map.inner])
}
