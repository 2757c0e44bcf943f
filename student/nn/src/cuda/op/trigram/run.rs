//! Each token's row with its neighbours', on a GPU.

use super::launch::{TrigramBackward, TrigramForward};
use crate::Error;
use crate::cuda::run::Run;
use crate::op::Op;

pub(in crate::cuda) fn forward(run: &Run<'_>, op: &Op) -> Result<(), Error> {
    // It is made of all tokens: see `Kind::rows_made`.
    debug_assert!(run.row_tokens(op.out).is_none());
    let (x, out) = (run.value(op.inputs[0].value), run.value(op.out));
    TrigramForward { x, positions: run.batch.positions(), out }.launch(run.device)
}

pub(in crate::cuda) fn backward(run: &Run<'_>, index: usize, op: &Op) -> Result<(), Error> {
    let (d_out, d_x) = (run.gradient(op.out), run.gradient(op.inputs[0].value));
    let adds = run.plan.adds(index, 0);
    TrigramBackward { d_out, positions: run.batch.positions(), adds, d_x }.launch(run.device)
}
