//! A batch's way forward: the launches of one pass, in order.

use super::super::device::{Device, Precision, Ptr};
use super::super::kernels::{self, Attention};
use super::super::matmul::{Compute, Matmul, Number};
use super::pass::{Norm, Pass};
use super::weights::Weights;
use crate::encoder::Dropouts;
use crate::random::DropoutSite;
use crate::{EncoderConfig, Error, LayerSlot, Slot};

/// What all launches of a pass share.
pub(super) struct Run<'a> {
    pub(super) device: &'a Device,
    pub(super) config: &'a EncoderConfig,
    pub(super) precision: Precision,
    pub(super) weights: &'a Weights,
    pub(super) pass: &'a Pass,
    pub(super) dropouts: Option<&'a Dropouts>,
}

impl Run<'_> {
    pub(super) fn forward(&self) -> Result<(), Error> {
        self.forward_embeddings()?;
        for layer in 0..self.config.num_layers {
            self.forward_layer(layer)?;
        }
        self.forward_head()
    }

    fn forward_embeddings(&self) -> Result<(), Error> {
        let (config, batch, embeddings) = (self.config, &self.pass.batch, self.pass.embeddings);
        let type_table = match config.type_vocab_size {
            0 => Ptr::NULL,
            _ => self.weights.master(Slot::TypeEmbeddings),
        };
        kernels::embed_norm_forward(
            self.device,
            self.precision,
            batch.ids,
            batch.types,
            batch.positions,
            self.weights.master(Slot::WordEmbeddings),
            type_table,
            self.weights.master(Slot::PositionEmbeddings),
            self.weights.master(Slot::EmbeddingNormWeight),
            self.weights.master(Slot::EmbeddingNormBias),
            config.layer_norm_epsilon,
            self.dropouts.and_then(|dropouts| dropouts.embeddings),
            batch.tokens,
            config.embedding_size,
            embeddings.sum,
            embeddings.norm.mean,
            embeddings.norm.rstd,
            embeddings.output,
        )?;
        if config.projects_embeddings() {
            let weight = Operand::new(Slot::EmbeddingProjectionWeight, config.hidden_size, config.embedding_size);
            let bias = Some(Slot::EmbeddingProjectionBias);
            self.linear(embeddings.output, batch.tokens, weight, bias, self.pass.hidden[0])?;
        }
        Ok(())
    }

    fn forward_layer(&self, layer: usize) -> Result<(), Error> {
        use LayerSlot::*;
        let (config, batch, places) = (self.config, &self.pass.batch, self.pass.layers[layer]);
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let all = self.pass.computes_all(layer);
        let rows = self.rows(layer);
        let slot = |part| Slot::Layer(layer, part);
        let input = self.pass.hidden[layer];

        let residual = if all { input } else { places.first_tokens };
        if all {
            let weight = Operand::new(slot(QueryWeight), 3 * hidden, hidden);
            self.linear(input, batch.tokens, weight, Some(slot(QueryBias)), places.query)?;
        } else {
            kernels::gather_rows(self.device, self.precision, input, batch.starts, rows, hidden, residual)?;
            let weight = Operand::new(slot(QueryWeight), hidden, hidden);
            self.linear(residual, rows, weight, Some(slot(QueryBias)), places.query)?;
            let weight = Operand::new(slot(KeyWeight), 2 * hidden, hidden);
            self.linear(input, batch.tokens, weight, Some(slot(KeyBias)), places.key_value)?;
        }
        let attention = self.attention(layer);
        kernels::attention_forward(self.device, self.precision, &attention, places.context, places.log_sums)?;

        let weight = Operand::new(slot(AttentionOutputWeight), hidden, hidden);
        self.linear(places.context, rows, weight, None, places.attention_sum)?;
        self.residual_norm(
            layer,
            [AttentionOutputBias, AttentionNormWeight, AttentionNormBias],
            self.dropouts.and_then(|dropouts| dropouts.layers[layer].attention_output),
            places.attention_sum,
            residual,
            places.attention_norm,
            places.attention_output,
        )?;

        let weight = Operand::new(slot(IntermediateWeight), intermediate, hidden);
        self.linear(places.attention_output, rows, weight, Some(slot(IntermediateBias)), places.pre_activation)?;
        let (pre_activation, activated) = (places.pre_activation, places.activated);
        let activation = config.activation;
        let (device, precision) = (self.device, self.precision);
        kernels::activation_forward(device, precision, activation, pre_activation, rows, intermediate, activated)?;
        let weight = Operand::new(slot(OutputWeight), hidden, intermediate);
        self.linear(places.activated, rows, weight, None, places.output_sum)?;
        self.residual_norm(
            layer,
            [OutputBias, OutputNormWeight, OutputNormBias],
            self.dropouts.and_then(|dropouts| dropouts.layers[layer].output),
            places.output_sum,
            places.attention_output,
            places.output_norm,
            self.pass.hidden[layer + 1],
        )
    }

    fn forward_head(&self) -> Result<(), Error> {
        let (config, batch, head) = (self.config, &self.pass.batch, self.pass.head);
        let (hidden, rows) = (config.hidden_size, batch.rows);
        let (device, precision) = (self.device, self.precision);
        if self.pass.all_rows {
            let last = self.pass.hidden[config.num_layers];
            kernels::gather_rows(device, precision, last, batch.starts, rows, hidden, head.input)?;
        }
        let dropout = self.dropouts.and_then(|dropouts| dropouts.head_input);
        kernels::dropout_rows(device, precision, head.input, dropout, rows, hidden)?;
        let weight = Operand::new(Slot::HeadDenseWeight, hidden, hidden);
        self.linear(head.input, rows, weight, Some(Slot::HeadDenseBias), head.pre_activation)?;
        let activation = config.head_activation();
        kernels::activation_forward(device, precision, activation, head.pre_activation, rows, hidden, head.activated)?;
        let dropout = self.dropouts.and_then(|dropouts| dropouts.head);
        kernels::dropout_rows(device, precision, head.activated, dropout, rows, hidden)?;
        let weight = Operand::new(Slot::HeadOutputWeight, config.num_labels, hidden);
        // Logits are few, and losses are sensitive to them: f32 whatever the precision.
        self.product(Matmul {
            c: head.logits,
            output: Number::F32,
            bias: Some(self.weights.master(Slot::HeadOutputBias)),
            ..self.times_weight(head.activated, rows, weight)
        })
    }

    /// Rows that a layer computes.
    pub(super) fn rows(&self, layer: usize) -> usize {
        if self.pass.computes_all(layer) { self.pass.batch.tokens } else { self.pass.batch.rows }
    }

    /// Which token each row of a layer is; null where row `r` is token `r`.
    pub(super) fn row_tokens(&self, layer: usize) -> Ptr {
        if self.pass.computes_all(layer) { Ptr::NULL } else { self.pass.batch.starts }
    }

    /// A layer's attention over what its forward pass left.
    pub(super) fn attention(&self, layer: usize) -> Attention {
        let (config, batch, places) = (self.config, &self.pass.batch, self.pass.layers[layer]);
        let all = self.pass.computes_all(layer);
        Attention {
            query: places.query,
            query_stride: self.query_stride(layer),
            key_value: places.key_value,
            key_value_stride: if all { 3 } else { 2 } * config.hidden_size,
            starts: batch.starts,
            query_starts: if all { Ptr::NULL } else { batch.counting },
            sequences: batch.rows,
            queries: self.rows(layer),
            tokens: batch.tokens,
            heads: config.num_heads,
            head_size: config.head_size(),
            longest: batch.longest,
            dropout: self.dropouts.and_then(|dropouts| dropouts.layers[layer].attention),
            max_length: config.max_length(),
        }
    }

    pub(super) fn query_stride(&self, layer: usize) -> usize {
        if self.pass.computes_all(layer) { 3 * self.config.hidden_size } else { self.config.hidden_size }
    }

    #[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
    fn residual_norm(
        &self,
        layer: usize,
        [branch_bias, norm_weight, norm_bias]: [LayerSlot; 3],
        dropout: Option<DropoutSite>,
        branch: Ptr,
        residual: Ptr,
        norm: Norm,
        output: Ptr,
    ) -> Result<(), Error> {
        let master = |part| self.weights.master(Slot::Layer(layer, part));
        kernels::residual_norm_forward(
            self.device,
            self.precision,
            branch,
            master(branch_bias),
            residual,
            master(norm_weight),
            master(norm_bias),
            self.config.layer_norm_epsilon,
            dropout,
            self.row_tokens(layer),
            self.rows(layer),
            self.config.hidden_size,
            norm.mean,
            norm.rstd,
            output,
        )
    }

    /// `out [rows, outer] = x [rows, inner] weight^T (+ bias)`
    fn linear(&self, x: Ptr, rows: usize, weight: Operand, bias: Option<Slot>, out: Ptr) -> Result<(), Error> {
        let bias = bias.map(|slot| self.weights.operand(slot));
        self.product(Matmul { c: out, bias, ..self.times_weight(x, rows, weight) })
    }

    /// The product of [`linear`](Self::linear), without bias and destination.
    fn times_weight(&self, x: Ptr, rows: usize, weight: Operand) -> Matmul {
        Matmul {
            m: rows,
            n: weight.outer,
            k: weight.inner,
            a: x,
            a_transposed: false,
            lda: weight.inner,
            b: self.weights.operand(weight.slot),
            b_transposed: true,
            ldb: weight.inner,
            c: Ptr::NULL,
            ldc: weight.outer,
            accumulate: false,
            bias: None,
            input: self.number(),
            output: self.number(),
            compute: self.compute(),
        }
    }

    pub(super) fn product(&self, matmul: Matmul) -> Result<(), Error> {
        self.device.matmul(matmul)
    }

    /// What activations are made of.
    pub(super) fn number(&self) -> Number {
        if self.precision == Precision::Bf16 { Number::Bf16 } else { Number::F32 }
    }

    pub(super) fn compute(&self) -> Compute {
        if self.precision == Precision::Tf32 { Compute::Tf32 } else { Compute::F32 }
    }
}

/// A weight `[outer, inner]`, or several side by side from this one on.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub(super) slot: Slot,
    pub(super) outer: usize,
    pub(super) inner: usize,
}

impl Operand {
    pub(super) fn new(slot: Slot, outer: usize, inner: usize) -> Self {
        Self { slot, outer, inner }
    }
}
