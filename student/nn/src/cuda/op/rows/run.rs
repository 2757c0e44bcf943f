//! Dropout on its own and some of a value's rows, on a GPU.

use super::launch::{DropoutRows, GatherRows, ScatterAddRows};
use crate::cuda::op::call::Mask;
use crate::cuda::operand::{Matrix, Words};
use crate::cuda::run::Run;
use crate::op::{Op, Site};
use crate::value::Rows;
use crate::{DropoutRng, Error};

pub(in crate::cuda) fn dropout_forward(run: &Run<'_>, op: &Op, site: Site) -> Result<(), Error> {
    let (from, x) = (run.value(op.inputs[0].value), run.value(op.out));
    if from.at != x.at {
        GatherRows { from, which: run.all(x), to: x }.launch(run.device)?;
    }
    drop_out(run, op, site, x)
}

pub(in crate::cuda) fn dropout_backward(run: &Run<'_>, index: usize, op: &Op, site: Site) -> Result<(), Error> {
    drop_out(run, op, site, run.gradient(op.out))?;
    run.hand_on(index, op, 0)
}

fn drop_out(run: &Run<'_>, op: &Op, site: Site, x: Matrix) -> Result<(), Error> {
    let mask = run.mask(Some(site));
    let (mask, row_tokens) = match run.plan.program.values[op.out.0].rows {
        Rows::First => (Mask { first: run.masks.map_or(0, DropoutRng::first_row), ..mask }, None),
        Rows::Tokens | Rows::Positions => (mask, run.row_tokens(op.out)),
    };
    DropoutRows { x, mask, row_tokens }.launch(run.device)
}

pub(in crate::cuda) fn select_forward(run: &Run<'_>, op: &Op) -> Result<(), Error> {
    let (from, to) = (run.value(op.inputs[0].value), run.value(op.out));
    GatherRows { from, which: selected(run, op), to }.launch(run.device)
}

/// No gradient comes to the other rows from here.
pub(in crate::cuda) fn select_backward(run: &Run<'_>, index: usize, op: &Op) -> Result<(), Error> {
    let (from, to) = (run.gradient(op.out), run.gradient(op.inputs[0].value));
    run.zero_unless_added(index, 0, to)?;
    ScatterAddRows { from, which: selected(run, op), to }.launch(run.device)
}

fn selected(run: &Run<'_>, op: &Op) -> Words {
    run.row_tokens(op.out).expect("all tokens are no selection")
}
