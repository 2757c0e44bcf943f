//! Which operations the gradient of each parameter comes from.

use std::ops::Range;

use crate::op::{Embed, Kind, Lookup};
use crate::parameters::Layout;
use crate::program::Program;
use crate::slot::Span;
use crate::value::ValueId;

/// Where the gradient of each parameter comes from.
pub(super) struct Shares {
    /// Of each entry of the layout, with the operation's number, from the end of the list.
    entries: Vec<Vec<(usize, Share)>>,
    /// Of each entry its place among a chunk's gradients of biases and norms; the last is where they end.
    pub(super) vectors: Vec<usize>,
    pub(super) looks_up: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Share {
    /// `left^T right`: a row of it for each column of `left`.
    Product { left: Factor, right: Factor },
    /// Each token's gradient, to the row that it looked up.
    Lookups { lookup: Lookup, out: ValueId },
}

/// A value or the gradient in it, from a column on.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub(super) value: ValueId,
    pub(super) is_gradient: bool,
    pub(super) column: usize,
}

impl Factor {
    fn value(value: ValueId, column: usize) -> Self {
        Self { value, is_gradient: false, column }
    }

    fn gradient(value: ValueId, column: usize) -> Self {
        Self { value, is_gradient: true, column }
    }
}

impl Shares {
    pub(super) fn new(layout: &Layout, program: &Program) -> Self {
        let mut entries = vec![Vec::new(); layout.entries().len()];
        let mut looks_up = false;
        for (at, op) in program.ops.iter().enumerate().rev() {
            match &op.kind {
                Kind::Linear(linear) => {
                    let whole = layout.span(linear.weight);
                    for (index, entry) in layout.entries().iter().enumerate() {
                        if entry.range.start >= whole.start && entry.range.end <= whole.end {
                            let column = (entry.range.start - whole.start) / linear.inner;
                            let right = Factor::value(op.inputs[0].value, 0);
                            let left = Factor::gradient(op.out, column);
                            entries[index].push((at, Share::Product { left, right }));
                        }
                    }
                }
                Kind::Embed(Embed { tables, .. }) => {
                    looks_up = true;
                    for table in tables {
                        let index = layout.entries().iter().position(|entry| entry.slot == table.slot);
                        entries[index.expect("a table of this layout")]
                            .push((at, Share::Lookups { lookup: table.lookup, out: op.out }));
                    }
                }
                Kind::Decode(decode) => {
                    let (x, d_out) = (op.inputs[0].value, Factor::gradient(op.out, 0));
                    let words = Share::Product { left: d_out, right: Factor::value(x, 0) };
                    let rest = Share::Product { left: Factor::value(x, decode.embedding), right: d_out };
                    entries[layout.index(decode.words)].push((at, words));
                    entries[layout.index(decode.rest)].push((at, rest));
                }
                _ => {}
            }
        }
        let mut vectors = vec![0];
        for entry in layout.entries() {
            let len = if entry.shape.len() == 1 { entry.range.len() } else { 0 };
            vectors.push(vectors[vectors.len() - 1] + len);
        }
        Self { entries, vectors, looks_up }
    }

    /// Where the gradient of an entry of the layout comes from in a range of the list.
    pub(super) fn of(&self, entry: usize, range: &Range<usize>) -> &[(usize, Share)] {
        let shares = &self.entries[entry];
        let behind = |op: usize| shares.partition_point(|(other, _)| *other >= op);
        &shares[behind(range.end)..behind(range.start)]
    }

    /// Numbers in a chunk's gradients of biases and norms.
    pub(super) fn vector_len(&self) -> usize {
        self.vectors[self.vectors.len() - 1]
    }

    /// The place of one or more neighbours among them.
    pub(super) fn vector(&self, layout: &Layout, span: Span) -> Range<usize> {
        let [first, last] = [span.first, span.last].map(|slot| layout.index(slot));
        self.vectors[first]..self.vectors[last + 1]
    }
}
