//! The sums over chunks: gradients of weights as products over each chunk's tokens, of tables by token id, of biases and
//! norms from what each chunk has summed.
//!
//! Work is cut by destination. Each destination adds the chunks in their order, and of a chunk the operations that share
//! the parameter in the order of the backward pass.

use std::ops::Range;

use rayon::prelude::*;

use super::chunk::{Chunk, Context};
use super::linear::add_rows;
use super::product::{Into, View, product};
use super::shares::{Factor, Share};
use crate::Gradients;
use crate::op::Lookup;

/// Rows of a weight or table that one task adds up.
const TASK_ROWS: usize = 768;

/// Adds what the chunks' backward passes over a range of the list left to the gradients of all parameters.
pub(super) fn sum_over_chunks(context: &Context<'_>, chunks: &[Chunk], range: Range<usize>, gradients: &mut Gradients) {
    if context.vectors.looks_up {
        chunks.iter().for_each(|chunk| gradients.mark_looked_up(&chunk.input_ids));
    }
    let mut rest = gradients.flat_kept_mut();
    let mut tasks = Vec::new();
    for (index, entry) in context.parameters.layout().entries().iter().enumerate() {
        let (mut destination, behind) = rest.split_at_mut(entry.range.len());
        rest = behind;
        if let [_] = entry.shape[..] {
            let first = context.vectors.vectors[index];
            tasks.push(Task { shares: None, first, width: destination.len(), destination });
            continue;
        }
        let shares = context.vectors.of(index, &range);
        let (width, mut first) = (entry.shape[1], 0);
        while !destination.is_empty() && !shares.is_empty() {
            let rows = TASK_ROWS.min(destination.len() / width);
            let (part, behind) = destination.split_at_mut(rows * width);
            tasks.push(Task { shares: Some(shares), first, width, destination: part });
            first += rows;
            destination = behind;
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|mut task| chunks.iter().for_each(|chunk| task.add(context, chunk)));
}

/// Rows of one parameter's gradient.
struct Task<'a> {
    /// None of a vector.
    shares: Option<&'a [(usize, Share)]>,
    /// First row; of a vector, where it starts in the chunks' buffers of vectors.
    first: usize,
    width: usize,
    destination: &'a mut [f32],
}

impl Task<'_> {
    /// Adds one chunk's share.
    fn add(&mut self, context: &Context<'_>, chunk: &Chunk) {
        let Some(shares) = self.shares else {
            return add_rows(&chunk.vectors[self.first..self.first + self.width], self.destination);
        };
        for (_, share) in shares {
            match *share {
                Share::Product { left, right } => self.add_product(context, chunk, left, right),
                Share::Lookups { lookup, out } => {
                    let d = chunk.gradient(context.plan, out);
                    let (index, untrained) = (|id: &u32| *id as usize, lookup.untrained());
                    match lookup {
                        Lookup::Word { .. } => self.add_lookups(d, chunk.input_ids.iter().map(index), untrained),
                        Lookup::Type => self.add_lookups(d, chunk.token_type_ids.iter().map(index), untrained),
                        Lookup::Position(positions) => self.add_lookups(d, chunk.positions(positions), untrained),
                    }
                }
            }
        }
    }

    /// Adds each token's gradient to the table row that it looked up, unless that row learns nothing.
    fn add_lookups(&mut self, d: &[f32], rows: impl Iterator<Item = usize>, untrained: Option<usize>) {
        let mine = self.first..self.first + self.destination.len() / self.width;
        for (row, d) in rows.zip(d.chunks_exact(self.width)) {
            if mine.contains(&row) && Some(row) != untrained {
                let start = (row - self.first) * self.width;
                add_rows(d, &mut self.destination[start..start + self.width]);
            }
        }
    }

    /// Adds `left^T right`.
    fn add_product(&mut self, context: &Context<'_>, chunk: &Chunk, left: Factor, right: Factor) {
        let view = |factor: Factor, first: usize, columns: usize| {
            let stride = context.plan.program.values[factor.value.0].width;
            let data = match factor.is_gradient {
                true => chunk.gradient(context.plan, factor.value),
                false => chunk.value(context.plan, factor.value),
            };
            let part = data.get(factor.column + first..).filter(|_| !data.is_empty())?;
            Some(View::new(part, data.len() / stride, columns, stride))
        };
        let rows = self.destination.len() / self.width;
        // A chunk whose texts have no such rows adds nothing.
        let (Some(left), Some(right)) = (view(left, self.first, rows), view(right, 0, self.width)) else { return };
        product(left.transposed(), right, 1.0, self.destination, self.width, Into::Sum);
    }
}
