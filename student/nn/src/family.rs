//! The model families: the registry, and one file a family with its configuration, its names and its program.
//!
//! A family is named nowhere else but where a person names one.

mod bert;
mod distilbert;
mod electra;
mod roberta;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::hf::fields::{bad, one_of};
use crate::slot::Slot;
use crate::{EncoderConfig, Error, Family, Head};

/// The registry.
impl Family {
    /// Devlin et al., 2018.
    pub const BERT: Self = Self(&bert::DEFINITION);
    /// Liu et al., 2019: BERT whose positions start after the padding index.
    pub const ROBERTA: Self = Self(&roberta::DEFINITION);
    /// Clark et al., 2020: BERT whose embeddings may be narrower than the hidden states.
    pub const ELECTRA: Self = Self(&electra::DEFINITION);
    /// Sanh et al., 2019: BERT without token types and pooler.
    pub const DISTILBERT: Self = Self(&distilbert::DEFINITION);

    /// Every family.
    pub const ALL: [Self; 4] = [Self::BERT, Self::ROBERTA, Self::ELECTRA, Self::DISTILBERT];
}

impl Family {
    /// The family that `config.json` calls so.
    pub fn named(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.0.model_types.contains(&model_type))
    }

    /// Its name in `config.json`.
    pub fn model_type(self) -> &'static str {
        self.0.model_types[0]
    }

    /// Its name in prose.
    pub fn title(self) -> &'static str {
        self.0.title
    }

    /// Whether its models read token types.
    pub fn has_token_types(self) -> bool {
        self.0.token_types
    }

    /// Whether its models come with this head.
    fn has_head(self, head: Head) -> bool {
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
        ];
        for (field, value) in positive {
            // A bound keeps sizes from overflowing later; no model comes near it.
            if value == 0 || value > 1 << 24 {
                return Err(bad(field, value, "a number from 1 to 16,777,216"));
            }
        }
        if self.num_layers > 1000 {
            return Err(bad("num_hidden_layers", self.num_layers, "at most 1,000"));
        }
        let tables =
            (self.vocab_size + self.max_positions + self.type_vocab_size) as u128 * self.embedding_size as u128;
        let layer = (4 * self.hidden_size as u128 + 2 * self.intermediate_size as u128) * self.hidden_size as u128;
        let parameters = tables + self.num_layers as u128 * layer + (self.num_labels * self.hidden_size) as u128;
        if parameters > 4_000_000_000 {
            return Err(bad("hidden_size", self.hidden_size, "sizes that make at most 4 billion parameters together"));
        }
        if !self.hidden_size.is_multiple_of(self.num_heads) {
            let expected = format!("a divisor of the hidden size {}", self.hidden_size);
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
}
