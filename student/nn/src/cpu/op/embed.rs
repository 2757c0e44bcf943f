//! [`Embed`] on the CPU.

use super::super::chunk::Run;
use super::super::linear::{add_rows, table_row};
use super::super::norm::{self, Norm};
use super::dropout::drop_out;
use crate::op::{Embed, Lookup, NormSlots, Op};
use crate::slot::Span;
use crate::value::Rows;

pub(in crate::cpu) fn forward(run: &mut Run<'_>, index: usize, op: &Op, embed: &Embed) {
    let (width, tokens) = (run.width(op.out), run.rows(op.out).tokens.len());
    let mut out = run.take_value(op.out);
    let Some(slots) = &embed.norm else {
        look_up(run, embed, &mut out, width);
        if let Some(site) = embed.site {
            drop_out(run, op, site, &mut out);
        }
        return run.put(out);
    };
    let mut normalized = run.take_state(index, 0, tokens * width);
    let mut scale = run.take_state(index, 1, tokens);
    look_up(run, embed, &mut normalized, width);
    let (mask, norm) = (run.mask(embed.site), run.norm(slots));
    let rows = normalized.chunks_exact_mut(width).zip(out.chunks_exact_mut(width));
    for (token, ((row, out), scale)) in rows.zip(scale.iter_mut()).enumerate() {
        let mask = mask.map(|mask| mask.row(run.token(token) * width as u64));
        *scale = norm::forward_row_then_dropout(row, norm, mask, out);
    }
    run.put(normalized);
    run.put(scale);
    run.put(out);
}

/// Adds up what each token looks up.
fn look_up(run: &Run<'_>, embed: &Embed, sums: &mut [f32], width: usize) {
    let tables: Vec<_> =
        embed.tables.iter().map(|table| (run.context.parameters.get(table.slot), table.lookup)).collect();
    let positions = tables.iter().find_map(|(_, lookup)| match lookup {
        Lookup::Position(positions) => Some(*positions),
        _ => None,
    });
    for text in run.chunk.selected.of(Rows::Tokens).starts.windows(2) {
        let mut places = positions.map(|positions| positions.rows(&run.chunk.input_ids[text[0]..text[1]]));
        for token in text[0]..text[1] {
            let place = places.as_mut().and_then(Iterator::next);
            let row = &mut sums[token * width..(token + 1) * width];
            for (index, (table, lookup)) in tables.iter().enumerate() {
                let looked_up = match lookup {
                    Lookup::Word { .. } => run.chunk.input_ids[token] as usize,
                    Lookup::Type => run.chunk.token_type_ids[token] as usize,
                    Lookup::Position(_) => place.expect("a place for each token"),
                };
                let looked_up = table_row(table, looked_up, width);
                match index {
                    0 => row.copy_from_slice(looked_up),
                    _ => add_rows(looked_up, row),
                }
            }
        }
    }
}

/// Leaves the gradient in the sum of the embeddings in the place of that in the output.
pub(in crate::cpu) fn backward(run: &mut Run<'_>, index: usize, op: &Op, embed: &Embed) {
    let (width, tokens) = (run.width(op.out), run.rows(op.out).tokens.len());
    let mut d_out = run.take_gradient(op.out);
    let Some(norm) = &embed.norm else {
        if let Some(site) = embed.site {
            drop_out(run, op, site, &mut d_out);
        }
        return run.put(d_out);
    };
    let normalized = run.take_state(index, 0, tokens * width);
    let scale = run.take_state(index, 1, tokens);
    let mask = run.mask(embed.site);
    let mask = |run: &Run<'_>, token: usize| mask.map(|mask| mask.row(run.token(token) * width as u64));
    run.norm_backward(norm, &mut d_out, &normalized, &scale, mask);
    run.put(normalized);
    run.put(scale);
    run.put(d_out);
}

impl Run<'_> {
    pub(super) fn norm(&self, norm: &NormSlots) -> Norm<'_> {
        let parameters = self.context.parameters;
        Norm { weight: parameters.get(norm.weight), bias: parameters.get(norm.bias), epsilon: norm.epsilon }
    }

    /// Replaces `d_out` by the gradient before a norm that dropout may stand behind, row by row.
    pub(super) fn norm_backward(
        &mut self,
        norm: &NormSlots,
        d_out: &mut [f32],
        normalized: &[f32],
        scale: &[f32],
        mask: impl Fn(&Self, usize) -> Option<norm::RowMask>,
    ) {
        let weight = self.context.parameters.get(norm.weight);
        let width = weight.len();
        let mut vectors = self.take_vectors();
        let [d_weight, d_bias] = self.vectors(&mut vectors, [norm.weight, norm.bias].map(Span::from));
        for (row, d_row) in d_out.chunks_exact_mut(width).enumerate() {
            let normalized = &normalized[row * width..(row + 1) * width];
            let scale = norm.epsilon.map(|_| scale[row]);
            norm::backward_row_then_dropout(d_row, normalized, scale, weight, mask(self, row), d_weight, d_bias);
        }
        self.put_vectors(vectors);
    }

    /// Gradients of biases and norms, each of them once.
    pub(super) fn vectors<'v, const N: usize>(&self, vectors: &'v mut [f32], spans: [Span; N]) -> [&'v mut [f32]; N] {
        let ranges = spans.map(|span| self.context.vectors.vector(self.context.parameters.layout(), span));
        vectors.get_disjoint_mut(ranges).expect("different parameters of this layout")
    }
}
