//! One chunk of a batch: its buffers and its way forward through the model, on one thread.

use std::ops::Range;

use super::PackedInput;
use crate::attention::{Scratch, Sequence};
use crate::layer_norm::{self, Norm};
use rayon::prelude::*;

use crate::linear::{add_bias, linear, linear_panels, panels};
use crate::product::{Into, Panels};
use crate::random::{DropoutRng, DropoutSite};
use crate::{EncoderConfig, Head, LayerSlot, Layout, Parameters, Slot};

/// What every chunk of a pass shares.
pub(super) struct Context<'a> {
    pub(super) config: &'a EncoderConfig,
    pub(super) layout: &'a Layout,
    pub(super) parameters: &'a Parameters,
    pub(super) dropouts: Option<&'a Dropouts>,
    /// Each layer's weights, where they are prepared for many passes.
    pub(super) prepared: Option<&'a Prepared>,
    /// Whether each layer keeps its own buffers.
    pub(super) keep_all: bool,
    /// Whether the last layer computes every token.
    pub(super) all_rows: bool,
}

impl Context<'_> {
    pub(super) fn norm(&self, weight: Slot, bias: Slot) -> Norm<'_> {
        let epsilon = self.config.layer_norm_epsilon;
        Norm { weight: self.parameters.get(weight), bias: self.parameters.get(bias), epsilon }
    }
}

/// The layers' weights in the form that products read, for passes that find them unchanged.
pub(super) struct Prepared {
    /// [`Parameters::version`] of what they were made of.
    pub(super) version: u64,
    layers: Vec<[Panels; 5]>,
    /// The word embeddings as the output matrix of a masked-language model.
    words: Option<Panels>,
}

/// The linear maps of a layer: keys and values are one.
#[derive(Clone, Copy)]
enum Map {
    Query,
    KeyValue,
    AttentionOutput,
    Intermediate,
    Output,
}

impl Map {
    const ALL: [Self; 5] = [Self::Query, Self::KeyValue, Self::AttentionOutput, Self::Intermediate, Self::Output];

    fn weight(self, parameters: &Parameters, layer: usize) -> &[f32] {
        use LayerSlot::*;
        match self {
            Self::Query => parameters.layer(layer, QueryWeight),
            Self::KeyValue => parameters.span(Slot::Layer(layer, KeyWeight), Slot::Layer(layer, ValueWeight)),
            Self::AttentionOutput => parameters.layer(layer, AttentionOutputWeight),
            Self::Intermediate => parameters.layer(layer, IntermediateWeight),
            Self::Output => parameters.layer(layer, OutputWeight),
        }
    }
}

impl Prepared {
    pub(super) fn new(config: &EncoderConfig, parameters: &Parameters) -> Self {
        let prepare = |layer| {
            Map::ALL.map(|map| {
                let inner = if let Map::Output = map { config.intermediate_size } else { config.hidden_size };
                panels(map.weight(parameters, layer), inner)
            })
        };
        let layers = (0..config.num_layers).into_par_iter().map(prepare).collect();
        let words = || panels(parameters.get(Slot::WordEmbeddings), config.embedding_size);
        let words = (config.head == Head::MaskedLm).then(words);
        Self { version: parameters.version(), layers, words }
    }
}

impl Context<'_> {
    /// `out [rows, outer] = x [rows, inner] weight^T` of a layer's map.
    fn linear(&self, layer: usize, map: Map, x: &[f32], rows: usize, out: &mut [f32]) {
        let inner = x.len() / rows.max(1);
        match self.prepared {
            Some(prepared) => linear_panels(x, &prepared.layers[layer][map as usize], rows, inner, out),
            None => linear(x, map.weight(self.parameters, layer), rows, inner, out, Into::Fresh),
        }
    }
}

/// The dropout masks of a pass, one a place in the model.
pub(crate) struct Dropouts {
    pub(crate) embeddings: Option<DropoutSite>,
    pub(crate) layers: Vec<LayerDropouts>,
    pub(crate) head_input: Option<DropoutSite>,
    pub(crate) head: Option<DropoutSite>,
}

#[derive(Clone, Copy)]
pub(crate) struct LayerDropouts {
    pub(crate) attention: Option<DropoutSite>,
    pub(crate) attention_output: Option<DropoutSite>,
    pub(crate) output: Option<DropoutSite>,
}

impl Dropouts {
    pub(crate) fn new(config: &EncoderConfig, rng: &DropoutRng) -> Self {
        let layer = |layer: usize| LayerDropouts {
            attention: rng.site(layer as u64 * 4, config.attention_dropout),
            attention_output: rng.site(layer as u64 * 4 + 1, config.attention_output_dropout()),
            output: rng.site(layer as u64 * 4 + 2, config.hidden_dropout),
        };
        Self {
            embeddings: rng.site(1 << 32, config.hidden_dropout),
            layers: (0..config.num_layers).map(layer).collect(),
            head_input: rng.site((1 << 32) + 1, config.head_input_dropout()),
            head: rng.site((1 << 32) + 2, config.classifier_dropout),
        }
    }
}

/// The buffers of one chunk. Sizes: `T` tokens, `B` rows, `R` rows that a layer computes (`T`, or `B` in the last).
#[derive(Default)]
pub(super) struct Chunk {
    /// First row of the chunk in the batch, and where its tokens start.
    pub(super) first_row: usize,
    pub(super) first_token: usize,
    pub(super) input_ids: Vec<u32>,
    pub(super) token_type_ids: Vec<u32>,
    /// `[B + 1]`, from 0.
    pub(super) starts: Vec<usize>,
    /// `[P]`: the tokens that a masked-language-model head reads, from 0.
    pub(super) positions: Vec<usize>,
    pub(super) embeddings: Embeddings,
    pub(super) layers: Vec<LayerBuffers>,
    /// Output of the embeddings and of each layer; two in turn when nothing is kept.
    pub(super) hidden: Vec<Vec<f32>>,
    pub(super) head: HeadBuffers,
    pub(super) scratch: Scratch,
    pub(super) backward: super::backward::Buffers,
    keeps_all: bool,
}

/// The embeddings' buffers, `[T, embedding]` where not said.
#[derive(Default)]
pub(super) struct Embeddings {
    /// Before the norm's weight and bias.
    pub(super) normalized: Vec<f32>,
    /// `[T]`: reciprocal deviations.
    pub(super) scale: Vec<f32>,
    /// Behind norm and dropout; what is projected, where there is a projection.
    pub(super) output: Vec<f32>,
}

/// One layer's buffers, `[R, hidden]` where not said.
#[derive(Default)]
pub(super) struct LayerBuffers {
    /// The rows of the layer's input that queries are made of, if not all of them.
    pub(super) first_tokens: Vec<f32>,
    pub(super) query: Vec<f32>,
    /// `[T, 2 * hidden]`
    pub(super) key_value: Vec<f32>,
    pub(super) context: Vec<f32>,
    pub(super) attention_normalized: Vec<f32>,
    pub(super) attention_scale: Vec<f32>,
    pub(super) attention_output: Vec<f32>,
    /// `[R, intermediate]`, with its bias.
    pub(super) pre_activation: Vec<f32>,
    /// `[R, intermediate]`
    pub(super) activated: Vec<f32>,
    pub(super) output_normalized: Vec<f32>,
    pub(super) output_scale: Vec<f32>,
}

/// The head's buffers, where not said `[B, hidden]`, or `[P, hidden]` of a masked-language model.
#[derive(Default)]
pub(super) struct HeadBuffers {
    /// The last hidden states that the head reads, dropped out where the family does so.
    pub(super) input: Vec<f32>,
    pub(super) pre_activation: Vec<f32>,
    /// Behind activation and dropout; of a masked-language model normalised in place.
    pub(super) activated: Vec<f32>,
    /// `[P]`: reciprocal deviations.
    pub(super) scale: Vec<f32>,
    /// Behind the norm of a masked-language model: what the word embeddings are multiplied with.
    pub(super) normed: Vec<f32>,
    /// `[B, labels]`, or `[P, vocabulary]`, which backward replaces by the gradient there.
    pub(super) logits: Vec<f32>,
}

impl Chunk {
    pub(super) fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    pub(super) fn logits(&self) -> &[f32] {
        &self.head.logits
    }

    /// The output of the embeddings (0) or of a layer (from 1), `[T, hidden]`, if all were kept.
    pub(super) fn hidden_state(&self, index: usize) -> &[f32] {
        &self.hidden[index]
    }

    /// Whether a layer computes every token's output.
    pub(super) fn computes_all(&self, context: &Context<'_>, layer: usize) -> bool {
        context.all_rows || layer + 1 < context.config.num_layers || context.config.head == Head::MaskedLm
    }

    /// Runs the model over these rows of the batch.
    pub(super) fn forward(&mut self, context: &Context<'_>, input: PackedInput<'_>, rows: Range<usize>) {
        self.keeps_all = context.keep_all;
        self.first_row = rows.start;
        self.first_token = input.starts[rows.start] as usize;
        let tokens = self.first_token..input.starts[rows.end] as usize;
        self.input_ids.clear();
        self.input_ids.extend_from_slice(&input.input_ids[tokens.clone()]);
        self.token_type_ids.clear();
        self.token_type_ids.extend_from_slice(&input.token_type_ids[tokens.clone()]);
        self.positions.clear();
        let chosen = input.positions.unwrap_or_default().iter().map(|&position| position as usize);
        self.positions.extend(chosen.filter(|token| tokens.contains(token)).map(|token| token - self.first_token));
        self.starts.clear();
        self.starts.extend(input.starts[rows.start..=rows.end].iter().map(|&start| start as usize - self.first_token));

        let layers = context.config.num_layers;
        self.layers.resize_with(if context.keep_all { layers } else { 1 }, LayerBuffers::default);
        self.hidden.resize_with(if context.keep_all { layers + 1 } else { 2 }, Vec::new);
        self.forward_embeddings(context);
        for layer in 0..layers {
            self.forward_layer(context, layer);
        }
        match context.config.head {
            Head::Classification => self.forward_head(context),
            Head::MaskedLm => self.forward_lm_head(context),
        }
    }

    /// Index of a layer's buffers, and of its input's and output's hidden states.
    pub(super) fn buffers(&self, layer: usize) -> (usize, usize, usize) {
        if self.keeps_all { (layer, layer, layer + 1) } else { (0, layer % 2, (layer + 1) % 2) }
    }

    fn forward_embeddings(&mut self, context: &Context<'_>) {
        let config = context.config;
        let (width, tokens) = (config.embedding_size, self.tokens());
        let word = context.parameters.get(Slot::WordEmbeddings);
        let position = context.parameters.get(Slot::PositionEmbeddings);
        let types = (config.type_vocab_size > 0).then(|| context.parameters.get(Slot::TypeEmbeddings));
        let norm = context.norm(Slot::EmbeddingNormWeight, Slot::EmbeddingNormBias);
        let dropout = context.dropouts.and_then(|dropouts| dropouts.embeddings);

        let Embeddings { normalized, scale, output } = &mut self.embeddings;
        normalized.resize(tokens * width, 0.0);
        scale.resize(tokens, 0.0);
        let output = if config.projects_embeddings() { output } else { &mut self.hidden[0] };
        output.resize(tokens * width, 0.0);
        for pair in self.starts.windows(2) {
            for token in pair[0]..pair[1] {
                let row = &mut normalized[token * width..(token + 1) * width];
                row.copy_from_slice(table_row(word, self.input_ids[token] as usize, width));
                add(row, table_row(position, config.position_offset() + token - pair[0], width));
                if let Some(types) = types {
                    add(row, table_row(types, self.token_type_ids[token] as usize, width));
                }
                let out = &mut output[token * width..(token + 1) * width];
                let element = ((self.first_token + token) * width) as u32;
                scale[token] = layer_norm::forward_row_then_dropout(row, norm, dropout, element, out);
            }
        }
        if config.projects_embeddings() {
            let weight = context.parameters.get(Slot::EmbeddingProjectionWeight);
            let hidden = &mut self.hidden[0];
            hidden.resize(tokens * config.hidden_size, 0.0);
            linear(&self.embeddings.output, weight, tokens, width, hidden, Into::Fresh);
            add_bias(hidden, context.parameters.get(Slot::EmbeddingProjectionBias));
        }
    }

    fn forward_layer(&mut self, context: &Context<'_>, layer: usize) {
        use LayerSlot::*;
        let config = context.config;
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let all = self.computes_all(context, layer);
        let (tokens, rows) = (self.tokens(), if all { self.tokens() } else { self.rows() });
        let (index, input_index, output_index) = self.buffers(layer);
        let dropouts = context.dropouts.map(|dropouts| dropouts.layers[layer]);
        let weight = |part| context.parameters.layer(layer, part);
        let token_of = |row: usize| self.first_token + if all { row } else { self.starts[row] };

        let input = std::mem::take(&mut self.hidden[input_index]);
        let mut output = std::mem::take(&mut self.hidden[output_index]);
        let buffers = &mut self.layers[index];

        if !all {
            buffers.first_tokens.clear();
            for row in 0..rows {
                let start = self.starts[row] * hidden;
                buffers.first_tokens.extend_from_slice(&input[start..start + hidden]);
            }
        }
        let query_input = if all { &input } else { &buffers.first_tokens };
        buffers.query.resize(rows * hidden, 0.0);
        context.linear(layer, Map::Query, query_input, rows, &mut buffers.query);
        add_bias(&mut buffers.query, weight(QueryBias));
        let key_value_bias = context.parameters.span(Slot::Layer(layer, KeyBias), Slot::Layer(layer, ValueBias));
        buffers.key_value.resize(tokens * 2 * hidden, 0.0);
        context.linear(layer, Map::KeyValue, &input, tokens, &mut buffers.key_value);
        add_bias(&mut buffers.key_value, key_value_bias);

        buffers.context.resize(rows * hidden, 0.0);
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
            sequence.forward(
                &buffers.query[queries.start * hidden..queries.end * hidden],
                &buffers.key_value[tokens.start * 2 * hidden..tokens.end * 2 * hidden],
                &mut self.scratch,
                &mut buffers.context[queries.start * hidden..queries.end * hidden],
            );
        }

        for buffer in [&mut buffers.attention_normalized, &mut buffers.attention_output] {
            buffer.resize(rows * hidden, 0.0);
        }
        let branch = &mut buffers.attention_normalized;
        context.linear(layer, Map::AttentionOutput, &buffers.context, rows, branch);
        residual_norm(
            branch,
            weight(AttentionOutputBias),
            query_input,
            context.norm(Slot::Layer(layer, AttentionNormWeight), Slot::Layer(layer, AttentionNormBias)),
            dropouts.and_then(|dropouts| dropouts.attention_output),
            &token_of,
            &mut buffers.attention_scale,
            &mut buffers.attention_output,
        );

        for buffer in [&mut buffers.pre_activation, &mut buffers.activated] {
            buffer.resize(rows * intermediate, 0.0);
        }
        let pre_activation = &mut buffers.pre_activation;
        context.linear(layer, Map::Intermediate, &buffers.attention_output, rows, pre_activation);
        config.activation.bias_forward(pre_activation, weight(IntermediateBias), &mut buffers.activated);

        buffers.output_normalized.resize(rows * hidden, 0.0);
        output.resize(rows * hidden, 0.0);
        let branch = &mut buffers.output_normalized;
        context.linear(layer, Map::Output, &buffers.activated, rows, branch);
        residual_norm(
            branch,
            weight(OutputBias),
            &buffers.attention_output,
            context.norm(Slot::Layer(layer, OutputNormWeight), Slot::Layer(layer, OutputNormBias)),
            dropouts.and_then(|dropouts| dropouts.output),
            &token_of,
            &mut buffers.output_scale,
            &mut output,
        );
        self.hidden[input_index] = input;
        self.hidden[output_index] = output;
    }

    fn forward_head(&mut self, context: &Context<'_>) {
        let config = context.config;
        let (hidden, rows, layers) = (config.hidden_size, self.rows(), config.num_layers);
        let all = self.computes_all(context, layers - 1);
        let last = &self.hidden[if self.keeps_all { layers } else { layers % 2 }];
        let head = &mut self.head;
        head.input.clear();
        for row in 0..rows {
            let start = hidden * if all { self.starts[row] } else { row };
            head.input.extend_from_slice(&last[start..start + hidden]);
        }
        let first = self.first_row * hidden;
        drop_out(&mut head.input, context.dropouts.and_then(|dropouts| dropouts.head_input), first);
        for buffer in [&mut head.pre_activation, &mut head.activated] {
            buffer.resize(rows * hidden, 0.0);
        }
        let parameters = context.parameters;
        let pre_activation = &mut head.pre_activation;
        linear(&head.input, parameters.get(Slot::HeadDenseWeight), rows, hidden, pre_activation, Into::Fresh);
        let bias = parameters.get(Slot::HeadDenseBias);
        config.head_activation().bias_forward(pre_activation, bias, &mut head.activated);
        drop_out(&mut head.activated, context.dropouts.and_then(|dropouts| dropouts.head), first);
        head.logits.resize(rows * config.num_labels, 0.0);
        linear(&head.activated, parameters.get(Slot::HeadOutputWeight), rows, hidden, &mut head.logits, Into::Fresh);
        add_bias(&mut head.logits, parameters.get(Slot::HeadOutputBias));
    }

    fn forward_lm_head(&mut self, context: &Context<'_>) {
        let (config, parameters) = (context.config, context.parameters);
        let (hidden, rows, layers) = (config.hidden_size, self.positions.len(), config.num_layers);
        let last = &self.hidden[if self.keeps_all { layers } else { layers % 2 }];
        let head = &mut self.head;
        head.input.clear();
        for &token in &self.positions {
            head.input.extend_from_slice(table_row(last, token, hidden));
        }
        for buffer in [&mut head.pre_activation, &mut head.activated, &mut head.normed] {
            buffer.resize(rows * hidden, 0.0);
        }
        let weight = parameters.get(Slot::LmDenseWeight);
        linear(&head.input, weight, rows, hidden, &mut head.pre_activation, Into::Fresh);
        let bias = parameters.get(Slot::LmDenseBias);
        config.lm_activation().bias_forward(&mut head.pre_activation, bias, &mut head.activated);
        let norm = context.norm(Slot::LmNormWeight, Slot::LmNormBias);
        let normed = head.activated.chunks_exact_mut(hidden).zip(head.normed.chunks_exact_mut(hidden));
        let scales = normed.map(|(row, out)| layer_norm::forward_row_then_dropout(row, norm, None, 0, out));
        head.scale.clear();
        head.scale.extend(scales);
        head.logits.resize(rows * config.vocab_size, 0.0);
        match context.prepared.and_then(|prepared| prepared.words.as_ref()) {
            Some(words) => linear_panels(&head.normed, words, rows, hidden, &mut head.logits),
            None => {
                let words = parameters.get(Slot::WordEmbeddings);
                linear(&head.normed, words, rows, hidden, &mut head.logits, Into::Fresh);
            }
        }
        add_bias(&mut head.logits, parameters.get(Slot::LmOutputBias));
    }
}

/// Every row through [`layer_norm::forward_row`].
#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
fn residual_norm(
    branch: &mut [f32],
    branch_bias: &[f32],
    residual: &[f32],
    norm: Norm<'_>,
    dropout: Option<DropoutSite>,
    token_of: &impl Fn(usize) -> usize,
    scale: &mut Vec<f32>,
    output: &mut [f32],
) {
    let width = branch_bias.len();
    scale.resize(branch.len() / width, 0.0);
    let rows = branch.chunks_exact_mut(width).zip(residual.chunks_exact(width)).zip(output.chunks_exact_mut(width));
    for (row, ((branch, residual), output)) in rows.enumerate() {
        let element = (token_of(row) * width) as u32;
        scale[row] = layer_norm::forward_row(branch, branch_bias, residual, norm, dropout, element, output);
    }
}

/// Applies a dropout mask to values numbered from `first`.
pub(super) fn drop_out(values: &mut [f32], site: Option<DropoutSite>, first: usize) {
    let Some(site) = site else { return };
    for (i, value) in values.iter_mut().enumerate() {
        *value *= site.factor((first + i) as u32);
    }
}

pub(super) fn table_row(table: &[f32], row: usize, width: usize) -> &[f32] {
    &table[row * width..(row + 1) * width]
}

fn add(row: &mut [f32], other: &[f32]) {
    for (value, other) in row.iter_mut().zip(other) {
        *value += other;
    }
}
