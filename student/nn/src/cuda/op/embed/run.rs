//! [`Embed`] on a GPU.

use super::launch::{EmbedNormBackward, EmbedNormForward, EmbedSum, Lookup, LookupGradient};
use crate::cuda::batch::Sorted;
use crate::cuda::op::norm::launch::norm_partials;
use crate::cuda::op::rows::launch::{DropoutRows, Widen};
use crate::cuda::operand::{Matrix, Number};
use crate::cuda::run::Run;
use crate::op::{Embed, NormSlots, Op};
use crate::{Error, Span};

pub(in crate::cuda) fn forward(run: &Run<'_>, index: usize, op: &Op, embed: &Embed) -> Result<(), Error> {
    let (out, mask) = (run.value(op.out), run.mask(embed.site));
    let mut tables = embed.tables.iter().map(|table| {
        let at = run.weights.master(table.slot);
        let table_rows = run.batch.looked_up(table.lookup).rows;
        Lookup { rows: table_rows, table: Matrix::new(Number::F32, at, run.weights.shape(table.slot)) }
    });
    let lookups = std::array::from_fn(|_| tables.next());
    // The kernels add as many.
    assert!(lookups[0].is_some() && tables.next().is_none(), "embeddings of one to three tables");
    let Some(norm) = &embed.norm else {
        EmbedSum { lookups, out }.launch(run.device)?;
        return DropoutRows { x: out, mask, row_tokens: None }.launch(run.device);
    };
    EmbedNormForward {
        lookups,
        norm: run.norm(norm),
        mask,
        keeps_sum: run.masks.is_some(),
        sum: run.state(index, 0, out.shape(), out.number),
        mean: run.column(index, 1, out.rows),
        rstd: run.column(index, 2, out.rows),
        out,
    }
    .launch(run.device)
}

pub(in crate::cuda) fn backward(run: &Run<'_>, index: usize, op: &Op, embed: &Embed) -> Result<(), Error> {
    let d_sum = match &embed.norm {
        Some(norm) => norm_backward(run, index, op, embed, norm)?,
        None => sum_backward(run, index, op, embed)?,
    };
    for table in &embed.tables {
        let sorted = run.batch.looked_up(table.lookup).sorted.expect("sorted for training");
        let Sorted { order, segments, rows: table_rows } = sorted;
        let gradient = Matrix::new(Number::F32, run.weights.gradient(table.slot), run.weights.shape(table.slot));
        LookupGradient { d: d_sum, order, segments, table_rows, gradient }.launch(run.device)?;
    }
    Ok(())
}

/// The gradient in the sum before the norm, in `f32`.
fn norm_backward(run: &Run<'_>, index: usize, op: &Op, embed: &Embed, norm: &NormSlots) -> Result<Matrix, Error> {
    let d_out = run.gradient(op.out);
    let d_sum = Matrix::new(Number::F32, run.scratch(index, 0), d_out.shape());
    let partials = run.partials([norm_partials(d_out.rows, d_out.width), 2 * d_out.width]);
    EmbedNormBackward {
        d_out,
        sum: run.state(index, 0, d_out.shape(), d_out.number),
        mean: run.column(index, 1, d_out.rows),
        rstd: run.column(index, 2, d_out.rows),
        norm_weight: run.master(Span::from(norm.weight)),
        normalises: norm.epsilon.is_some(),
        mask: run.mask(embed.site),
        d_sum,
        partials,
    }
    .launch(run.device)?;
    run.reduce(partials, norm.weight)?;
    Ok(d_sum)
}

/// The same without a norm.
fn sum_backward(run: &Run<'_>, index: usize, op: &Op, embed: &Embed) -> Result<Matrix, Error> {
    let d_out = run.gradient(op.out);
    DropoutRows { x: d_out, mask: run.mask(embed.site), row_tokens: None }.launch(run.device)?;
    if d_out.number == Number::F32 {
        return Ok(d_out);
    }
    let d_sum = Matrix::new(Number::F32, run.scratch(index, 0), d_out.shape());
    Widen { from: d_out, to: d_sum }.launch(run.device)?;
    Ok(d_sum)
}
