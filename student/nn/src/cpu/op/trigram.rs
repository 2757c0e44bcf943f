//! Each token's row with its neighbours', on the CPU.

use super::super::chunk::Run;
use crate::cpu::linear::add_rows;
use crate::op::Op;

pub(in crate::cpu) fn forward(run: &mut Run<'_>, op: &Op) {
    let mut out = run.take_value(op.out);
    let (x, width) = (run.value(op.inputs[0].value), run.width(op.inputs[0].value));
    for (out, neighbours) in out.chunks_exact_mut(3 * width).zip(neighbours(run, op)) {
        for (out, token) in out.chunks_exact_mut(width).zip(neighbours) {
            match token {
                Some(token) => out.copy_from_slice(&x[token * width..(token + 1) * width]),
                None => out.fill(0.0),
            }
        }
    }
    run.put(out);
}

pub(in crate::cpu) fn backward(run: &mut Run<'_>, index: usize, op: &Op) {
    let width = run.width(op.inputs[0].value);
    let mut d_x = run.take_gradient(op.inputs[0].value);
    if !run.context.plan.adds(index, 0) {
        d_x.fill(0.0);
    }
    for (d_out, neighbours) in run.gradient(op.out).chunks_exact(3 * width).zip(neighbours(run, op)) {
        for (d_out, token) in d_out.chunks_exact(width).zip(neighbours) {
            if let Some(token) = token {
                add_rows(d_out, &mut d_x[token * width..(token + 1) * width]);
            }
        }
    }
    run.put(d_x);
}

/// Of each token: the next one, itself, the one before.
fn neighbours<'r>(run: &'r Run<'_>, op: &Op) -> impl Iterator<Item = [Option<usize>; 3]> + use<'r> {
    run.rows(op.out).starts.windows(2).flat_map(|text| {
        (text[0]..text[1]).map(move |token| {
            let next = Some(token + 1).filter(|&next| next < text[1]);
            let before = token.checked_sub(1).filter(|&before| before >= text[0]);
            [next, Some(token), before]
        })
    })
}
