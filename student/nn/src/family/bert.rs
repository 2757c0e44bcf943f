//! BERT (Devlin et al., 2018), and the encoder that similar families share.
//!
//! Agrees with `modeling_bert.py` of `transformers`.

use serde_json::{Value, json};

use crate::config::Definition;
use crate::hf::fields::{Fields, number};
use crate::op::{Attention, Embed, Lookup, NormSlots, ResidualNorm, Site, Table};
use crate::program::Program;
use crate::slot::{LayerSlot, Slot};
use crate::value::{Rows, Tap, ValueId};
use crate::{Activation, Blocks, EncoderConfig, Error, Family, Head};

use LayerSlot::*;

#[rustfmt::skip]
pub(super) const DEFINITION: Definition = Definition {
    title: "BERT",
    model_type: "bert",
    computes_as: None,
    class: "Bert",
    prefix: "bert.",
    embeddings: &EMBEDDINGS,
    layers: "encoder.layer.",
    layer: &LAYER,
    shape,
    heads: &[
        (Slot::HeadDenseWeight,  "bert.pooler.dense.weight"),
        (Slot::HeadDenseBias,    "bert.pooler.dense.bias"),
        (Slot::HeadOutputWeight, "classifier.weight"),
        (Slot::HeadOutputBias,   "classifier.bias"),
        (Slot::LmDenseWeight,    "cls.predictions.transform.dense.weight"),
        (Slot::LmDenseBias,      "cls.predictions.transform.dense.bias"),
        (Slot::LmNormWeight,     "cls.predictions.transform.LayerNorm.weight"),
        (Slot::LmNormBias,       "cls.predictions.transform.LayerNorm.bias"),
        (Slot::LmOutputBias,     "cls.predictions.bias"),
    ],
    copies: &[
        (Slot::WordEmbeddings, "cls.predictions.decoder.weight"),
        (Slot::LmOutputBias,   "cls.predictions.decoder.bias"),
    ],
    token_types: true,
    projects_embeddings: false,
    position_offset: |_| 0,
    read,
    write,
    student,
    program: |config| {
        let mut program = Program::default();
        let last = encoder(&mut program, config, config.hidden_dropout);
        match config.head {
            Head::Classification => {
                let classifier = Classifier { input_dropout: 0.0, activation: Activation::Tanh, pools: true };
                classifier.push(&mut program, config, last);
            }
            Head::MaskedLm => masked_lm(&mut program, config, last, config.activation),
        }
        program
    },
};

#[rustfmt::skip]
pub(super) const EMBEDDINGS: [(Slot, &str); 7] = [
    (Slot::WordEmbeddings,            "embeddings.word_embeddings.weight"),
    (Slot::PositionEmbeddings,        "embeddings.position_embeddings.weight"),
    (Slot::TypeEmbeddings,            "embeddings.token_type_embeddings.weight"),
    (Slot::EmbeddingNormWeight,       "embeddings.LayerNorm.weight"),
    (Slot::EmbeddingNormBias,         "embeddings.LayerNorm.bias"),
    (Slot::EmbeddingProjectionWeight, "embeddings_project.weight"),
    (Slot::EmbeddingProjectionBias,   "embeddings_project.bias"),
];

/// The shapes of the parameters of BERT and similar families.
pub(super) fn shape(config: &EncoderConfig, slot: Slot) -> Option<Vec<usize>> {
    let (e, h, i) = (config.embedding_size, config.hidden_size, config.intermediate_size);
    Some(match slot {
        Slot::WordEmbeddings => vec![config.vocab_size, e],
        Slot::PositionEmbeddings => vec![config.max_positions, e],
        Slot::TypeEmbeddings if config.type_vocab_size == 0 => return None,
        Slot::TypeEmbeddings => vec![config.type_vocab_size, e],
        Slot::EmbeddingNormWeight | Slot::EmbeddingNormBias => vec![e],
        Slot::EmbeddingProjectionWeight | Slot::EmbeddingProjectionBias if !config.projects_embeddings() => {
            return None;
        }
        Slot::EmbeddingProjectionWeight => vec![h, e],
        Slot::Layer(_, QueryWeight | KeyWeight | ValueWeight | AttentionOutputWeight) => vec![h, h],
        Slot::Layer(_, IntermediateWeight) => vec![i, h],
        Slot::Layer(_, IntermediateBias) => vec![i],
        Slot::Layer(_, OutputWeight) => vec![h, i],
        Slot::HeadDenseWeight | Slot::LmDenseWeight => vec![h, h],
        Slot::HeadOutputWeight => vec![config.num_labels, h],
        Slot::HeadOutputBias => vec![config.num_labels],
        Slot::LmOutputBias => vec![config.vocab_size],
        _ => vec![h],
    })
}

/// The parameters of a layer of BERT and similar families.
#[rustfmt::skip]
pub(super) const LAYER: [(LayerSlot, &str); 16] = [
    (QueryWeight,           "attention.self.query.weight"),
    (KeyWeight,             "attention.self.key.weight"),
    (ValueWeight,           "attention.self.value.weight"),
    (QueryBias,             "attention.self.query.bias"),
    (KeyBias,               "attention.self.key.bias"),
    (ValueBias,             "attention.self.value.bias"),
    (AttentionOutputWeight, "attention.output.dense.weight"),
    (AttentionOutputBias,   "attention.output.dense.bias"),
    (AttentionNormWeight,   "attention.output.LayerNorm.weight"),
    (AttentionNormBias,     "attention.output.LayerNorm.bias"),
    (IntermediateWeight,    "intermediate.dense.weight"),
    (IntermediateBias,      "intermediate.dense.bias"),
    (OutputWeight,          "output.dense.weight"),
    (OutputBias,            "output.dense.bias"),
    (OutputNormWeight,      "output.LayerNorm.weight"),
    (OutputNormBias,        "output.LayerNorm.bias"),
];

/// The classification head of RoBERTa and ELECTRA.
#[rustfmt::skip]
pub(super) const DENSE_CLASSIFIER: [(Slot, &str); 4] = [
    (Slot::HeadDenseWeight,  "classifier.dense.weight"),
    (Slot::HeadDenseBias,    "classifier.dense.bias"),
    (Slot::HeadOutputWeight, "classifier.out_proj.weight"),
    (Slot::HeadOutputBias,   "classifier.out_proj.bias"),
];

/// Reads the fields that BERT and similar families have in `config.json`.
pub(super) fn read(fields: &Fields<'_>, family: Family) -> Result<EncoderConfig, Error> {
    let hidden_size = fields.size("hidden_size")?;
    let hidden_dropout = fields.rate("hidden_dropout_prob", 0.1)?;
    Ok(EncoderConfig {
        family,
        head: Head::Classification,
        vocab_size: fields.size("vocab_size")?,
        embedding_size: hidden_size,
        hidden_size,
        num_layers: fields.size("num_hidden_layers")?,
        num_heads: fields.size("num_attention_heads")?,
        intermediate_size: fields.size("intermediate_size")?,
        max_positions: fields.size("max_position_embeddings")?,
        pad_token_id: fields.size_or("pad_token_id", 0)?,
        type_vocab_size: fields.size_or("type_vocab_size", 2)?,
        layer_norm_epsilon: fields.rate("layer_norm_eps", 1e-12)?,
        activation: fields.activation("hidden_act", Activation::Gelu)?,
        hidden_dropout,
        attention_dropout: fields.rate("attention_probs_dropout_prob", 0.1)?,
        classifier_dropout: fields.rate("classifier_dropout", hidden_dropout)?,
        num_labels: 0,
        blocks: Blocks::default(),
    })
}

/// A student as wide as its teacher, with half as many layers.
pub(super) fn student(teacher: &EncoderConfig, family: Family) -> EncoderConfig {
    EncoderConfig {
        family,
        embedding_size: teacher.hidden_size,
        num_layers: teacher.num_layers.div_ceil(2),
        // Heads as wide as the teacher's, which may work inside a bottleneck.
        num_heads: (teacher.hidden_size / teacher.head_size()).max(1),
        // transformers looks a type up whatever the family of the teacher.
        type_vocab_size: teacher.type_vocab_size.max(1),
        max_positions: teacher.max_length(),
        layer_norm_epsilon: 1e-12,
        hidden_dropout: 0.0,
        attention_dropout: 0.0,
        classifier_dropout: 0.0,
        blocks: Blocks::default(),
        ..teacher.clone()
    }
}

/// Writes the fields that [`read`] reads.
pub(super) fn write(config: &EncoderConfig) -> Vec<(&'static str, Value)> {
    vec![
        ("attention_probs_dropout_prob", number(config.attention_dropout)),
        ("classifier_dropout", number(config.classifier_dropout)),
        ("hidden_act", json!(config.activation.name())),
        ("hidden_dropout_prob", number(config.hidden_dropout)),
        ("hidden_size", json!(config.hidden_size)),
        ("intermediate_size", json!(config.intermediate_size)),
        ("layer_norm_eps", number(config.layer_norm_epsilon)),
        ("num_attention_heads", json!(config.num_heads)),
        ("num_hidden_layers", json!(config.num_layers)),
        ("type_vocab_size", json!(config.type_vocab_size)),
    ]
}

// Numbers of the places where elements are dropped: a layer has four, the first three in use, and what stands outside the
// layers begins here. A family that needs more takes numbers from `1 << 33` on.
pub(super) const OUTSIDE: u64 = 1 << 32;

/// Embeddings and layers; returns what the head reads. `attention_output_dropout` is the rate behind the attention's
/// projection.
pub(super) fn encoder(program: &mut Program, config: &EncoderConfig, attention_output_dropout: f32) -> ValueId {
    let norm = |weight, bias| NormSlots { weight, bias, epsilon: Some(config.layer_norm_epsilon) };
    let mut tables = vec![
        Table { slot: Slot::WordEmbeddings, lookup: config.words() },
        Table { slot: Slot::PositionEmbeddings, lookup: Lookup::Position(config.positions()) },
    ];
    if config.type_vocab_size > 0 {
        tables.push(Table { slot: Slot::TypeEmbeddings, lookup: Lookup::Type });
    }
    let embed = Embed {
        tables,
        norm: Some(norm(Slot::EmbeddingNormWeight, Slot::EmbeddingNormBias)),
        site: Site::new(OUTSIDE, config.hidden_dropout),
    };
    let mut x = program.embed(embed, config.embedding_size);
    if config.projects_embeddings() {
        let bias = Some(Slot::EmbeddingProjectionBias);
        x = program.linear(x, Slot::EmbeddingProjectionWeight, bias, config.hidden_size);
    }
    program.tap(Tap::Hidden(0), x);
    for layer in 0..config.num_layers {
        let slot = |part| Slot::Layer(layer, part);
        let site = |part, rate| Site::new(layer as u64 * 4 + part, rate);
        let hidden = config.hidden_size;
        // Keys and values first: the gradient in the layer's input is then the sum of residual, queries, keys and values.
        let key = program.linear(x, slot(KeyWeight), Some(slot(KeyBias)), hidden);
        let value = program.linear(x, slot(ValueWeight), Some(slot(ValueBias)), hidden);
        let query = program.linear(x, slot(QueryWeight), Some(slot(QueryBias)), hidden);
        program.tap(Tap::Key(layer), key);
        program.tap(Tap::Value(layer), value);
        program.tap(Tap::Query(layer), query);
        let (heads, max_length) = (config.num_heads, config.max_length());
        let attention = Attention { heads, max_length, site: site(0, config.attention_dropout) };
        let context = program.attention([query, key, value], attention);
        let branch = program.linear(context, slot(AttentionOutputWeight), None, hidden);
        let end = ResidualNorm {
            bias: slot(AttentionOutputBias),
            norm: norm(slot(AttentionNormWeight), slot(AttentionNormBias)),
            site: site(1, attention_output_dropout),
        };
        let attended = program.residual_norm(branch, x, end);
        let inner = program.linear(attended, slot(IntermediateWeight), None, config.intermediate_size);
        let inner = program.activate(inner, slot(IntermediateBias), config.activation);
        let branch = program.linear(inner, slot(OutputWeight), None, hidden);
        let end = ResidualNorm {
            bias: slot(OutputBias),
            norm: norm(slot(OutputNormWeight), slot(OutputNormBias)),
            site: site(2, config.hidden_dropout),
        };
        x = program.residual_norm(branch, attended, end);
        program.tap(Tap::Hidden(layer + 1), x);
    }
    x
}

/// The classification head: two linear maps on a text's first token.
pub(super) struct Classifier {
    /// Dropout rate on its input.
    pub(super) input_dropout: f32,
    /// Activation function between the two linear maps.
    pub(super) activation: Activation,
    /// Whether the first map is a pooler, which `transformers` has even without this head.
    pub(super) pools: bool,
}

impl Classifier {
    pub(super) fn push(&self, program: &mut Program, config: &EncoderConfig, last: ValueId) {
        let first = program.select(last, Rows::First);
        let first = program.dropout(first, Site::new(OUTSIDE + 1, self.input_dropout));
        let dense = program.linear(first, Slot::HeadDenseWeight, None, config.hidden_size);
        let dense = program.activate(dense, Slot::HeadDenseBias, self.activation);
        if self.pools {
            program.tap(Tap::Pooled, dense);
        }
        let dense = program.dropout(dense, Site::new(OUTSIDE + 2, config.classifier_dropout));
        let logits = program.linear(dense, Slot::HeadOutputWeight, Some(Slot::HeadOutputBias), config.num_labels);
        program.tap(Tap::Logits, logits);
    }
}

/// The masked-language-model head, for the masked tokens. Its output matrix is tied to the word embeddings.
pub(super) fn masked_lm(program: &mut Program, config: &EncoderConfig, last: ValueId, activation: Activation) {
    let normed = masked_lm_transform(program, config, last, activation);
    let logits = program.linear(normed, Slot::WordEmbeddings, Some(Slot::LmOutputBias), config.vocab_size);
    program.tap(Tap::Logits, logits);
}

/// The part of the head before the output matrix.
pub(super) fn masked_lm_transform(
    program: &mut Program,
    config: &EncoderConfig,
    last: ValueId,
    activation: Activation,
) -> ValueId {
    let chosen = program.select(last, Rows::Positions);
    let dense = program.linear(chosen, Slot::LmDenseWeight, None, config.hidden_size);
    let dense = program.activate(dense, Slot::LmDenseBias, activation);
    let epsilon = Some(config.layer_norm_epsilon);
    program.norm(dense, NormSlots { weight: Slot::LmNormWeight, bias: Slot::LmNormBias, epsilon })
}
