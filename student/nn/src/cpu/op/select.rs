//! Some of a value's rows, on the CPU.

use super::super::chunk::Run;
use super::super::linear::{add_rows, table_row};
use crate::op::Op;

pub(in crate::cpu) fn forward(run: &mut Run<'_>, op: &Op) {
    let width = run.width(op.out);
    let mut out = run.take_value(op.out);
    let x = run.value(op.inputs[0].value);
    for (out, &token) in out.chunks_exact_mut(width).zip(&run.rows(op.out).tokens) {
        out.copy_from_slice(table_row(x, token, width));
    }
    run.put(out);
}

/// No gradient comes to the other rows from here.
pub(in crate::cpu) fn backward(run: &mut Run<'_>, index: usize, op: &Op) {
    let width = run.width(op.out);
    let mut d_x = run.take_gradient(op.inputs[0].value);
    if !run.context.plan.adds(index, 0) {
        d_x.fill(0.0);
    }
    for (d_out, &token) in run.gradient(op.out).chunks_exact(width).zip(&run.rows(op.out).tokens) {
        add_rows(d_out, &mut d_x[token * width..(token + 1) * width]);
    }
    run.put(d_x);
}
