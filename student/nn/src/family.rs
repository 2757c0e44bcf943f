//! The registry of model families; each has a file with its configuration, parameter names and program.
//!
//! No other code names a family, except where the user chooses one.

mod bert;
mod distilbert;
mod electra;
mod mobilebert;
mod roberta;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::slot::{LayerSlot, Slot};
use crate::{Activation, AttentionInput, Blocks, Bottleneck, EncoderConfig, Family, Head, NormKind};

/// The registry.
impl Family {
    /// Devlin et al., 2018.
    pub const BERT: Self = Self(&bert::DEFINITION);
    /// Liu et al., 2019: BERT with positions counted from the padding index plus one.
    pub const ROBERTA: Self = Self(&roberta::DEFINITION);
    /// Conneau et al., 2019: RoBERTa with another tokenizer.
    pub const XLM_ROBERTA: Self = Self(&roberta::XLM_ROBERTA);
    /// Martin et al., 2019: RoBERTa with another tokenizer.
    pub const CAMEMBERT: Self = Self(&roberta::CAMEMBERT);
    /// Clark et al., 2020: BERT whose embeddings may be narrower than the hidden states.
    pub const ELECTRA: Self = Self(&electra::DEFINITION);
    /// Sanh et al., 2019: BERT without token types and without a pooler.
    pub const DISTILBERT: Self = Self(&distilbert::DEFINITION);

    /// Sun et al., 2020: thin layers with a bottleneck.
    pub const MOBILEBERT: Self = Self(&mobilebert::DEFINITION);

    /// Every family.
    pub const ALL: [Self; 7] = [
        Self::BERT,
        Self::ROBERTA,
        Self::XLM_ROBERTA,
        Self::CAMEMBERT,
        Self::ELECTRA,
        Self::DISTILBERT,
        Self::MOBILEBERT,
    ];
}

impl Family {
    /// The family with this `model_type` in `config.json`.
    pub fn named(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.0.model_type == model_type)
    }

    /// Its `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        self.0.model_type
    }

    /// The family that computes the same from the same numbers: RoBERTa of XLM-RoBERTa, and itself of most.
    pub fn computes_as(self) -> Self {
        self.0.computes_as.map_or(self, Self)
    }

    /// Its name for messages.
    pub fn title(self) -> &'static str {
        self.0.title
    }

    /// Whether its models have token type embeddings.
    pub fn has_token_types(self) -> bool {
        self.0.token_types
    }

    /// The default configuration of a student of this family: its teacher's head, vocabulary and maximum length, and no
    /// dropout.
    pub fn student_of(self, teacher: &EncoderConfig) -> EncoderConfig {
        (self.0.student)(teacher, self)
    }

    /// A classifier of two layers with two heads, without dropout, for tests and for checks of a device: what they need
    /// otherwise they say themselves.
    pub fn small(self, hidden_size: usize) -> EncoderConfig {
        let bottleneck = Some(Bottleneck { size: hidden_size / 2, attention: AttentionInput::SharedKeyQuery });
        let thin = Blocks { trigrams: true, bottleneck, feed_forwards: 3, norm: NormKind::NoNorm, pooler: false };
        EncoderConfig {
            family: self,
            head: Head::Classification,
            vocab_size: 50,
            embedding_size: if self.projects_embeddings() { hidden_size / 2 + 4 } else { hidden_size },
            hidden_size,
            num_layers: 2,
            num_heads: 2,
            intermediate_size: 2 * hidden_size + 8,
            max_positions: 72,
            pad_token_id: 0,
            type_vocab_size: if self.has_token_types() { 2 } else { 0 },
            layer_norm_epsilon: 1e-12,
            activation: Activation::Gelu,
            hidden_dropout: 0.0,
            attention_dropout: 0.0,
            classifier_dropout: 0.0,
            num_labels: 5,
            blocks: if self == Self::MOBILEBERT { thin } else { Blocks::default() },
        }
    }

    /// Whether a layer can have several feed-forward blocks.
    pub fn stacks_feed_forwards(self) -> bool {
        self.0.layer.iter().any(|(part, _)| matches!(part, LayerSlot::FeedForward(..)))
    }

    /// Whether its embeddings may have another width than its hidden states, with a projection behind them.
    pub fn projects_embeddings(self) -> bool {
        self.0.projects_embeddings
    }

    /// Whether this head is supported.
    pub(crate) fn has_head(self, head: Head) -> bool {
        let slot = match head {
            Head::Classification => Slot::HeadOutputWeight,
            Head::MaskedLm => Slot::LmOutputBias,
        };
        self.0.heads.iter().any(|(other, _)| *other == slot)
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.model_type() == other.model_type()
    }
}

impl Eq for Family {}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.class)
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.model_type())
    }
}
