//! MobileBERT (Sun et al., 2020): many thin layers. A layer works inside a bottleneck, with several feed-forward
//! blocks, and norms that only scale and shift; word embeddings are narrow, and three neighbouring ones are
//! concatenated.
//!
//! Agrees with `modeling_mobilebert.py` of `transformers` on rows without padding. In a padded batch, the token after a
//! row's last one is padding there and nothing here, which differs unless the padding's embedding is zero, as it is at
//! initialisation.

use serde_json::json;

use super::bert;
use crate::config::Definition;
use crate::hf::fields::{Fields, bad};
use crate::op::{Attention, Decode, Embed, Lookup, NormSlots, ResidualNorm, Site, Table};
use crate::program::Program;
use crate::slot::{FeedForwardSlot, LayerSlot, Slot};
use crate::value::{Rows, Tap, ValueId};
use crate::{Activation, AttentionInput, Blocks, Bottleneck, EncoderConfig, Error, Family, Head, NormKind};

use LayerSlot::*;

#[rustfmt::skip]
pub(super) const DEFINITION: Definition = Definition {
    title: "MobileBERT",
    model_type: "mobilebert",
    class: "MobileBert",
    prefix: "mobilebert.",
    embeddings: &[
        (Slot::WordEmbeddings,            "embeddings.word_embeddings.weight"),
        (Slot::PositionEmbeddings,        "embeddings.position_embeddings.weight"),
        (Slot::TypeEmbeddings,            "embeddings.token_type_embeddings.weight"),
        (Slot::EmbeddingProjectionWeight, "embeddings.embedding_transformation.weight"),
        (Slot::EmbeddingProjectionBias,   "embeddings.embedding_transformation.bias"),
        (Slot::EmbeddingNormWeight,       "embeddings.LayerNorm.weight"),
        (Slot::EmbeddingNormBias,         "embeddings.LayerNorm.bias"),
    ],
    layer: &LAYER,
    shape,
    projects_embeddings: true,
    heads: &[
        (Slot::HeadDenseWeight,  "mobilebert.pooler.dense.weight"),
        (Slot::HeadDenseBias,    "mobilebert.pooler.dense.bias"),
        (Slot::HeadOutputWeight, "classifier.weight"),
        (Slot::HeadOutputBias,   "classifier.bias"),
        (Slot::LmDenseWeight,    "cls.predictions.transform.dense.weight"),
        (Slot::LmDenseBias,      "cls.predictions.transform.dense.bias"),
        (Slot::LmNormWeight,     "cls.predictions.transform.LayerNorm.weight"),
        (Slot::LmNormBias,       "cls.predictions.transform.LayerNorm.bias"),
        (Slot::LmRestWeight,     "cls.predictions.dense.weight"),
        (Slot::LmOutputBias,     "cls.predictions.bias"),
    ],
    read,
    write: |config| {
        let Blocks { trigrams, bottleneck, feed_forwards, norm, pooler } = config.blocks;
        let attention = bottleneck.map(|bottleneck| bottleneck.attention);
        [
            bert::write(config),
            vec![
                ("classifier_activation", json!(pooler)),
                ("embedding_size", json!(config.embedding_size)),
                ("intra_bottleneck_size", json!(config.inner_size())),
                ("key_query_shared_bottleneck", json!(attention == Some(AttentionInput::SharedKeyQuery))),
                ("normalization_type", json!(if norm == NormKind::NoNorm { "no_norm" } else { "layer_norm" })),
                ("num_feedforward_networks", json!(feed_forwards)),
                ("trigram_input", json!(trigrams)),
                ("use_bottleneck", json!(bottleneck.is_some())),
                ("use_bottleneck_attention", json!(attention == Some(AttentionInput::Narrow))),
            ],
        ]
        .concat()
    },
    student,
    program,
    ..bert::DEFINITION
};

#[rustfmt::skip]
const LAYER: [(LayerSlot, &str); 34] = [
    (QueryWeight,                   "attention.self.query.weight"),
    (KeyWeight,                     "attention.self.key.weight"),
    (ValueWeight,                   "attention.self.value.weight"),
    (QueryBias,                     "attention.self.query.bias"),
    (KeyBias,                       "attention.self.key.bias"),
    (ValueBias,                     "attention.self.value.bias"),
    (AttentionOutputWeight,         "attention.output.dense.weight"),
    (AttentionOutputBias,           "attention.output.dense.bias"),
    (AttentionNormWeight,           "attention.output.LayerNorm.weight"),
    (AttentionNormBias,             "attention.output.LayerNorm.bias"),
    (IntermediateWeight,            "intermediate.dense.weight"),
    (IntermediateBias,              "intermediate.dense.bias"),
    (OutputWeight,                  "output.dense.weight"),
    (OutputBias,                    "output.dense.bias"),
    (OutputNormWeight,              "output.LayerNorm.weight"),
    (OutputNormBias,                "output.LayerNorm.bias"),
    (OutputBottleneckWeight,        "output.bottleneck.dense.weight"),
    (OutputBottleneckBias,          "output.bottleneck.dense.bias"),
    (OutputBottleneckNormWeight,    "output.bottleneck.LayerNorm.weight"),
    (OutputBottleneckNormBias,      "output.bottleneck.LayerNorm.bias"),
    (InputBottleneckWeight,         "bottleneck.input.dense.weight"),
    (InputBottleneckBias,           "bottleneck.input.dense.bias"),
    (InputBottleneckNormWeight,     "bottleneck.input.LayerNorm.weight"),
    (InputBottleneckNormBias,       "bottleneck.input.LayerNorm.bias"),
    (AttentionBottleneckWeight,     "bottleneck.attention.dense.weight"),
    (AttentionBottleneckBias,       "bottleneck.attention.dense.bias"),
    (AttentionBottleneckNormWeight, "bottleneck.attention.LayerNorm.weight"),
    (AttentionBottleneckNormBias,   "bottleneck.attention.LayerNorm.bias"),
    (FeedForward(0, FeedForwardSlot::IntermediateWeight), "ffn.{}.intermediate.dense.weight"),
    (FeedForward(0, FeedForwardSlot::IntermediateBias),   "ffn.{}.intermediate.dense.bias"),
    (FeedForward(0, FeedForwardSlot::OutputWeight),       "ffn.{}.output.dense.weight"),
    (FeedForward(0, FeedForwardSlot::OutputBias),         "ffn.{}.output.dense.bias"),
    (FeedForward(0, FeedForwardSlot::OutputNormWeight),   "ffn.{}.output.LayerNorm.weight"),
    (FeedForward(0, FeedForwardSlot::OutputNormBias),     "ffn.{}.output.LayerNorm.bias"),
];

/// Whether word embeddings are mapped to the hidden states' width.
fn maps_words(config: &EncoderConfig) -> bool {
    config.blocks.trigrams || config.projects_embeddings()
}

fn shape(config: &EncoderConfig, slot: Slot) -> Option<Vec<usize>> {
    let (e, h, i) = (config.embedding_size, config.hidden_size, config.intermediate_size);
    let inner = config.inner_size();
    let Blocks { trigrams, bottleneck, pooler, .. } = config.blocks;
    let narrows = bottleneck.is_some();
    let narrows_attention = bottleneck.is_some_and(|b| b.attention == AttentionInput::SharedKeyQuery);
    // Values are made of the hidden states unless all of attention reads the narrowed ones.
    let of_values = if bottleneck.is_some_and(|b| b.attention == AttentionInput::Narrow) { inner } else { h };
    Some(match slot {
        Slot::PositionEmbeddings => vec![config.max_positions, h],
        Slot::TypeEmbeddings if config.type_vocab_size == 0 => return None,
        Slot::TypeEmbeddings => vec![config.type_vocab_size, h],
        Slot::EmbeddingProjectionWeight | Slot::EmbeddingProjectionBias if !maps_words(config) => return None,
        Slot::EmbeddingProjectionWeight => vec![h, if trigrams { 3 * e } else { e }],
        Slot::EmbeddingProjectionBias => vec![h],
        Slot::EmbeddingNormWeight | Slot::EmbeddingNormBias => vec![h],
        Slot::HeadDenseWeight | Slot::HeadDenseBias if !pooler => return None,
        Slot::LmRestWeight if h <= e => return None,
        Slot::LmRestWeight => vec![h - e, config.vocab_size],
        Slot::Layer(_, part) => match part {
            QueryWeight | KeyWeight | AttentionOutputWeight => vec![inner, inner],
            ValueWeight => vec![inner, of_values],
            IntermediateWeight | FeedForward(_, FeedForwardSlot::IntermediateWeight) => vec![i, inner],
            IntermediateBias | FeedForward(_, FeedForwardSlot::IntermediateBias) => vec![i],
            OutputWeight | FeedForward(_, FeedForwardSlot::OutputWeight) => vec![inner, i],
            InputBottleneckWeight if narrows => vec![inner, h],
            InputBottleneckBias | InputBottleneckNormWeight | InputBottleneckNormBias if narrows => vec![inner],
            InputBottleneckWeight | InputBottleneckBias | InputBottleneckNormWeight | InputBottleneckNormBias => {
                return None;
            }
            AttentionBottleneckWeight if narrows_attention => vec![inner, h],
            AttentionBottleneckBias | AttentionBottleneckNormWeight | AttentionBottleneckNormBias
                if narrows_attention =>
            {
                vec![inner]
            }
            AttentionBottleneckWeight
            | AttentionBottleneckBias
            | AttentionBottleneckNormWeight
            | AttentionBottleneckNormBias => return None,
            OutputBottleneckWeight if narrows => vec![h, inner],
            OutputBottleneckBias | OutputBottleneckNormWeight | OutputBottleneckNormBias if narrows => vec![h],
            OutputBottleneckWeight | OutputBottleneckBias | OutputBottleneckNormWeight | OutputBottleneckNormBias => {
                return None;
            }
            _ => vec![inner],
        },
        slot => return bert::shape(config, slot),
    })
}

/// Missing fields have the defaults of `MobileBertConfig`, except for sizes that are required for every family.
fn read(fields: &Fields<'_>, family: Family) -> Result<EncoderConfig, Error> {
    let config = bert::read(fields, family)?;
    let hidden_dropout = fields.rate("hidden_dropout_prob", 0.0)?;
    let size = fields.size_or("intra_bottleneck_size", 128)?;
    let narrow = fields.flag("use_bottleneck_attention", false)?;
    let shared = fields.flag("key_query_shared_bottleneck", true)?;
    let attention = match (narrow, shared) {
        (true, _) => AttentionInput::Narrow,
        (false, true) => AttentionInput::SharedKeyQuery,
        (false, false) => AttentionInput::Hidden,
    };
    let bottleneck = fields.flag("use_bottleneck", true)?.then_some(Bottleneck { size, attention });
    let norm = match fields.text("normalization_type")? {
        None | Some("no_norm") => NormKind::NoNorm,
        Some("layer_norm") => NormKind::LayerNorm,
        Some(other) => return Err(bad("normalization_type", other, "no_norm or layer_norm")),
    };
    Ok(EncoderConfig {
        embedding_size: fields.size_or("embedding_size", 128)?,
        activation: fields.activation("hidden_act", Activation::Relu)?,
        hidden_dropout,
        classifier_dropout: fields.rate("classifier_dropout", hidden_dropout)?,
        blocks: Blocks {
            trigrams: fields.flag("trigram_input", true)?,
            bottleneck,
            feed_forwards: fields.size_or("num_feedforward_networks", 4)?,
            norm,
            pooler: fields.flag("classifier_activation", true)?,
        },
        ..config
    })
}

/// The published sizes (`google/mobilebert-uncased`), or those of the teacher if it is a MobileBERT.
fn student(teacher: &EncoderConfig, family: Family) -> EncoderConfig {
    let student = bert::student(teacher, family);
    if teacher.family == family {
        let EncoderConfig { embedding_size, num_heads, layer_norm_epsilon, blocks, .. } = *teacher;
        return EncoderConfig { embedding_size, num_heads, layer_norm_epsilon, blocks, ..student };
    }
    EncoderConfig {
        embedding_size: 128,
        hidden_size: 512,
        num_layers: 24,
        num_heads: 4,
        intermediate_size: 512,
        activation: Activation::Relu,
        blocks: Blocks {
            trigrams: true,
            bottleneck: Some(Bottleneck { size: 128, attention: AttentionInput::SharedKeyQuery }),
            feed_forwards: 4,
            norm: NormKind::NoNorm,
            pooler: false,
        },
        ..student
    }
}

fn program(config: &EncoderConfig) -> Program {
    let mut program = Program::default();
    let mut x = embeddings(&mut program, config);
    program.tap(Tap::Hidden(0), x);
    for number in 0..config.num_layers {
        x = layer(&mut program, config, number, x);
        program.tap(Tap::Hidden(number + 1), x);
    }
    match config.head {
        Head::Classification if config.blocks.pooler => {
            bert::Classifier { input_dropout: 0.0, activation: Activation::Tanh, pools: true }.push(
                &mut program,
                config,
                x,
            );
        }
        Head::Classification => {
            let pooled = program.select(x, Rows::First);
            program.tap(Tap::Pooled, pooled);
            let pooled = program.dropout(pooled, Site::new(bert::OUTSIDE + 2, config.classifier_dropout));
            let bias = Some(Slot::HeadOutputBias);
            let logits = program.linear(pooled, Slot::HeadOutputWeight, bias, config.num_labels);
            program.tap(Tap::Logits, logits);
        }
        Head::MaskedLm if config.projects_embeddings() => {
            let normed = bert::masked_lm_transform(&mut program, config, x, config.activation);
            let (embedding, more) = (config.embedding_size, config.hidden_size - config.embedding_size);
            let (words, rest, bias) = (Slot::WordEmbeddings, Slot::LmRestWeight, Slot::LmOutputBias);
            let logits = program.decode(normed, Decode { words, rest, bias, embedding, more }, config.vocab_size);
            program.tap(Tap::Logits, logits);
        }
        Head::MaskedLm => bert::masked_lm(&mut program, config, x, config.activation),
    }
    program
}

/// A norm of the configured kind; in `transformers` only some of the layer norms use the configured epsilon.
fn norm(config: &EncoderConfig, weight: Slot, bias: Slot, epsilon: f32) -> NormSlots {
    NormSlots { weight, bias, epsilon: (config.blocks.norm == NormKind::LayerNorm).then_some(epsilon) }
}

/// The epsilon of layer norms that do not use the configured one: PyTorch's default.
const PLAIN_EPSILON: f32 = 1e-5;

fn embeddings(program: &mut Program, config: &EncoderConfig) -> ValueId {
    let norm = norm(config, Slot::EmbeddingNormWeight, Slot::EmbeddingNormBias, PLAIN_EPSILON);
    let site = Site::new(bert::OUTSIDE, config.hidden_dropout);
    let words = vec![Table { slot: Slot::WordEmbeddings, lookup: config.words() }];
    let mut others = vec![Table { slot: Slot::PositionEmbeddings, lookup: Lookup::Position(config.positions()) }];
    if config.type_vocab_size > 0 {
        others.push(Table { slot: Slot::TypeEmbeddings, lookup: Lookup::Type });
    }
    if !maps_words(config) {
        let tables = [words, others].concat();
        return program.embed(Embed { tables, norm: Some(norm), site }, config.hidden_size);
    }
    let mut words = program.embed(Embed { tables: words, norm: None, site: None }, config.embedding_size);
    if config.blocks.trigrams {
        words = program.trigram(words);
    }
    let mapped = program.linear(words, Slot::EmbeddingProjectionWeight, None, config.hidden_size);
    let others = program.embed(Embed { tables: others, norm: None, site: None }, config.hidden_size);
    let end = ResidualNorm { bias: Slot::EmbeddingProjectionBias, norm, site: None };
    let sum = program.residual_norm(mapped, others, end);
    program.dropout(sum, site)
}

fn layer(program: &mut Program, config: &EncoderConfig, number: usize, x: ValueId) -> ValueId {
    let slot = |part| Slot::Layer(number, part);
    let site = |part, rate| Site::new(number as u64 * 4 + part, rate);
    let norm = |weight, bias, epsilon| norm(config, slot(weight), slot(bias), epsilon);
    let (hidden, inner, epsilon) = (config.hidden_size, config.inner_size(), config.layer_norm_epsilon);
    let bottleneck = config.blocks.bottleneck;
    let narrow = |program: &mut Program, [weight, bias, norm_weight, norm_bias]: [LayerSlot; 4]| {
        let narrowed = program.linear(x, slot(weight), Some(slot(bias)), inner);
        program.norm(narrowed, norm(norm_weight, norm_bias, epsilon))
    };
    // Without a bottleneck dropout stands at the end of both branches; with one, behind the way out alone.
    let branch_dropout = if bottleneck.is_none() { config.hidden_dropout } else { 0.0 };
    let residual = match bottleneck {
        None => x,
        Some(_) => {
            let parts =
                [InputBottleneckWeight, InputBottleneckBias, InputBottleneckNormWeight, InputBottleneckNormBias];
            narrow(program, parts)
        }
    };
    let (of_queries, of_values) = match bottleneck.map(|bottleneck| bottleneck.attention) {
        None | Some(AttentionInput::Hidden) => (x, x),
        Some(AttentionInput::Narrow) => (residual, residual),
        Some(AttentionInput::SharedKeyQuery) => {
            let parts = [
                AttentionBottleneckWeight,
                AttentionBottleneckBias,
                AttentionBottleneckNormWeight,
                AttentionBottleneckNormBias,
            ];
            (narrow(program, parts), x)
        }
    };
    let value = program.linear(of_values, slot(ValueWeight), Some(slot(ValueBias)), inner);
    let key = program.linear(of_queries, slot(KeyWeight), Some(slot(KeyBias)), inner);
    let query = program.linear(of_queries, slot(QueryWeight), Some(slot(QueryBias)), inner);
    program.tap(Tap::Key(number), key);
    program.tap(Tap::Value(number), value);
    program.tap(Tap::Query(number), query);
    let (heads, max_length) = (config.num_heads, config.max_length());
    let attention = Attention { heads, max_length, site: site(0, config.attention_dropout) };
    let context = program.attention([query, key, value], attention);
    let branch = program.linear(context, slot(AttentionOutputWeight), None, inner);
    let end = ResidualNorm {
        bias: slot(AttentionOutputBias),
        norm: norm(AttentionNormWeight, AttentionNormBias, epsilon),
        site: site(1, branch_dropout),
    };
    let mut attended = program.residual_norm(branch, residual, end);
    for part in 0..config.blocks.feed_forwards - 1 {
        let of = |slot| FeedForward(part, slot);
        let parts = [FeedForwardSlot::IntermediateWeight, FeedForwardSlot::OutputWeight].map(of).map(slot);
        let end = ResidualNorm {
            bias: slot(of(FeedForwardSlot::OutputBias)),
            norm: norm(of(FeedForwardSlot::OutputNormWeight), of(FeedForwardSlot::OutputNormBias), epsilon),
            site: None,
        };
        attended = feed_forward(program, config, attended, parts, slot(of(FeedForwardSlot::IntermediateBias)), end);
    }
    let end = ResidualNorm {
        bias: slot(OutputBias),
        norm: norm(OutputNormWeight, OutputNormBias, PLAIN_EPSILON),
        site: site(2, branch_dropout),
    };
    let parts = [slot(IntermediateWeight), slot(OutputWeight)];
    let out = feed_forward(program, config, attended, parts, slot(IntermediateBias), end);
    if bottleneck.is_none() {
        return out;
    }
    let branch = program.linear(out, slot(OutputBottleneckWeight), None, hidden);
    let end = ResidualNorm {
        bias: slot(OutputBottleneckBias),
        norm: norm(OutputBottleneckNormWeight, OutputBottleneckNormBias, epsilon),
        site: site(2, config.hidden_dropout),
    };
    program.residual_norm(branch, x, end)
}

/// One feed-forward block with its residual connection.
fn feed_forward(
    program: &mut Program,
    config: &EncoderConfig,
    x: ValueId,
    [into, out_of]: [Slot; 2],
    bias: Slot,
    end: ResidualNorm,
) -> ValueId {
    let wide = program.linear(x, into, None, config.intermediate_size);
    let wide = program.activate(wide, bias, config.activation);
    let branch = program.linear(wide, out_of, None, config.inner_size());
    program.residual_norm(branch, x, end)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::hf::{HfConfig, read_config, read_config_for, write_config};

    /// The published model's sizes, all else left out.
    fn published() -> Value {
        json!({"model_type": "mobilebert", "vocab_size": 30522, "hidden_size": 512, "num_hidden_layers": 24,
            "num_attention_heads": 4, "intermediate_size": 512, "max_position_embeddings": 512})
    }

    fn with(field: &str, value: Value) -> Value {
        let mut json = published();
        json[field] = value;
        json
    }

    #[test]
    fn fields_that_are_left_out_mean_what_transformers_takes_them_for() {
        let config = read_config(&published()).expect("a MobileBERT").encoder;
        let bert = json!({"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
            "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512});
        let student = Family::MOBILEBERT.student_of(&read_config(&bert).expect("a BERT").encoder);
        assert_eq!(config.blocks, Blocks { pooler: true, ..student.blocks });
        assert_eq!((config.embedding_size, config.inner_size(), config.head_size()), (128, 128, 32));
        assert_eq!((config.activation, config.hidden_dropout, config.attention_dropout), (Activation::Relu, 0.0, 0.1));
        let parameters = crate::Layout::new(&EncoderConfig { blocks: student.blocks, ..config }).len();
        // transformers counts 24,582,914 of `google/mobilebert-uncased` with two classes.
        assert_eq!(parameters, 24_582_914);
    }

    #[test]
    fn every_form_is_written_and_read_back() {
        let base = read_config(&published()).expect("a MobileBERT");
        let size = 128;
        let bottlenecks = [
            None,
            Some(Bottleneck { size, attention: AttentionInput::Narrow }),
            Some(Bottleneck { size, attention: AttentionInput::SharedKeyQuery }),
            Some(Bottleneck { size: 512, attention: AttentionInput::Hidden }),
        ];
        for bottleneck in bottlenecks {
            for (norm, flag, feed_forwards) in [(NormKind::NoNorm, true, 4), (NormKind::LayerNorm, false, 1)] {
                let blocks = Blocks { trigrams: flag, bottleneck, feed_forwards, norm, pooler: !flag };
                let encoder = EncoderConfig { blocks, ..base.encoder.clone() };
                let json = write_config(&encoder, &base.labels, "float32");
                assert_eq!(read_config(&json).expect("our own"), HfConfig { encoder, labels: base.labels.clone() });
            }
        }
    }

    #[test]
    fn what_transformers_cannot_run_is_refused() {
        let refused = |json: &Value| read_config(json).expect_err("refused").to_string();
        for (field, value, expected) in [
            ("num_feedforward_networks", json!(0), "`num_feedforward_networks` is 0, expected a number from 1"),
            ("intra_bottleneck_size", json!(0), "`intra_bottleneck_size` is 0"),
            ("num_attention_heads", json!(3), "expected a divisor of the size inside the bottleneck 128"),
            ("key_query_shared_bottleneck", json!(false), "`key_query_shared_bottleneck` is false, expected true"),
            ("normalization_type", json!("rms"), "`normalization_type` is rms, expected no_norm or layer_norm"),
            ("use_bottleneck", json!("yes"), "`use_bottleneck` is \"yes\", expected true or false"),
        ] {
            let error = refused(&with(field, value));
            assert!(error.contains(expected), "{error}");
        }
        let error = read_config_for(&with("embedding_size", json!(600)), Head::MaskedLm).expect_err("refused");
        assert!(error.to_string().contains("`embedding_size` is 600, expected at most the hidden size 512"), "{error}");
    }
}
