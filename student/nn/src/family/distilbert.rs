//! DistilBERT (Sanh et al., 2019): BERT's encoder without token types, and without dropout after the attention's
//! projection.
//!
//! Agrees with `modeling_distilbert.py` of `transformers`.

use serde_json::json;

use super::bert;
use crate::config::Definition;
use crate::hf::fields::number;
use crate::program::Program;
use crate::slot::{LayerSlot::*, Slot};
use crate::{Activation, Blocks, EncoderConfig, Head};

#[rustfmt::skip]
pub(super) const DEFINITION: Definition = Definition {
    title: "DistilBERT",
    model_type: "distilbert",
    computes_as: None,
    class: "DistilBert",
    prefix: "distilbert.",
    embeddings: &bert::EMBEDDINGS,
    layers: "transformer.layer.",
    layer: &[
        (QueryWeight,           "attention.q_lin.weight"),
        (KeyWeight,             "attention.k_lin.weight"),
        (ValueWeight,           "attention.v_lin.weight"),
        (QueryBias,             "attention.q_lin.bias"),
        (KeyBias,               "attention.k_lin.bias"),
        (ValueBias,             "attention.v_lin.bias"),
        (AttentionOutputWeight, "attention.out_lin.weight"),
        (AttentionOutputBias,   "attention.out_lin.bias"),
        (AttentionNormWeight,   "sa_layer_norm.weight"),
        (AttentionNormBias,     "sa_layer_norm.bias"),
        (IntermediateWeight,    "ffn.lin1.weight"),
        (IntermediateBias,      "ffn.lin1.bias"),
        (OutputWeight,          "ffn.lin2.weight"),
        (OutputBias,            "ffn.lin2.bias"),
        (OutputNormWeight,      "output_layer_norm.weight"),
        (OutputNormBias,        "output_layer_norm.bias"),
    ],
    shape: bert::shape,
    heads: &[
        (Slot::HeadDenseWeight,  "pre_classifier.weight"),
        (Slot::HeadDenseBias,    "pre_classifier.bias"),
        (Slot::HeadOutputWeight, "classifier.weight"),
        (Slot::HeadOutputBias,   "classifier.bias"),
        (Slot::LmDenseWeight,    "vocab_transform.weight"),
        (Slot::LmDenseBias,      "vocab_transform.bias"),
        (Slot::LmNormWeight,     "vocab_layer_norm.weight"),
        (Slot::LmNormBias,       "vocab_layer_norm.bias"),
        (Slot::LmOutputBias,     "vocab_projector.bias"),
    ],
    copies: &[(Slot::WordEmbeddings, "vocab_projector.weight")],
    token_types: false,
    projects_embeddings: false,
    position_offset: |_| 0,
    read: |fields, family| {
        // `attribute_map` of DistilBertConfig: the names that other families have are read as well.
        let size = |own: &str, other: &str| match fields.has(own) || !fields.has(other) {
            true => fields.size(own),
            false => fields.size(other),
        };
        let hidden_size = size("dim", "hidden_size")?;
        Ok(EncoderConfig {
            family,
            head: Head::Classification,
            vocab_size: fields.size("vocab_size")?,
            embedding_size: hidden_size,
            hidden_size,
            num_layers: size("n_layers", "num_hidden_layers")?,
            num_heads: size("n_heads", "num_attention_heads")?,
            intermediate_size: fields.size("hidden_dim")?,
            max_positions: fields.size("max_position_embeddings")?,
            pad_token_id: fields.size_or("pad_token_id", 0)?,
            type_vocab_size: 0,
            // A constant of the code, whatever the file says.
            layer_norm_epsilon: 1e-12,
            activation: fields.activation("activation", Activation::Gelu)?,
            hidden_dropout: fields.rate("dropout", 0.1)?,
            attention_dropout: fields.rate("attention_dropout", 0.1)?,
            classifier_dropout: fields.rate("seq_classif_dropout", 0.2)?,
            num_labels: 0,
            blocks: Blocks::default(),
        })
    },
    write: |config| vec![
        ("activation", json!(config.activation.name())),
        ("attention_dropout", number(config.attention_dropout)),
        ("dim", json!(config.hidden_size)),
        ("dropout", number(config.hidden_dropout)),
        ("hidden_dim", json!(config.intermediate_size)),
        ("n_heads", json!(config.num_heads)),
        ("n_layers", json!(config.num_layers)),
        ("seq_classif_dropout", number(config.classifier_dropout)),
        ("sinusoidal_pos_embds", json!(false)),
    ],
    student: |teacher, family| EncoderConfig { type_vocab_size: 0, ..bert::student(teacher, family) },
    program: |config| {
        let mut program = Program::default();
        let last = bert::encoder(&mut program, config, 0.0);
        match config.head {
            Head::Classification => {
                let classifier = bert::Classifier { input_dropout: 0.0, activation: Activation::Relu, pools: false };
                classifier.push(&mut program, config, last);
            }
            Head::MaskedLm => bert::masked_lm(&mut program, config, last, config.activation),
        }
        program
    },
};

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    /// As `DistilBertConfig` of `transformers` maps them.
    #[test]
    fn sizes_have_the_names_of_other_families_too() {
        let own = json!({"model_type": "distilbert", "vocab_size": 9, "dim": 8, "n_layers": 1, "n_heads": 2,
                         "hidden_dim": 4, "max_position_embeddings": 6, "num_labels": 2});
        let renamed = |pairs: &[(&str, &str)]| {
            let mut json = own.clone();
            for (from, to) in pairs {
                let value = json[*from].take();
                json[*to] = value;
            }
            json
        };
        let read = |json: &Value| crate::hf::read_config(json).map(|config| config.encoder);
        let others = [("dim", "hidden_size"), ("n_layers", "num_hidden_layers"), ("n_heads", "num_attention_heads")];
        assert_eq!(read(&renamed(&others)).expect("reads"), read(&own).expect("reads"));
        let error = read(&renamed(&[("dim", "width")])).expect_err("refused").to_string();
        assert!(error.contains("`dim`"), "{error}");
    }
}
