//! A layer norm of its own on the CPU.

use super::super::chunk::Run;
use super::super::norm;
use crate::op::{NormSlots, Op};

/// Leaves the normalised rows in the place of the input.
pub(in crate::cpu) fn forward(run: &mut Run<'_>, index: usize, op: &Op, slots: &NormSlots) {
    let width = run.width(op.out);
    let mut scale = run.take_state(index, 0, run.rows(op.out).tokens.len());
    let mut out = run.take_value(op.out);
    let mut x = run.take_value(op.inputs[0].value);
    let norm = run.norm(slots);
    for ((x, out), scale) in x.chunks_exact_mut(width).zip(out.chunks_exact_mut(width)).zip(scale.iter_mut()) {
        *scale = norm::forward_row_then_dropout(x, norm, None, out);
    }
    run.put(scale);
    run.put(out);
    run.put(x);
}

pub(in crate::cpu) fn backward(run: &mut Run<'_>, index: usize, op: &Op, slots: &NormSlots) {
    let scale = run.take_state(index, 0, run.rows(op.out).tokens.len());
    let normalized = run.take_value(op.inputs[0].value);
    let mut d_out = run.take_gradient(op.out);
    run.norm_backward(slots, &mut d_out, &normalized, &scale, |_, _| None);
    run.put(scale);
    run.put(normalized);
    run.hand_on(index, op, 0, d_out);
}
