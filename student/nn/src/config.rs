//! What an encoder is: its family, sizes and rates, with every default resolved.

use crate::{Activation, Error};

/// The model families that one engine serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Devlin et al., 2018.
    Bert,
    /// Liu et al., 2019: BERT whose positions start after the padding index.
    Roberta,
    /// Clark et al., 2020: BERT whose embeddings may be narrower than the hidden states.
    Electra,
    /// Sanh et al., 2019: BERT without token types and pooler.
    DistilBert,
}

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

impl EncoderConfig {
    /// Refuses sizes that no encoder can have, naming the field as `config.json` of the family spells it.
    pub fn validate(&self) -> Result<(), Error> {
        if self.head == Head::MaskedLm && self.family == Family::Electra {
            // Its generator has a head of another form, and its discriminator none that predicts tokens.
            return Err(bad("model_type", "electra", "bert, roberta or distilbert for a masked-language model"));
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

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// The row of the position table that a text's first token takes.
    pub fn position_offset(&self) -> usize {
        if self.family == Family::Roberta { self.pad_token_id + 1 } else { 0 }
    }

    /// The longest text the model takes, in tokens.
    pub fn max_length(&self) -> usize {
        self.max_positions - self.position_offset()
    }

    /// Whether a linear map stands between embeddings and first layer.
    pub fn projects_embeddings(&self) -> bool {
        self.embedding_size != self.hidden_size
    }

    /// Width of a row of logits: classes, or the vocabulary.
    pub fn outputs(&self) -> usize {
        match self.head {
            Head::Classification => self.num_labels,
            Head::MaskedLm => self.vocab_size,
        }
    }

    /// Activation in the masked-language-model head.
    pub fn lm_activation(&self) -> Activation {
        // RoBERTa's is a constant of the code, whatever the file says.
        if self.family == Family::Roberta { Activation::Gelu } else { self.activation }
    }

    /// Activation between the two linear maps of the classification head.
    pub fn head_activation(&self) -> Activation {
        match self.family {
            Family::Bert | Family::Roberta => Activation::Tanh,
            Family::Electra => Activation::Gelu,
            Family::DistilBert => Activation::Relu,
        }
    }

    /// Rate on what enters the classification head.
    pub fn head_input_dropout(&self) -> f32 {
        match self.family {
            Family::Roberta | Family::Electra => self.classifier_dropout,
            Family::Bert | Family::DistilBert => 0.0,
        }
    }

    /// Rate after the attention's output projection; DistilBERT has none there.
    pub fn attention_output_dropout(&self) -> f32 {
        if self.family == Family::DistilBert { 0.0 } else { self.hidden_dropout }
    }
}

fn bad(field: &str, found: impl ToString, expected: &str) -> Error {
    Error::BadField { field: field.into(), found: found.to_string(), expected: expected.into() }
}
