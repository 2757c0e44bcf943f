//! Taps on the CPU: a value copied out, a gradient that enters.

use super::super::chunk::Run;
use crate::op::Op;

pub(in crate::cpu) fn forward(run: &Run<'_>, op: &Op, out: Option<&mut [f32]>) {
    let (columns, stride) = (op.inputs[0], run.width(op.inputs[0].value));
    let rows = run.value(columns.value).chunks_exact(stride);
    for (out, row) in out.into_iter().flat_map(|out| out.chunks_exact_mut(columns.width)).zip(rows) {
        out.copy_from_slice(&row[columns.first..columns.first + columns.width]);
    }
}

pub(in crate::cpu) fn backward(run: &mut Run<'_>, index: usize, op: &Op, entered: Option<&[f32]>) {
    let (columns, stride) = (op.inputs[0], run.width(op.inputs[0].value));
    let mut d_x = run.take_gradient(columns.value);
    let adds = run.context.plan.adds(index, 0);
    match entered {
        Some(entered) if !adds && columns.width == stride => d_x.copy_from_slice(entered),
        _ => {
            if !adds {
                d_x.fill(0.0);
            }
            let rows = entered.into_iter().flat_map(|entered| entered.chunks_exact(columns.width));
            for (d_x, entered) in d_x.chunks_exact_mut(stride).zip(rows) {
                let d_x = &mut d_x[columns.first..columns.first + columns.width];
                d_x.iter_mut().zip(entered).for_each(|(sum, d)| *sum += d);
            }
        }
    }
    run.put(d_x);
}
