//! A chunk's way back through the model, on one thread: the gradients in everything that has a row for each token.
//!
//! The gradients in outputs of linear maps replace what the forward pass kept there, for the sums over chunks that make
//! the weights' gradients; gradients of biases and norms are summed here, into a small buffer of the chunk's own.

use std::ops::Range;

use super::chunk::{Chunk, Context, drop_out};
use crate::attention::Sequence;
use crate::layer_norm;
use crate::linear::{add_rows, linear_backward};
use crate::product::{Into, View, product};
use crate::{Head, LayerSlot, Layout, Slot};

/// Rows of the word embeddings that one product of the way back through a masked-language-model head reads: as many as
/// keep a panel of them in the second-level cache.
const WORDS: usize = 1024;

/// What the backward pass needs besides the forward pass's buffers.
#[derive(Default)]
pub(super) struct Buffers {
    /// Gradients of all vectors, in the order of [`vectors`].
    pub(super) vectors: Vec<f32>,
    /// `[B, labels]`: gradient in the logits.
    pub(super) d_logits: Vec<f32>,
    /// `[T, embedding]`: gradient in the sum of the embeddings.
    pub(super) d_embeddings: Vec<f32>,
    /// `[R, hidden]`: gradient in a layer's output.
    d_output: Vec<f32>,
    /// `[R, hidden]`
    d_residual: Vec<f32>,
    /// `[R, hidden]`: gradient in the attention's output before its projection.
    d_context: Vec<f32>,
    /// `[R, intermediate]`
    d_activated: Vec<f32>,
}

/// The vectors (biases and norms) with their place in a chunk's buffer of them.
pub(super) fn vectors(layout: &Layout) -> impl Iterator<Item = (Slot, Range<usize>)> + '_ {
    layout.entries().iter().filter(|entry| entry.shape.len() == 1).scan(0, |offset, entry| {
        let range = *offset..*offset + entry.range.len();
        *offset = range.end;
        Some((entry.slot, range))
    })
}

/// Disjoint mutable views of a chunk's vector gradients.
struct Vectors<'a> {
    views: std::collections::HashMap<Slot, &'a mut [f32]>,
}

impl<'a> Vectors<'a> {
    fn new(layout: &Layout, buffer: &'a mut Vec<f32>) -> Self {
        let len = vectors(layout).map(|(_, range)| range.len()).sum();
        buffer.clear();
        buffer.resize(len, 0.0);
        let mut rest = buffer.as_mut_slice();
        let mut views = std::collections::HashMap::new();
        for (slot, range) in vectors(layout) {
            let (view, tail) = rest.split_at_mut(range.len());
            views.insert(slot, view);
            rest = tail;
        }
        Self { views }
    }

    /// Hands out one view; each is asked for once.
    fn take(&mut self, slot: Slot) -> &'a mut [f32] {
        self.views.remove(&slot).unwrap_or_else(|| panic!("{slot:?} is a vector of this layout, taken once"))
    }

    fn layer(&mut self, layer: usize, part: LayerSlot) -> &'a mut [f32] {
        self.take(Slot::Layer(layer, part))
    }
}

impl Chunk {
    /// Runs the model backward from the gradient in this chunk's logits.
    pub(super) fn backward(&mut self, context: &Context<'_>, d_logits: &[f32]) {
        let mut buffer = std::mem::take(&mut self.backward.vectors);
        let mut vectors = Vectors::new(context.layout, &mut buffer);
        match context.config.head {
            Head::Classification => self.backward_head(context, d_logits, &mut vectors),
            Head::MaskedLm => self.backward_lm_head(context, d_logits, &mut vectors),
        }
        for layer in (0..context.config.num_layers).rev() {
            self.backward_layer(context, layer, &mut vectors);
        }
        self.backward_embeddings(context, &mut vectors);
        self.backward.vectors = buffer;
    }

    fn backward_head(&mut self, context: &Context<'_>, d_logits: &[f32], vectors: &mut Vectors<'_>) {
        let config = context.config;
        let (hidden, rows) = (config.hidden_size, self.rows());
        let parameters = context.parameters;
        let dropouts = context.dropouts;
        let first = self.first_row * hidden;

        let Buffers { d_logits: kept, d_residual: d_activated, d_output: d_input, .. } = &mut self.backward;
        kept.clear();
        kept.extend_from_slice(d_logits);
        add_rows(d_logits, vectors.take(Slot::HeadOutputBias));
        for buffer in [&mut *d_activated, &mut *d_input] {
            buffer.resize(rows * hidden, 0.0);
        }
        linear_backward(d_logits, parameters.get(Slot::HeadOutputWeight), rows, hidden, d_activated, Into::Fresh);
        drop_out(d_activated, dropouts.and_then(|dropouts| dropouts.head), first);
        let pre_activation = &mut self.head.pre_activation;
        config.head_activation().bias_backward(pre_activation, d_activated, vectors.take(Slot::HeadDenseBias));
        linear_backward(pre_activation, parameters.get(Slot::HeadDenseWeight), rows, hidden, d_input, Into::Fresh);
        drop_out(d_input, dropouts.and_then(|dropouts| dropouts.head_input), first);
    }

    fn backward_lm_head(&mut self, context: &Context<'_>, d_logits: &[f32], vectors: &mut Vectors<'_>) {
        let (config, parameters) = (context.config, context.parameters);
        let (hidden, vocabulary, rows) = (config.hidden_size, config.vocab_size, self.positions.len());
        let head = &mut self.head;
        head.logits.copy_from_slice(d_logits);
        add_rows(d_logits, vectors.take(Slot::LmOutputBias));

        let Buffers { d_output, d_residual: d_normed, .. } = &mut self.backward;
        d_normed.clear();
        d_normed.resize(rows * hidden, 0.0);
        for first in (0..vocabulary).step_by(WORDS) {
            let count = WORDS.min(vocabulary - first);
            let d_logits = View::new(d_logits.get(first..).unwrap_or_default(), rows, count, vocabulary);
            let words = &parameters.get(Slot::WordEmbeddings)[first * hidden..(first + count) * hidden];
            product(d_logits, View::new(words, count, hidden, hidden), 1.0, d_normed, hidden, Into::Sum);
        }
        let weight = parameters.get(Slot::LmNormWeight);
        let (d_weight, d_bias) = (vectors.take(Slot::LmNormWeight), vectors.take(Slot::LmNormBias));
        let rows_of_both = d_normed.chunks_exact_mut(hidden).zip(head.activated.chunks_exact(hidden));
        for ((d_row, normalized), &scale) in rows_of_both.zip(&head.scale) {
            layer_norm::backward_row_then_dropout(d_row, normalized, scale, weight, None, 0, d_weight, d_bias);
        }
        config.lm_activation().bias_backward(&mut head.pre_activation, d_normed, vectors.take(Slot::LmDenseBias));

        // From the chosen tokens to all of them; no gradient enters at the others.
        let d_input = d_normed;
        linear_backward(&head.pre_activation, parameters.get(Slot::LmDenseWeight), rows, hidden, d_input, Into::Fresh);
        d_output.clear();
        d_output.resize(self.input_ids.len() * hidden, 0.0);
        for (d_row, &token) in d_input.chunks_exact(hidden).zip(&self.positions) {
            d_output[token * hidden..(token + 1) * hidden].copy_from_slice(d_row);
        }
    }

    /// From the gradient in the layer's output to that in its input, both in `d_output`.
    fn backward_layer(&mut self, context: &Context<'_>, layer: usize, vectors: &mut Vectors<'_>) {
        use LayerSlot::*;
        let config = context.config;
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let all = self.computes_all(context, layer);
        let (tokens, rows) = (self.tokens(), if all { self.tokens() } else { self.rows() });
        let dropouts = context.dropouts.map(|dropouts| dropouts.layers[layer]);
        let weight = |part| context.parameters.layer(layer, part);
        let element = |row: usize| {
            let token = self.first_token + if all { row } else { self.starts[row] };
            (token * hidden) as u32
        };
        let buffers = &mut self.layers[layer];
        let Buffers { d_output, d_residual, d_context, d_activated, .. } = &mut self.backward;

        // Feed-forward part.
        let norm_weight = weight(OutputNormWeight);
        let dropout = dropouts.and_then(|dropouts| dropouts.output);
        let (d_weight, d_bias) = (vectors.layer(layer, OutputNormWeight), vectors.layer(layer, OutputNormBias));
        let d_branch_bias = vectors.layer(layer, OutputBias);
        for row in 0..rows {
            let span = row * hidden..(row + 1) * hidden;
            let normalized = &mut buffers.output_normalized[span.clone()];
            let (scale, element) = (buffers.output_scale[row], element(row));
            let d_out = &mut d_output[span];
            layer_norm::backward_row(
                d_out,
                normalized,
                scale,
                norm_weight,
                dropout,
                element,
                d_weight,
                d_bias,
                d_branch_bias,
            );
        }
        let d_branch = &buffers.output_normalized;
        d_activated.resize(rows * intermediate, 0.0);
        linear_backward(d_branch, weight(OutputWeight), rows, intermediate, d_activated, Into::Fresh);
        let pre_activation = &mut buffers.pre_activation;
        config.activation.bias_backward(pre_activation, d_activated, vectors.layer(layer, IntermediateBias));
        linear_backward(pre_activation, weight(IntermediateWeight), rows, hidden, d_output, Into::Sum);

        // Attention part.
        let norm_weight = weight(AttentionNormWeight);
        let dropout = dropouts.and_then(|dropouts| dropouts.attention_output);
        let (d_weight, d_bias) = (vectors.layer(layer, AttentionNormWeight), vectors.layer(layer, AttentionNormBias));
        let d_branch_bias = vectors.layer(layer, AttentionOutputBias);
        for row in 0..rows {
            let span = row * hidden..(row + 1) * hidden;
            let normalized = &mut buffers.attention_normalized[span.clone()];
            let (scale, element) = (buffers.attention_scale[row], element(row));
            let d_out = &mut d_output[span];
            layer_norm::backward_row(
                d_out,
                normalized,
                scale,
                norm_weight,
                dropout,
                element,
                d_weight,
                d_bias,
                d_branch_bias,
            );
        }
        let d_branch = &buffers.attention_normalized;
        d_context.resize(rows * hidden, 0.0);
        linear_backward(d_branch, weight(AttentionOutputWeight), rows, hidden, d_context, Into::Fresh);
        for row in 0..self.starts.len() - 1 {
            let tokens = self.starts[row]..self.starts[row + 1];
            let queries = if all { tokens.clone() } else { row..row + 1 };
            let sequence = Sequence {
                length: tokens.len(),
                queries: queries.len(),
                heads: config.num_heads,
                hidden,
                token: self.first_token + tokens.start,
                max_length: config.max_length(),
                dropout: dropouts.and_then(|dropouts| dropouts.attention),
            };
            sequence.backward(
                &mut buffers.query[queries.start * hidden..queries.end * hidden],
                &mut buffers.key_value[tokens.start * 2 * hidden..tokens.end * 2 * hidden],
                &d_context[queries.start * hidden..queries.end * hidden],
                &mut self.scratch,
            );
        }
        add_rows(&buffers.query, vectors.layer(layer, QueryBias));
        let (d_key_bias, d_value_bias) = (vectors.layer(layer, KeyBias), vectors.layer(layer, ValueBias));
        for row in buffers.key_value.chunks_exact(2 * hidden) {
            add_rows(&row[..hidden], d_key_bias);
            add_rows(&row[hidden..], d_value_bias);
        }
        let key_value = context.parameters.span(Slot::Layer(layer, KeyWeight), Slot::Layer(layer, ValueWeight));
        linear_backward(&buffers.query, weight(QueryWeight), rows, hidden, d_output, Into::Sum);
        if all {
            linear_backward(&buffers.key_value, key_value, tokens, hidden, d_output, Into::Sum);
        } else {
            // The gradient in the first tokens joins that in all of them.
            d_residual.resize(tokens * hidden, 0.0);
            linear_backward(&buffers.key_value, key_value, tokens, hidden, d_residual, Into::Fresh);
            for row in 0..rows {
                let start = self.starts[row] * hidden;
                add_rows(&d_output[row * hidden..(row + 1) * hidden], &mut d_residual[start..start + hidden]);
            }
            std::mem::swap(d_output, d_residual);
        }
    }

    fn backward_embeddings(&mut self, context: &Context<'_>, vectors: &mut Vectors<'_>) {
        let config = context.config;
        let (width, tokens) = (config.embedding_size, self.tokens());
        let Buffers { d_output, d_embeddings, .. } = &mut self.backward;
        if config.projects_embeddings() {
            add_rows(d_output, vectors.take(Slot::EmbeddingProjectionBias));
            d_embeddings.resize(tokens * width, 0.0);
            let weight = context.parameters.get(Slot::EmbeddingProjectionWeight);
            linear_backward(d_output, weight, tokens, width, d_embeddings, Into::Fresh);
        } else {
            d_embeddings.clear();
            d_embeddings.extend_from_slice(d_output);
        }
        let weight = context.parameters.get(Slot::EmbeddingNormWeight);
        let dropout = context.dropouts.and_then(|dropouts| dropouts.embeddings);
        let (d_weight, d_bias) = (vectors.take(Slot::EmbeddingNormWeight), vectors.take(Slot::EmbeddingNormBias));
        for token in 0..tokens {
            let span = token * width..(token + 1) * width;
            let normalized = &self.embeddings.normalized[span.clone()];
            let element = ((self.first_token + token) * width) as u32;
            layer_norm::backward_row_then_dropout(
                &mut d_embeddings[span],
                normalized,
                self.embeddings.scale[token],
                weight,
                dropout,
                element,
                d_weight,
                d_bias,
            );
        }
    }

    /// Gradient in the output of the embeddings' projection, `[T, hidden]`.
    pub(super) fn d_projected(&self) -> &[f32] {
        &self.backward.d_output
    }
}
