//! Where everything of one pass stands in the device's memory: one buffer, cut anew for each batch.

use super::super::device::{Precision, Ptr};
use super::super::kernels;
use super::batch::Batch;
use crate::EncoderConfig;

/// The places of one pass. Sizes: `T` tokens, `B` rows, `R` rows that a layer computes (`T`, or `B` in the last); `T[..]`
/// is of activations, all else `f32`.
pub(super) struct Pass {
    pub(super) batch: Batch,
    /// Whether the last layer computes every token.
    pub(super) all_rows: bool,
    pub(super) embeddings: Embeddings,
    pub(super) layers: Vec<Layer>,
    /// Output of the embeddings and of each layer, `T[R, hidden]`; two in turn when nothing is kept.
    pub(super) hidden: Vec<Ptr>,
    pub(super) head: Head,
    pub(super) backward: Backward,
}

/// The embeddings' places.
#[derive(Clone, Copy)]
pub(super) struct Embeddings {
    /// `T[T, embedding]`: before the norm.
    pub(super) sum: Ptr,
    pub(super) norm: Norm,
    /// `T[T, embedding]`: behind norm and dropout; what is projected, where there is a projection.
    pub(super) output: Ptr,
}

/// `[R]` each.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    pub(super) mean: Ptr,
    pub(super) rstd: Ptr,
}

/// A layer's places.
#[derive(Clone, Copy)]
pub(super) struct Layer {
    /// `T[B, hidden]`: the rows that queries are made of, where not all are.
    pub(super) first_tokens: Ptr,
    /// `T[T, 3 * hidden]`: query, key and value; or `T[B, hidden]`, the queries alone.
    pub(super) query: Ptr,
    /// `T[T, 2 * hidden]`, or within `query`, whose stride it then has.
    pub(super) key_value: Ptr,
    /// `T[R, hidden]`
    pub(super) context: Ptr,
    /// `[R, heads]`: logarithms of the softmax' denominators.
    pub(super) log_sums: Ptr,
    /// `T[R, hidden]`: before the norm.
    pub(super) attention_sum: Ptr,
    pub(super) attention_norm: Norm,
    /// `T[R, hidden]`
    pub(super) attention_output: Ptr,
    /// `T[R, intermediate]`, with its bias.
    pub(super) pre_activation: Ptr,
    /// `T[R, intermediate]`
    pub(super) activated: Ptr,
    /// `T[R, hidden]`: before the norm.
    pub(super) output_sum: Ptr,
    pub(super) output_norm: Norm,
}

/// The head's places, `T[B, hidden]` where not said.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) input: Ptr,
    pub(super) pre_activation: Ptr,
    pub(super) activated: Ptr,
    /// `[B, labels]`
    pub(super) logits: Ptr,
    /// `T[B, labels]`
    pub(super) d_logits: Ptr,
    /// `[B, 2]`: each row's terms of the loss.
    pub(super) row_losses: Ptr,
}

/// What only the way back needs, `T[R, hidden]` where not said. Null otherwise.
#[derive(Clone, Copy)]
pub(super) struct Backward {
    /// The gradient in a layer's output, then in its input: two in turn.
    pub(super) d_hidden: [Ptr; 2],
    pub(super) d_branch: Ptr,
    pub(super) d_context: Ptr,
    /// `T[R, intermediate]`
    pub(super) d_activated: Ptr,
    /// `T[T, 3 * hidden]`, or queries and then keys and values.
    pub(super) d_query_key_value: Ptr,
    /// `T[T, embedding]`
    pub(super) d_embeddings: Ptr,
    /// `[T, embedding]`: gradient in the sum of the embeddings.
    pub(super) d_embedding_sum: Ptr,
    /// Partial sums of whatever is summed over rows.
    pub(super) partials: Ptr,
}

/// Hands out places one behind the other.
struct Arena {
    base: Ptr,
    bytes: usize,
}

impl Arena {
    fn take(&mut self, bytes: usize) -> Ptr {
        let place = self.base.offset_bytes(self.bytes);
        self.bytes += bytes.next_multiple_of(256);
        place
    }

    fn norm(&mut self, rows: usize) -> Norm {
        Norm { mean: self.take(rows * 4), rstd: self.take(rows * 4) }
    }
}

impl Pass {
    /// The places from `base` on, and how many bytes they take.
    pub(super) fn plan(
        config: &EncoderConfig,
        precision: Precision,
        batch: Batch,
        training: bool,
        all_rows: bool,
        base: Ptr,
    ) -> (Self, usize) {
        let mut arena = Arena { base, bytes: 0 };
        let size = precision.bytes();
        let (tokens, rows) = (batch.tokens, batch.rows);
        let (width, hidden, intermediate) = (config.embedding_size, config.hidden_size, config.intermediate_size);
        let layers = config.num_layers;
        // Hidden states that are asked for outlive the pass.
        let keep_hidden = training || all_rows;
        let computes_all = |layer: usize| all_rows || layer + 1 < layers;

        let mut hidden_states: Vec<Ptr> = Vec::with_capacity(layers + 1);
        for index in 0..=layers {
            let place = match index {
                2.. if !keep_hidden => hidden_states[index % 2],
                _ => arena.take(tokens * hidden * size),
            };
            hidden_states.push(place);
        }
        let embeddings = Embeddings {
            sum: arena.take(tokens * width * size),
            norm: arena.norm(tokens),
            output: match config.projects_embeddings() {
                true => arena.take(tokens * width * size),
                false => hidden_states[0],
            },
        };
        let mut places: Vec<Layer> = Vec::with_capacity(layers);
        // A single layer that is not kept must have room for every token's queries if any layer computes them.
        let shared_all = computes_all(0);
        for layer in 0..layers {
            let all = computes_all(layer);
            if !training && layer > 0 {
                let mut place = places[0];
                if !all {
                    place.key_value = place.query.offset_bytes(rows * hidden * size);
                }
                places.push(place);
                continue;
            }
            let room_for_all = if training { all } else { shared_all };
            let count = if room_for_all { tokens } else { rows };
            let query = arena.take(if room_for_all { 3 * tokens } else { rows + 2 * tokens } * hidden * size);
            places.push(Layer {
                first_tokens: arena.take(rows * hidden * size),
                query,
                key_value: query.offset_bytes(if all { hidden } else { rows * hidden } * size),
                context: arena.take(count * hidden * size),
                log_sums: arena.take(count * config.num_heads * 4),
                attention_sum: arena.take(count * hidden * size),
                attention_norm: arena.norm(count),
                attention_output: arena.take(count * hidden * size),
                pre_activation: arena.take(count * intermediate * size),
                activated: arena.take(count * intermediate * size),
                output_sum: arena.take(count * hidden * size),
                output_norm: arena.norm(count),
            });
        }
        let head = Head {
            // Nothing but the head reads first tokens, so it may drop from them in place.
            input: if all_rows { arena.take(rows * hidden * size) } else { hidden_states[layers] },
            pre_activation: arena.take(rows * hidden * size),
            activated: arena.take(rows * hidden * size),
            logits: arena.take(rows * config.num_labels * 4),
            d_logits: arena.take(rows * config.num_labels * size),
            row_losses: arena.take(rows * 2 * 4),
        };
        let backward = match training {
            true => Backward::plan(config, size, tokens, rows, &mut arena),
            false => Backward::NONE,
        };
        let pass = Self { batch, all_rows, embeddings, layers: places, hidden: hidden_states, head, backward };
        (pass, arena.bytes)
    }

    /// Whether a layer computes every token's output.
    pub(super) fn computes_all(&self, layer: usize) -> bool {
        self.all_rows || layer + 1 < self.layers.len()
    }
}

impl Backward {
    const NONE: Self = Self {
        d_hidden: [Ptr::NULL; 2],
        d_branch: Ptr::NULL,
        d_context: Ptr::NULL,
        d_activated: Ptr::NULL,
        d_query_key_value: Ptr::NULL,
        d_embeddings: Ptr::NULL,
        d_embedding_sum: Ptr::NULL,
        partials: Ptr::NULL,
    };

    fn plan(config: &EncoderConfig, size: usize, tokens: usize, rows: usize, arena: &mut Arena) -> Self {
        let (width, hidden, intermediate) = (config.embedding_size, config.hidden_size, config.intermediate_size);
        // Of both kinds of layers, since neither number of partial sums need grow with the number of rows.
        let partials = [tokens, rows].map(|count| {
            let columns = (3 * hidden).max(intermediate).max(config.num_labels);
            (kernels::norm_partials(count) * 3 * hidden.max(width)).max(kernels::column_partials(count) * columns)
        });
        Self {
            d_hidden: [arena.take(tokens * hidden * size), arena.take(tokens * hidden * size)],
            d_branch: arena.take(tokens * hidden * size),
            d_context: arena.take(tokens * hidden * size),
            d_activated: arena.take(tokens * intermediate * size),
            d_query_key_value: arena.take((3 * tokens).max(rows + 2 * tokens) * hidden * size),
            d_embeddings: arena.take(tokens * width * size),
            d_embedding_sum: arena.take(tokens * width * 4),
            partials: arena.take(partials[0].max(partials[1]) * 4),
        }
    }
}
