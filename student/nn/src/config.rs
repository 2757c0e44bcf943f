//! What an encoder is: its family, sizes and rates, with every default resolved; and what a family is.

use serde_json::Value;

use crate::hf::fields::{Fields, bad, one_of};
use crate::op::Positions;
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
    /// Width of the word embeddings.
    pub embedding_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_layers: usize,
    /// Attention heads; divides the width inside a layer.
    pub num_heads: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Rows of the position embedding table.
    pub max_positions: usize,
    /// The padding token's id; in RoBERTa the first position is one more.
    pub pad_token_id: usize,
    /// Rows of the token type table; 0 where there is none.
    pub type_vocab_size: usize,
    /// Added to the variance in layer norms; a family may give some of them another.
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
    /// How the model is built.
    pub blocks: Blocks,
}

/// How a model is built, where there is a choice; the default is BERT's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Whether a token's embedding is made of those of three neighbours.
    pub trigrams: bool,
    /// What stands between the hidden states and the inside of a layer, where that is narrower.
    pub bottleneck: Option<Bottleneck>,
    /// Feed-forward parts of a layer, one behind another.
    pub feed_forwards: usize,
    /// What norms do, the masked-language-model head's aside, which is a layer norm.
    pub norm: NormKind,
    /// Whether a linear map with tanh stands between a text's first token and the classifier; families whose head is
    /// always the same have it here too.
    pub pooler: bool,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { trigrams: false, bottleneck: None, feed_forwards: 1, norm: NormKind::LayerNorm, pooler: true }
    }
}

/// Linear maps into and out of the narrower inside of a layer (Sun et al., 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// Width of the inside.
    pub size: usize,
    /// What queries, keys and values are made of.
    pub attention: AttentionInput,
}

/// What a layer with a bottleneck makes queries, keys and values of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionInput {
    /// All of the narrowed hidden states that the residual connection reads too.
    Narrow,
    /// Queries and keys of a narrowing of their own, values of the hidden states.
    SharedKeyQuery,
    /// All of the hidden states, which are then as wide as the inside.
    Hidden,
}

/// What norms do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Layer norm (Ba et al., 2016).
    LayerNorm,
    /// Scale and shift alone (Sun et al., 2020).
    NoNorm,
}

/// A model family, by all that is particular to it.
#[derive(Clone, Copy)]
pub struct Family(pub(crate) &'static Definition);

/// All that is particular to a family.
#[derive(Clone, Copy)]
pub(crate) struct Definition {
    /// The name in prose.
    pub(crate) title: &'static str,
    /// What `config.json` calls it in `model_type`.
    pub(crate) model_type: &'static str,
    /// The family that computes the same under another name.
    pub(crate) computes_as: Option<&'static Definition>,
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
    pub(crate) read: fn(&Fields<'_>, Family) -> Result<EncoderConfig, Error>,
    /// The fields of `config.json` that differ between families.
    pub(crate) write: fn(&EncoderConfig) -> Vec<(&'static str, Value)>,
    /// What a student of the family is in the likeness of this teacher, unless other sizes are asked for; dropout aside.
    pub(crate) student: fn(&EncoderConfig, Family) -> EncoderConfig,
    /// The forward pass, heads and taps included.
    pub(crate) program: fn(&EncoderConfig) -> Program,
}

impl EncoderConfig {
    /// Refuses sizes that no encoder can have, naming the field as `config.json` of the family spells it.
    pub fn validate(&self) -> Result<(), Error> {
        if !self.family.has_head(self.head) {
            let others: Vec<&str> =
                Family::ALL.into_iter().filter(|family| family.has_head(self.head)).map(Family::model_type).collect();
            let expected = format!("{} for a masked-language model", one_of(&others));
            return Err(bad("model_type", self.family.model_type(), &expected));
        }
        let labels = if self.head == Head::Classification { self.num_labels } else { 1 };
        let positive = [
            ("vocab_size", self.vocab_size),
            ("embedding_size", self.embedding_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_layers),
            ("num_attention_heads", self.num_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_positions),
            ("num_labels", labels),
            ("num_feedforward_networks", self.blocks.feed_forwards),
            ("intra_bottleneck_size", self.inner_size()),
        ];
        for (field, value) in positive {
            // A bound keeps sizes from overflowing later; no model comes near it.
            if value == 0 || value > 1 << 24 {
                return Err(bad(field, value, "a number from 1 to 16,777,216"));
            }
        }
        for (field, count) in
            [("num_hidden_layers", self.num_layers), ("num_feedforward_networks", self.blocks.feed_forwards)]
        {
            if count > 1000 {
                return Err(bad(field, count, "at most 1,000"));
            }
        }
        if self.head == Head::MaskedLm && self.embedding_size > self.hidden_size {
            let expected = format!("at most the hidden size {} in a masked-language model", self.hidden_size);
            return Err(bad("embedding_size", self.embedding_size, &expected));
        }
        if let Some(Bottleneck { size, attention: AttentionInput::Hidden }) = self.blocks.bottleneck
            && size != self.hidden_size
        {
            let expected = format!("true, since hidden_size {} is not intra_bottleneck_size {size}", self.hidden_size);
            return Err(bad("key_query_shared_bottleneck", false, &expected));
        }
        if self.family.has_token_types() && self.type_vocab_size == 0 {
            return Err(bad("type_vocab_size", 0, "at least 1"));
        }
        let tables =
            (self.vocab_size + self.max_positions + self.type_vocab_size) as u128 * self.embedding_size as u128;
        let (inner, parts) = (self.inner_size() as u128, self.blocks.feed_forwards as u128);
        let narrowing = if self.blocks.bottleneck.is_some() { 3 * self.hidden_size as u128 } else { 0 };
        let layer = (4 * inner + 2 * parts * self.intermediate_size as u128 + narrowing) * inner;
        let parameters = tables + self.num_layers as u128 * layer + (self.num_labels * self.hidden_size) as u128;
        if parameters > 4_000_000_000 {
            return Err(bad("hidden_size", self.hidden_size, "sizes that make at most 4 billion parameters together"));
        }
        if !self.inner_size().is_multiple_of(self.num_heads) {
            let of = if self.blocks.bottleneck.is_some() { "size inside the bottleneck" } else { "hidden size" };
            let expected = format!("a divisor of the {of} {}", self.inner_size());
            return Err(bad("num_attention_heads", self.num_heads, &expected));
        }
        if self.position_offset() >= self.max_positions {
            return Err(bad("max_position_embeddings", self.max_positions, "more than pad_token_id + 1"));
        }
        for (field, rate) in [
            ("hidden_dropout_prob", self.hidden_dropout),
            ("attention_probs_dropout_prob", self.attention_dropout),
            ("classifier_dropout", self.classifier_dropout),
        ] {
            if !(0.0..1.0).contains(&rate) {
                return Err(bad(field, rate, "a rate from 0 up to, not including, 1"));
            }
        }
        Ok(())
    }

    /// Width inside a layer.
    pub fn inner_size(&self) -> usize {
        self.blocks.bottleneck.map_or(self.hidden_size, |bottleneck| bottleneck.size)
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.inner_size() / self.num_heads
    }

    /// The row of the position table that a text's first token takes.
    pub fn position_offset(&self) -> usize {
        (self.family.0.position_offset)(self)
    }

    /// How the model counts the tokens of a text.
    pub(crate) fn positions(&self) -> Positions {
        let offset = self.position_offset();
        Positions { offset, uncounted: (offset > 0).then_some(self.pad_token_id as u32) }
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
