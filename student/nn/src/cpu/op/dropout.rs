//! Dropout on its own, on the CPU.

use super::super::chunk::{Run, Taken};
use crate::op::{Op, Site};
use crate::value::Rows;

pub(in crate::cpu) fn forward(run: &mut Run<'_>, op: &Op, site: Site) {
    let input = op.inputs[0].value;
    let mut out = run.take_value(op.out);
    if run.context.plan.value(input) != run.context.plan.value(op.out) {
        out.copy_from_slice(run.value(input));
    }
    drop_out(run, op, site, &mut out);
    run.put(out);
}

pub(in crate::cpu) fn backward(run: &mut Run<'_>, index: usize, op: &Op, site: Site) {
    let mut d_out = run.take_gradient(op.out);
    drop_out(run, op, site, &mut d_out);
    run.hand_on(index, op, 0, d_out);
}

pub(super) fn drop_out(run: &Run<'_>, op: &Op, site: Site, x: &mut Taken) {
    let Some(mask) = run.mask(Some(site)) else { return };
    let (width, rows) = (run.width(op.out), run.context.plan.program.values[op.out.0].rows);
    for (row, values) in x.chunks_exact_mut(width).enumerate() {
        let number = if rows == Rows::First { run.text(row) } else { run.token(run.rows(op.out).tokens[row]) };
        let (mask, first) = mask.row(number * width as u64);
        for (value, element) in values.iter_mut().zip(0..) {
            *value *= mask.factor(first.wrapping_add(element));
        }
    }
}
