//! What an encoder is: its family, sizes and rates, with every default resolved; and what a family is.

use serde_json::Value;

use crate::hf::fields::Fields;
use crate::program::Program;
use crate::slot::{LayerSlot, Slot};
use crate::{Activation, Error};

/// What stands behind the last layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// One row of logits a text, over its classes, from the first token.
    #[default]
    Classification,
    /// One row of logits a chosen token, over the vocabulary. The output matrix is the word embeddings.
    MaskedLm,
}

/// An encoder with its head.
///
/// Made from Hugging Face's `config.json` by [`hf::read_config`](crate::hf::read_config).
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Decides the parameter names, the classification head and where dropout stands.
    pub family: Family,
    /// What stands behind the last layer.
    pub head: Head,
    /// Rows of the word embedding table.
    pub vocab_size: usize,
    /// Width of the embeddings; differs from `hidden_size` in ELECTRA alone.
    pub embedding_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_heads: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Rows of the position embedding table.
    pub max_positions: usize,
    /// The padding token's id; in RoBERTa the first position is one more.
    pub pad_token_id: usize,
    /// Rows of the token type table; 0 where there is none.
    pub type_vocab_size: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_epsilon: f32,
    /// Of the feed-forward part.
    pub activation: Activation,
    /// Rate after the embeddings and after each projection into the residual stream.
    pub hidden_dropout: f32,
    /// Rate on the attention probabilities.
    pub attention_dropout: f32,
    /// Rate in the classification head.
    pub classifier_dropout: f32,
    /// Number of classes; 0 in a masked-language model.
    pub num_labels: usize,
}

/// A model family, by all that is particular to it.
#[derive(Clone, Copy)]
pub struct Family(pub(crate) &'static Definition);

/// All that is particular to a family.
#[derive(Clone, Copy)]
pub(crate) struct Definition {
    /// The name in prose.
    pub(crate) title: &'static str,
    /// What `config.json` may call it in `model_type`; the first is written.
    pub(crate) model_types: &'static [&'static str],
    /// What `transformers` begins the names of its classes with.
    pub(crate) class: &'static str,
    /// What the encoder's own parameters are prefixed with in a checkpoint that has a head.
    pub(crate) prefix: &'static str,
    /// What stands between [`prefix`](Self::prefix) and the number of a layer.
    pub(crate) layers: &'static str,
    /// The embeddings' parameters, behind [`prefix`](Self::prefix). These tables are in the order of the flat buffer.
    pub(crate) embeddings: &'static [(Slot, &'static str)],
    /// A layer's parameters, behind its number: query, key and value side by side, so that one product serves neighbours.
    pub(crate) layer: &'static [(LayerSlot, &'static str)],
    /// The heads' parameters, by their full names; the family has the heads that stand here.
    pub(crate) heads: &'static [(Slot, &'static str)],
    /// A parameter's shape; none where a model of this configuration does not have it.
    pub(crate) shape: fn(&EncoderConfig, Slot) -> Option<Vec<usize>>,
    /// Full names under which checkpoints repeat a parameter that the masked-language-model head shares.
    pub(crate) copies: &'static [(Slot, &'static str)],
    /// Whether a token's type is looked up.
    pub(crate) token_types: bool,
    /// The row of the position table that a text's first token takes.
    pub(crate) position_offset: fn(&EncoderConfig) -> usize,
    /// Reads the fields of `config.json` that differ between families into a configuration.
    pub(crate) read: fn(&Fields<'_>) -> Result<EncoderConfig, Error>,
    /// The fields of `config.json` that differ between families.
    pub(crate) write: fn(&EncoderConfig) -> Vec<(&'static str, Value)>,
    /// The forward pass, heads and taps included.
    pub(crate) program: fn(&EncoderConfig) -> Program,
}

impl EncoderConfig {
    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// The row of the position table that a text's first token takes.
    pub fn position_offset(&self) -> usize {
        (self.family.0.position_offset)(self)
    }

    /// The longest text the model takes, in tokens.
    pub fn max_length(&self) -> usize {
        self.max_positions - self.position_offset()
    }

    /// Whether a linear map stands between embeddings and first layer.
    pub fn projects_embeddings(&self) -> bool {
        self.embedding_size != self.hidden_size
    }

    /// The forward pass.
    pub(crate) fn program(&self) -> Program {
        (self.family.0.program)(self)
    }

    /// Width of a row of logits: classes, or the vocabulary.
    pub fn outputs(&self) -> usize {
        match self.head {
            Head::Classification => self.num_labels,
            Head::MaskedLm => self.vocab_size,
        }
    }
}
