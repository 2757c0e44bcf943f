//! [`Embed`] on a GPU.

use super::launch::{EmbedNormBackward, EmbedNormForward, Lookup as Looked, LookupGradient};
use crate::cuda::batch::Sorted;
use crate::cuda::op::norm::launch::norm_partials;
use crate::cuda::operand::{Matrix, Number};
use crate::cuda::run::Run;
use crate::op::{Embed, Lookup, Op, Table};
use crate::{Error, Span};

pub(in crate::cuda) fn forward(run: &Run<'_>, index: usize, op: &Op, embed: &Embed) -> Result<(), Error> {
    let Some(norm) = &embed.norm else { return Err(Error::MaskedLmOnGpu) };
    let out = run.value(op.out);
    let tokens = out.rows;
    let looked = |wanted: fn(&Lookup) -> bool, rows| {
        let Table { slot, .. } = *embed.tables.iter().find(|table| wanted(&table.lookup))?;
        Some(Looked { rows, table: Matrix::new(Number::F32, run.weights.master(slot), run.weights.shape(slot)) })
    };
    let word = looked(|lookup| matches!(lookup, Lookup::Word), run.batch.ids);
    let position = looked(|lookup| matches!(lookup, Lookup::Position { .. }), run.batch.positions);
    EmbedNormForward {
        // The kernel adds just these three.
        word: word.expect("embeddings of words"),
        position: position.expect("embeddings of positions"),
        types: run.batch.types.and_then(|types| looked(|lookup| matches!(lookup, Lookup::Type), types)),
        norm: run.norm(norm),
        mask: run.mask(embed.site),
        sum: run.state(index, 0, [tokens, out.width], out.number),
        mean: run.column(index, 1, tokens),
        rstd: run.column(index, 2, tokens),
        out,
    }
    .launch(run.device)
}

pub(in crate::cuda) fn backward(run: &Run<'_>, index: usize, op: &Op, embed: &Embed) -> Result<(), Error> {
    let Some(norm) = &embed.norm else { return Err(Error::MaskedLmOnGpu) };
    let d_out = run.gradient(op.out);
    let [tokens, width] = [d_out.rows, d_out.width];
    let d_sum = Matrix::new(Number::F32, run.scratch(index, 0), [tokens, width]);
    let partials = run.partials([norm_partials(tokens), 2 * width]);
    EmbedNormBackward {
        d_out,
        sum: run.state(index, 0, [tokens, width], d_out.number),
        mean: run.column(index, 1, tokens),
        rstd: run.column(index, 2, tokens),
        norm_weight: run.master(Span::from(norm.weight)),
        mask: run.mask(embed.site),
        d_sum,
        partials,
    }
    .launch(run.device)?;
    run.reduce(partials, norm.weight)?;
    let lookups = run.batch.lookups.expect("sorted for training");
    for table in &embed.tables {
        let sorted = match table.lookup {
            Lookup::Word => lookups.word,
            Lookup::Position { .. } => lookups.position,
            Lookup::Type => lookups.types.expect("sorted where the model has token types"),
        };
        let Sorted { order, segments, rows: table_rows } = sorted;
        let gradient = Matrix::new(Number::F32, run.weights.gradient(table.slot), run.weights.shape(table.slot));
        LookupGradient { d: d_sum, order, segments, table_rows, gradient }.launch(run.device)?;
    }
    Ok(())
}
