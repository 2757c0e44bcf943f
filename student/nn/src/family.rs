//! The model families: the registry, and one file a family with its configuration, its names and its program.
//!
//! A family is named nowhere else but where a person names one.

mod bert;
mod distilbert;
mod electra;
mod mobilebert;
mod roberta;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::slot::{LayerSlot, Slot};
use crate::{EncoderConfig, Family, Head};

/// The registry.
impl Family {
    /// Devlin et al., 2018.
    pub const BERT: Self = Self(&bert::DEFINITION);
    /// Liu et al., 2019: BERT whose positions start after the padding index.
    pub const ROBERTA: Self = Self(&roberta::DEFINITION);
    /// Conneau et al., 2019: RoBERTa with another tokenizer.
    pub const XLM_ROBERTA: Self = Self(&roberta::XLM_ROBERTA);
    /// Martin et al., 2019: RoBERTa with another tokenizer.
    pub const CAMEMBERT: Self = Self(&roberta::CAMEMBERT);
    /// Clark et al., 2020: BERT whose embeddings may be narrower than the hidden states.
    pub const ELECTRA: Self = Self(&electra::DEFINITION);
    /// Sanh et al., 2019: BERT without token types and pooler.
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
    /// The family that `config.json` calls so.
    pub fn named(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.0.model_type == model_type)
    }

    /// Its name in `config.json`.
    pub fn model_type(self) -> &'static str {
        self.0.model_type
    }

    /// The family that computes the same from the same numbers: RoBERTa of XLM-RoBERTa, and itself of most.
    pub fn computes_as(self) -> Self {
        self.0.computes_as.map_or(self, Self)
    }

    /// Its name in prose.
    pub fn title(self) -> &'static str {
        self.0.title
    }

    /// Whether its models read token types.
    pub fn has_token_types(self) -> bool {
        self.0.token_types
    }

    /// What a student of the family is in the likeness of this teacher, unless other sizes are asked for: the same head,
    /// vocabulary and maximum length, without dropout.
    pub fn student_of(self, teacher: &EncoderConfig) -> EncoderConfig {
        (self.0.student)(teacher, self)
    }

    /// Whether a layer of its models may have several feed-forward parts.
    pub fn stacks_feed_forwards(self) -> bool {
        self.0.layer.iter().any(|(part, _)| matches!(part, LayerSlot::FeedForward(..)))
    }

    /// Whether its models come with this head.
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
