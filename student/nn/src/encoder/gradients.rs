//! The sums over chunks: gradients of weights as products over each chunk's tokens, of tables by token id, of vectors.
//!
//! Work is cut by destination, and each destination adds the chunks in their order.

use rayon::prelude::*;

use super::backward::vectors;
use super::chunk::{Chunk, Context};
use crate::linear::add_rows;
use crate::product::{Into, View, product};
use crate::{Gradients, Head, LayerSlot, Slot};

/// Rows of a weight or table that one task adds up.
const TASK_ROWS: usize = 768;

/// Adds what the chunks' backward passes left to the gradients of all parameters.
pub(super) fn sum_over_chunks(context: &Context<'_>, chunks: &[Chunk], gradients: &mut Gradients) {
    let layout = gradients.layout().clone();
    chunks.iter().for_each(|chunk| gradients.mark_looked_up(&chunk.input_ids));
    let mut rest = gradients.flat_kept_mut();
    let mut tasks = Vec::new();
    let mut vector_ranges = vectors(&layout);
    for entry in layout.entries() {
        let (mut destination, behind) = rest.split_at_mut(entry.range.len());
        rest = behind;
        if let [_] = entry.shape[..] {
            let first = vector_ranges.next().map_or(0, |(_, range)| range.start);
            tasks.push(Task { slot: entry.slot, first, width: destination.len(), destination });
            continue;
        }
        let (width, mut first) = (entry.shape[1], 0);
        while !destination.is_empty() {
            let rows = TASK_ROWS.min(destination.len() / width);
            let (part, behind) = destination.split_at_mut(rows * width);
            tasks.push(Task { slot: entry.slot, first, width, destination: part });
            first += rows;
            destination = behind;
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|mut task| chunks.iter().for_each(|chunk| task.add(context, chunk)));
}

/// Rows of one parameter's gradient.
struct Task<'a> {
    slot: Slot,
    /// First row; of a vector, where it starts in the chunks' buffers of vectors.
    first: usize,
    width: usize,
    destination: &'a mut [f32],
}

impl Task<'_> {
    /// Adds one chunk's share.
    fn add(&mut self, context: &Context<'_>, chunk: &Chunk) {
        use LayerSlot::*;
        let hidden = context.config.hidden_size;
        let all = |layer| chunk.computes_all(context, layer);
        match self.slot {
            Slot::WordEmbeddings => {
                if context.config.head == Head::MaskedLm {
                    let vocabulary = context.config.vocab_size;
                    self.add_product(&chunk.head.logits, vocabulary, 0, &chunk.head.normed);
                }
                self.add_lookups(chunk, chunk.input_ids.iter().map(|&id| id as usize));
            }
            Slot::TypeEmbeddings => self.add_lookups(chunk, chunk.token_type_ids.iter().map(|&id| id as usize)),
            Slot::PositionEmbeddings => {
                let offset = context.config.position_offset();
                let positions = chunk.starts.windows(2).flat_map(|pair| offset..offset + pair[1] - pair[0]);
                self.add_lookups(chunk, positions);
            }
            Slot::EmbeddingProjectionWeight => {
                self.add_product(chunk.d_projected(), hidden, 0, &chunk.embeddings.output);
            }
            Slot::LmDenseWeight => self.add_product(&chunk.head.pre_activation, hidden, 0, &chunk.head.input),
            Slot::HeadDenseWeight => self.add_product(&chunk.head.pre_activation, hidden, 0, &chunk.head.input),
            Slot::HeadOutputWeight => {
                let labels = context.config.num_labels;
                self.add_product(&chunk.backward.d_logits, labels, 0, &chunk.head.activated);
            }
            Slot::Layer(layer, part) => {
                let buffers = &chunk.layers[layer];
                let input = &chunk.hidden[layer];
                match part {
                    QueryWeight if all(layer) => self.add_product(&buffers.query, hidden, 0, input),
                    QueryWeight => self.add_product(&buffers.query, hidden, 0, &buffers.first_tokens),
                    KeyWeight => self.add_product(&buffers.key_value, 2 * hidden, 0, input),
                    ValueWeight => self.add_product(&buffers.key_value, 2 * hidden, hidden, input),
                    AttentionOutputWeight => {
                        self.add_product(&buffers.attention_normalized, hidden, 0, &buffers.context);
                    }
                    IntermediateWeight => {
                        let intermediate = context.config.intermediate_size;
                        self.add_product(&buffers.pre_activation, intermediate, 0, &buffers.attention_output);
                    }
                    OutputWeight => self.add_product(&buffers.output_normalized, hidden, 0, &buffers.activated),
                    _ => self.add_vector(chunk),
                }
            }
            _ => self.add_vector(chunk),
        }
    }

    fn add_vector(&mut self, chunk: &Chunk) {
        add_rows(&chunk.backward.vectors[self.first..self.first + self.width], self.destination);
    }

    /// Adds each token's gradient to the table row that it looked up.
    fn add_lookups(&mut self, chunk: &Chunk, rows: impl Iterator<Item = usize>) {
        let mine = self.first..self.first + self.destination.len() / self.width;
        for (row, d) in rows.zip(chunk.backward.d_embeddings.chunks_exact(self.width)) {
            if mine.contains(&row) {
                let start = (row - self.first) * self.width;
                add_rows(d, &mut self.destination[start..start + self.width]);
            }
        }
    }

    /// Adds `d_out^T x`, where this weight's gradients are the columns of `d_out` from `column` on.
    fn add_product(&mut self, d_out: &[f32], stride: usize, column: usize, x: &[f32]) {
        let rows = x.len() / self.width;
        if rows == 0 {
            return;
        }
        let outer = self.destination.len() / self.width;
        let d_out = View::new(&d_out[column + self.first..], rows, outer, stride).transposed();
        let x = View::new(x, rows, self.width, self.width);
        product(d_out, x, 1.0, self.destination, self.width, Into::Sum);
    }
}
