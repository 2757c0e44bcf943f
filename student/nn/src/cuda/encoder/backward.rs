//! A batch's way back: the launches from the gradient in the logits to those in all parameters.
//!
//! The gradient in a layer's output turns in place into that in its input. Every weight's gradient is one product that is
//! added to what stands there, so micro-batches add up without further work.

use super::super::device::Ptr;
use super::super::kernels;
use super::super::matmul::{Matmul, Number};
use super::batch::Sorted;
use super::forward::{Operand, Run};
use super::pass::Norm;
use crate::random::DropoutSite;
use crate::{Error, LayerSlot, Slot};

impl Run<'_> {
    /// Adds to the gradients, from the gradient that stands in the logits' place.
    pub(super) fn backward(&self) -> Result<(), Error> {
        let [mut d_hidden, mut other] = self.pass.backward.d_hidden;
        self.backward_head(d_hidden)?;
        for layer in (0..self.config.num_layers).rev() {
            self.backward_layer(layer, d_hidden, other)?;
            if !self.pass.computes_all(layer) {
                std::mem::swap(&mut d_hidden, &mut other);
            }
        }
        self.backward_embeddings(d_hidden)
    }

    /// Leaves the gradient in the last layer's output in `d_output`.
    fn backward_head(&self, d_output: Ptr) -> Result<(), Error> {
        let (config, batch, head) = (self.config, &self.pass.batch, self.pass.head);
        let (device, precision) = (self.device, self.precision);
        let (hidden, rows, labels) = (config.hidden_size, batch.rows, config.num_labels);
        let d_activated = self.pass.backward.d_context;
        let dropouts = self.dropouts;

        self.bias_gradient(head.d_logits, labels, rows, labels, Slot::HeadOutputBias)?;
        let weight = Operand::new(Slot::HeadOutputWeight, labels, hidden);
        self.weight_gradient(head.d_logits, labels, rows, head.activated, weight)?;
        self.linear_backward(head.d_logits, rows, weight, d_activated, Into::Fresh)?;
        let dropout = dropouts.and_then(|dropouts| dropouts.head);
        kernels::dropout_rows(device, precision, d_activated, dropout, rows, hidden)?;
        let activation = config.head_activation();
        let partials = self.pass.backward.partials;
        let pre = head.pre_activation;
        kernels::activation_backward(device, precision, activation, pre, d_activated, rows, hidden, partials)?;
        self.reduce(kernels::column_partials(rows), hidden, Slot::HeadDenseBias)?;
        let weight = Operand::new(Slot::HeadDenseWeight, hidden, hidden);
        self.weight_gradient(d_activated, hidden, rows, head.input, weight)?;
        // The head read the first tokens alone; nothing else has a gradient.
        let d_input = if self.pass.all_rows { self.pass.backward.d_branch } else { d_output };
        self.linear_backward(d_activated, rows, weight, d_input, Into::Fresh)?;
        let dropout = dropouts.and_then(|dropouts| dropouts.head_input);
        kernels::dropout_rows(device, precision, d_input, dropout, rows, hidden)?;
        if self.pass.all_rows {
            device.zero(d_output, batch.tokens * hidden * precision.bytes())?;
            kernels::scatter_add_rows(device, precision, d_input, batch.starts, rows, hidden, d_output)?;
        }
        Ok(())
    }

    /// From the gradient in the layer's output, in `d_output`, to that in its input: there, or where the layer computes
    /// first tokens alone, in `other`.
    fn backward_layer(&self, layer: usize, d_output: Ptr, other: Ptr) -> Result<(), Error> {
        use LayerSlot::*;
        let (config, batch, places) = (self.config, &self.pass.batch, self.pass.layers[layer]);
        let (device, precision) = (self.device, self.precision);
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let all = self.pass.computes_all(layer);
        let rows = self.rows(layer);
        let slot = |part| Slot::Layer(layer, part);
        let back = self.pass.backward;
        let input = self.pass.hidden[layer];

        // Feed-forward part.
        let dropout = self.dropouts.and_then(|dropouts| dropouts.layers[layer].output);
        self.residual_norm_backward(layer, OutputNormWeight, dropout, d_output, places.output_sum, places.output_norm)?;
        let weight = Operand::new(slot(OutputWeight), hidden, intermediate);
        self.weight_gradient(back.d_branch, hidden, rows, places.activated, weight)?;
        self.linear_backward(back.d_branch, rows, weight, back.d_activated, Into::Fresh)?;
        kernels::activation_backward(
            device,
            precision,
            config.activation,
            places.pre_activation,
            back.d_activated,
            rows,
            intermediate,
            back.partials,
        )?;
        self.reduce(kernels::column_partials(rows), intermediate, slot(IntermediateBias))?;
        let weight = Operand::new(slot(IntermediateWeight), intermediate, hidden);
        self.weight_gradient(back.d_activated, intermediate, rows, places.attention_output, weight)?;
        self.linear_backward(back.d_activated, rows, weight, d_output, Into::Sum)?;

        // Attention part.
        let dropout = self.dropouts.and_then(|dropouts| dropouts.layers[layer].attention_output);
        let (sum, norm) = (places.attention_sum, places.attention_norm);
        self.residual_norm_backward(layer, AttentionNormWeight, dropout, d_output, sum, norm)?;
        let weight = Operand::new(slot(AttentionOutputWeight), hidden, hidden);
        self.weight_gradient(back.d_branch, hidden, rows, places.context, weight)?;
        self.linear_backward(back.d_branch, rows, weight, back.d_context, Into::Fresh)?;
        let d_query = back.d_query_key_value;
        let d_key_value = d_query.offset_bytes(if all { hidden } else { rows * hidden } * precision.bytes());
        kernels::attention_backward(
            device,
            precision,
            &self.attention(layer),
            places.context,
            back.d_context,
            places.log_sums,
            d_query,
            d_key_value,
        )?;
        if all {
            self.bias_gradient(d_query, 3 * hidden, rows, 3 * hidden, slot(QueryBias))?;
            let weight = Operand::new(slot(QueryWeight), 3 * hidden, hidden);
            self.weight_gradient(d_query, 3 * hidden, rows, input, weight)?;
            return self.linear_backward(d_query, rows, weight, d_output, Into::Sum);
        }
        self.bias_gradient(d_query, hidden, rows, hidden, slot(QueryBias))?;
        self.bias_gradient(d_key_value, 2 * hidden, batch.tokens, 2 * hidden, slot(KeyBias))?;
        let weight = Operand::new(slot(QueryWeight), hidden, hidden);
        self.weight_gradient(d_query, hidden, rows, places.first_tokens, weight)?;
        self.linear_backward(d_query, rows, weight, d_output, Into::Sum)?;
        let weight = Operand::new(slot(KeyWeight), 2 * hidden, hidden);
        self.weight_gradient(d_key_value, 2 * hidden, batch.tokens, input, weight)?;
        // The gradient in the first tokens joins that in all of them.
        self.linear_backward(d_key_value, batch.tokens, weight, other, Into::Fresh)?;
        kernels::scatter_add_rows(device, precision, d_output, batch.starts, rows, hidden, other)
    }

    fn backward_embeddings(&self, d_hidden: Ptr) -> Result<(), Error> {
        let (config, batch, embeddings) = (self.config, &self.pass.batch, self.pass.embeddings);
        let (device, back) = (self.device, self.pass.backward);
        let (tokens, width, hidden) = (batch.tokens, config.embedding_size, config.hidden_size);
        let mut d_output = d_hidden;
        if config.projects_embeddings() {
            self.bias_gradient(d_hidden, hidden, tokens, hidden, Slot::EmbeddingProjectionBias)?;
            let weight = Operand::new(Slot::EmbeddingProjectionWeight, hidden, width);
            self.weight_gradient(d_hidden, hidden, tokens, embeddings.output, weight)?;
            d_output = back.d_embeddings;
            self.linear_backward(d_hidden, tokens, weight, d_output, Into::Fresh)?;
        }
        kernels::embed_norm_backward(
            device,
            self.precision,
            d_output,
            embeddings.sum,
            embeddings.norm.mean,
            embeddings.norm.rstd,
            self.weights.master(Slot::EmbeddingNormWeight),
            self.dropouts.and_then(|dropouts| dropouts.embeddings),
            tokens,
            width,
            back.d_embedding_sum,
            back.partials,
        )?;
        self.reduce(kernels::norm_partials(tokens), 2 * width, Slot::EmbeddingNormWeight)?;
        let Some(lookups) = batch.lookups else { return Ok(()) };
        self.table_gradient(lookups.word, Slot::WordEmbeddings)?;
        self.table_gradient(lookups.position, Slot::PositionEmbeddings)?;
        lookups.types.map_or(Ok(()), |types| self.table_gradient(types, Slot::TypeEmbeddings))
    }

    fn table_gradient(&self, sorted: Sorted, table: Slot) -> Result<(), Error> {
        let Sorted { order, segments, rows, count } = sorted;
        let (tokens, width) = (self.pass.batch.tokens, self.config.embedding_size);
        let gradient = self.weights.gradient(table);
        let d_sum = self.pass.backward.d_embedding_sum;
        kernels::lookup_gradient(self.device, d_sum, order, segments, rows, tokens, count, width, gradient)
    }

    /// Replaces `d_output` by the gradient in the residual, writes that in the branch, and adds to the gradients of the
    /// norm and of the branch's bias, which stand side by side.
    fn residual_norm_backward(
        &self,
        layer: usize,
        norm_weight: LayerSlot,
        dropout: Option<DropoutSite>,
        d_output: Ptr,
        sum: Ptr,
        norm: Norm,
    ) -> Result<(), Error> {
        let (rows, hidden, back) = (self.rows(layer), self.config.hidden_size, self.pass.backward);
        let norm_weight = Slot::Layer(layer, norm_weight);
        kernels::residual_norm_backward(
            self.device,
            self.precision,
            d_output,
            sum,
            norm.mean,
            norm.rstd,
            self.weights.master(norm_weight),
            dropout,
            self.row_tokens(layer),
            rows,
            hidden,
            d_output,
            back.d_branch,
            back.partials,
        )?;
        self.reduce(kernels::norm_partials(rows), 3 * hidden, norm_weight)
    }

    /// Adds the sum of `d [rows, width]`'s rows to the gradient of a bias, and of those behind it.
    fn bias_gradient(&self, d: Ptr, stride: usize, rows: usize, width: usize, bias: Slot) -> Result<(), Error> {
        let partials = self.pass.backward.partials;
        kernels::column_sum(self.device, self.precision, d, stride, rows, width, partials)?;
        self.reduce(kernels::column_partials(rows), width, bias)
    }

    fn reduce(&self, count: usize, width: usize, first: Slot) -> Result<(), Error> {
        let partials = self.pass.backward.partials;
        kernels::reduce_partials(self.device, partials, count, width, self.weights.gradient(first))
    }

    /// Adds `d [rows, outer]^T x [rows, inner]` to a weight's gradient.
    fn weight_gradient(&self, d: Ptr, stride: usize, rows: usize, x: Ptr, weight: Operand) -> Result<(), Error> {
        self.product(Matmul {
            m: weight.outer,
            n: weight.inner,
            k: rows,
            a: d,
            a_transposed: true,
            lda: stride,
            b: x,
            b_transposed: false,
            ldb: weight.inner,
            c: self.weights.gradient(weight.slot),
            ldc: weight.inner,
            accumulate: true,
            bias: None,
            input: self.number(),
            output: Number::F32,
            compute: self.compute(),
        })
    }

    /// `d_x [rows, inner] (+)= d [rows, outer] weight`
    fn linear_backward(&self, d: Ptr, rows: usize, weight: Operand, d_x: Ptr, into: Into) -> Result<(), Error> {
        self.product(Matmul {
            m: rows,
            n: weight.inner,
            k: weight.outer,
            a: d,
            a_transposed: false,
            lda: weight.outer,
            b: self.weights.operand(weight.slot),
            b_transposed: false,
            ldb: weight.inner,
            c: d_x,
            ldc: weight.inner,
            accumulate: into == Into::Sum,
            bias: None,
            input: self.number(),
            output: self.number(),
            compute: self.compute(),
        })
    }
}

/// What stands in the destination before a product.
#[derive(Clone, Copy, PartialEq)]
enum Into {
    /// Is replaced.
    Fresh,
    /// Is added to.
    Sum,
}
