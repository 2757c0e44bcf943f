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
    /// `d_out^T x`, from this column of `d_out` on.
    Product { x: ValueId, out: ValueId, column: usize },
    /// Each token's gradient, to the row that it looked up.
    Lookups { lookup: Lookup, out: ValueId },
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
                            entries[index].push((at, Share::Product { x: op.inputs[0].value, out: op.out, column }));
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
