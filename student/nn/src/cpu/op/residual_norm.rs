//! [`ResidualNorm`] on the CPU: one pass over each row.

use super::super::chunk::Run;
use super::super::norm;
use crate::op::{Op, ResidualNorm};
use crate::slot::Span;

/// Leaves the normalised rows in the place of the branch.
pub(in crate::cpu) fn forward(run: &mut Run<'_>, index: usize, op: &Op, end: &ResidualNorm) {
    let [branch, residual] = [op.inputs[0].value, op.inputs[1].value];
    let width = run.width(op.out);
    let mut scale = run.take_state(index, 0, run.rows(op.out).tokens.len());
    let mut out = run.take_value(op.out);
    let mut branch = run.take_value(branch);
    let residual = run.value(residual);
    let (mask, norm, bias) = (run.mask(end.site), run.norm(&end.norm), run.context.parameters.get(end.bias));
    let rows = branch.chunks_exact_mut(width).zip(residual.chunks_exact(width)).zip(out.chunks_exact_mut(width));
    for (row, ((branch, residual), out)) in rows.enumerate() {
        let mask = mask.map(|mask| mask.row(run.token(run.rows(op.out).tokens[row]) * width as u64));
        scale[row] = norm::forward_row(branch, bias, residual, norm, mask, out);
    }
    run.put(scale);
    run.put(out);
    run.put(branch);
}

pub(in crate::cpu) fn backward(run: &mut Run<'_>, index: usize, op: &Op, end: &ResidualNorm) {
    let width = run.width(op.out);
    let scale = run.take_state(index, 0, run.rows(op.out).tokens.len());
    let mut branch = run.take_replaced(op.inputs[0].value);
    let mut d_out = run.take_gradient(op.out);
    let weight = run.context.parameters.get(end.norm.weight);
    let mask = run.mask(end.site);
    let mut vectors = run.take_vectors();
    let spans = [end.norm.weight, end.norm.bias, end.bias].map(Span::from);
    let [d_weight, d_bias, d_branch_bias] = run.vectors(&mut vectors, spans);
    for (row, (d_out, branch)) in d_out.chunks_exact_mut(width).zip(branch.chunks_exact_mut(width)).enumerate() {
        let mask = mask.map(|mask| mask.row(run.token(run.rows(op.out).tokens[row]) * width as u64));
        let scale = end.norm.epsilon.map(|_| scale[row]);
        norm::backward_row(d_out, branch, scale, weight, mask, d_weight, d_bias, d_branch_bias);
    }
    run.put_vectors(vectors);
    run.put(scale);
    run.put(branch);
    run.hand_on(index, op, 1, d_out);
}
