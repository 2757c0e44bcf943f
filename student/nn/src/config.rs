//! The configuration of an encoder, with every default resolved; and the definition of a model family.

use serde_json::Value;

use crate::hf::fields::{Fields, bad, one_of};
use crate::op::{Lookup, Positions};
use crate::program::Program;
use crate::slot::{LayerSlot, Slot};
use crate::{Activation, Error};

/// The head on top of the encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// Sequence classification: logits over the classes, from the first token of each text.
    #[default]
    Classification,
    /// Masked-language model: logits over the vocabulary for each chosen token. The output matrix is tied to the word
    /// embeddings.
    MaskedLm,
}

/// The configuration of an encoder with its head.
///
/// Made from Hugging Face's `config.json` by [`hf::read_config`](crate::hf::read_config).
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Model family; determines the parameter names, the form of the head and where dropout is applied.
    pub family: Family,
    /// The head on top of the encoder.
    pub head: Head,
    /// Rows of the word embedding table.
    pub vocab_size: usize,
    /// Width of the word embeddings.
    pub embedding_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_layers: usize,
    /// Number of attention heads; divides the width inside a layer.
    pub num_heads: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Rows of the position embedding table.
    pub max_positions: usize,
    /// Id of the padding token; in RoBERTa positions start at the next number.
    pub pad_token_id: usize,
    /// Rows of the token type embedding table; 0 if there is none.
    pub type_vocab_size: usize,
    /// Epsilon of layer norms, added to the variance; some families use another one for some norms.
    pub layer_norm_epsilon: f32,
    /// Activation function of the feed-forward layers.
    pub activation: Activation,
    /// Dropout rate after the embeddings and after each projection into the residual stream.
    pub hidden_dropout: f32,
    /// Dropout rate on the attention probabilities.
    pub attention_dropout: f32,
    /// Dropout rate in the classification head.
    pub classifier_dropout: f32,
    /// Number of classes; 0 in a masked-language model.
    pub num_labels: usize,
    /// Structure of the layers.
    pub blocks: Blocks,
}

/// Structure of the layers, where families differ; the default is BERT's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Whether the input embedding concatenates each token's word embedding with those of its two neighbours.
    pub trigrams: bool,
    /// The bottleneck, if layers are narrower inside than the hidden states.
    pub bottleneck: Option<Bottleneck>,
    /// Number of feed-forward blocks per layer.
    pub feed_forwards: usize,
    /// Kind of norm; the masked-language-model head always has a layer norm.
    pub norm: NormKind,
    /// Whether there is a linear layer between the first token and the classifier. Only MobileBERT can be without; for
    /// other families this is true.
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
    /// Width inside the layer.
    pub size: usize,
    /// The inputs of queries, keys and values.
    pub attention: AttentionInput,
}

/// The inputs of queries, keys and values in a layer with a bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionInput {
    /// All three read the narrowed hidden states, like the residual connection.
    Narrow,
    /// Queries and keys share a narrowing of their own; values read the hidden states.
    SharedKeyQuery,
    /// All three read the hidden states.
    Hidden,
}

/// Kind of norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Layer norm (Ba et al., 2016).
    LayerNorm,
    /// Scale and shift without normalisation (Sun et al., 2020).
    NoNorm,
}

/// A model family, such as BERT or DistilBERT.
#[derive(Clone, Copy)]
pub struct Family(pub(crate) &'static Definition);

/// Everything that is specific to a family.
#[derive(Clone, Copy)]
pub(crate) struct Definition {
    /// The name for messages.
    pub(crate) title: &'static str,
    /// What `config.json` calls it in `model_type`.
    pub(crate) model_type: &'static str,
    /// The family that computes the same under another name.
    pub(crate) computes_as: Option<&'static Definition>,
    /// What `transformers` begins the names of its classes with.
    pub(crate) class: &'static str,
    /// Prefix of the encoder's parameters in a checkpoint that has a head.
    pub(crate) prefix: &'static str,
    /// Path from [`prefix`](Self::prefix) to the number of a layer.
    pub(crate) layers: &'static str,
    /// Names of the embeddings' parameters, after [`prefix`](Self::prefix). All tables are in the order of the flat
    /// buffer.
    pub(crate) embeddings: &'static [(Slot, &'static str)],
    /// Names of a layer's parameters, after its number. Query, key and value are adjacent, so that they can be one
    /// product.
    pub(crate) layer: &'static [(LayerSlot, &'static str)],
    /// Full names of the heads' parameters; the family has the heads listed here.
    pub(crate) heads: &'static [(Slot, &'static str)],
    /// A parameter's shape; `None` if a model of this configuration does not have it.
    pub(crate) shape: fn(&EncoderConfig, Slot) -> Option<Vec<usize>>,
    /// Full names under which checkpoints store a copy of a parameter that is tied in the masked-language-model head.
    pub(crate) copies: &'static [(Slot, &'static str)],
    /// Whether the model has token type embeddings.
    pub(crate) token_types: bool,
    /// Whether its embeddings may have another width than the hidden states.
    pub(crate) projects_embeddings: bool,
    /// The row of the position embedding table for the first token of a text.
    pub(crate) position_offset: fn(&EncoderConfig) -> usize,
    /// Reads the fields of `config.json` that differ between families into a configuration.
    pub(crate) read: fn(&Fields<'_>, Family) -> Result<EncoderConfig, Error>,
    /// Writes the fields of `config.json` that differ between families.
    pub(crate) write: fn(&EncoderConfig) -> Vec<(&'static str, Value)>,
    /// The default configuration of a student of this family for a teacher; dropout is set by the caller.
    pub(crate) student: fn(&EncoderConfig, Family) -> EncoderConfig,
    /// The forward pass, heads and taps included.
    pub(crate) program: fn(&EncoderConfig) -> Program,
}

impl EncoderConfig {
    /// The configuration with this dropout rate everywhere.
    #[must_use]
    pub fn with_dropout(self, rate: f32) -> Self {
        Self { hidden_dropout: rate, attention_dropout: rate, classifier_dropout: rate, ..self }
    }

    /// Checks that the sizes are consistent. Errors name the field as it is called in the family's `config.json`.
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

    /// The row of the position embedding table for the first token of a text.
    pub fn position_offset(&self) -> usize {
        (self.family.0.position_offset)(self)
    }

    /// How tokens look up their embeddings.
    pub(crate) fn words(&self) -> Lookup {
        Lookup::Word { padding: self.pad_token_id as u32 }
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

    /// Whether there is a linear map between the embeddings and the first layer.
    pub fn projects_embeddings(&self) -> bool {
        self.embedding_size != self.hidden_size
    }

    /// The forward pass.
    pub(crate) fn program(&self) -> Program {
        (self.family.0.program)(self)
    }

    /// Number of logits per output: classes, or the vocabulary size.
    pub fn outputs(&self) -> usize {
        match self.head {
            Head::Classification => self.num_labels,
            Head::MaskedLm => self.vocab_size,
        }
    }
}
