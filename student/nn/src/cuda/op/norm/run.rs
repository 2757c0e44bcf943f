//! [`ResidualNorm`] on a GPU, and a norm alone.

use super::launch::{NormBackward, NormForward, ResidualNormBackward, ResidualNormForward, norm_partials};
use crate::cuda::run::Run;
use crate::cuda::variant;
use crate::op::{NormSlots, Op, ResidualNorm};
use crate::{Error, Span};

/// Leaves what is normalised in the place of the branch, for a backward pass.
pub(in crate::cuda) fn residual_forward(run: &Run<'_>, index: usize, op: &Op, end: &ResidualNorm) -> Result<(), Error> {
    let out = run.value(op.out);
    ResidualNormForward {
        branch: run.value(op.inputs[0].value),
        branch_bias: run.master(end.bias.into()),
        residual: run.value(op.inputs[1].value),
        keeps_sum: run.masks.is_some() || variant::given("old-norm"),
        norm: run.norm(&end.norm),
        mask: run.mask(end.site),
        row_tokens: run.row_tokens(op.out),
        mean: run.column(index, 0, out.rows),
        rstd: run.column(index, 1, out.rows),
        out,
    }
    .launch(run.device)
}

pub(in crate::cuda) fn residual_backward(
    run: &Run<'_>,
    index: usize,
    op: &Op,
    end: &ResidualNorm,
) -> Result<(), Error> {
    let d_out = run.gradient(op.out);
    let partials = run.partials([norm_partials(d_out.rows, d_out.width), 3 * d_out.width]);
    ResidualNormBackward {
        d_out,
        sum: run.value(op.inputs[0].value),
        mean: run.column(index, 0, d_out.rows),
        rstd: run.column(index, 1, d_out.rows),
        norm_weight: run.master(Span::from(end.norm.weight)),
        normalises: end.norm.epsilon.is_some(),
        mask: run.mask(end.site),
        row_tokens: run.row_tokens(op.out),
        d_sum: d_out,
        d_branch: run.gradient(op.inputs[0].value),
        partials,
    }
    .launch(run.device)?;
    run.reduce(partials, end.norm.weight)?;
    run.hand_on(index, op, 1)
}

pub(in crate::cuda) fn forward(run: &Run<'_>, index: usize, op: &Op, norm: &NormSlots) -> Result<(), Error> {
    let (x, out) = (run.value(op.inputs[0].value), run.value(op.out));
    let [mean, rstd] = [0, 1].map(|state| run.column(index, state, out.rows));
    NormForward { x, norm: run.norm(norm), mean, rstd, out }.launch(run.device)
}

pub(in crate::cuda) fn backward(run: &Run<'_>, index: usize, op: &Op, norm: &NormSlots) -> Result<(), Error> {
    let d_out = run.gradient(op.out);
    let partials = run.partials([norm_partials(d_out.rows, d_out.width), 2 * d_out.width]);
    NormBackward {
        d_out,
        x: run.value(op.inputs[0].value),
        mean: run.column(index, 0, d_out.rows),
        rstd: run.column(index, 1, d_out.rows),
        norm_weight: run.master(Span::from(norm.weight)),
        normalises: norm.epsilon.is_some(),
        d_x: d_out,
        partials,
    }
    .launch(run.device)?;
    run.reduce(partials, norm.weight)?;
    run.hand_on(index, op, 0)
}
