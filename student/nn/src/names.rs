//! The parameters of an encoder and their Hugging Face names, one row a parameter.
//!
//! Loading, export and the student's initialisation read the same rows.

use crate::{EncoderConfig, Family, Head};

/// A parameter, whatever its family calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// `[vocabulary, embedding]`
    WordEmbeddings,
    /// `[positions, embedding]`
    PositionEmbeddings,
    /// `[types, embedding]`; not in DistilBERT.
    TypeEmbeddings,
    /// `[embedding]`
    EmbeddingNormWeight,
    /// `[embedding]`
    EmbeddingNormBias,
    /// `[hidden, embedding]`; ELECTRA alone, where the two differ.
    EmbeddingProjectionWeight,
    /// `[hidden]`
    EmbeddingProjectionBias,
    /// A parameter of the layer with this index.
    Layer(usize, LayerSlot),
    /// `[hidden, hidden]`: the first linear map of the classification head.
    HeadDenseWeight,
    /// `[hidden]`
    HeadDenseBias,
    /// `[labels, hidden]`: the last linear map.
    HeadOutputWeight,
    /// `[labels]`
    HeadOutputBias,
    /// `[hidden, hidden]`: the linear map of the masked-language-model head. Its output matrix is [`WordEmbeddings`](Self::WordEmbeddings).
    LmDenseWeight,
    /// `[hidden]`
    LmDenseBias,
    /// `[hidden]`
    LmNormWeight,
    /// `[hidden]`
    LmNormBias,
    /// `[vocabulary]`
    LmOutputBias,
}

/// A parameter of one encoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it; shapes stand in `Layout`")]
pub enum LayerSlot {
    QueryWeight,
    KeyWeight,
    ValueWeight,
    QueryBias,
    KeyBias,
    ValueBias,
    AttentionOutputWeight,
    AttentionOutputBias,
    AttentionNormWeight,
    AttentionNormBias,
    IntermediateWeight,
    IntermediateBias,
    OutputWeight,
    OutputBias,
    OutputNormWeight,
    OutputNormBias,
}

use LayerSlot::*;

/// Slot, name in the BERT kin, name in DistilBERT. In the order of the flat buffer: query, key and value stand side by
/// side, so that one product serves neighbours.
#[rustfmt::skip]
pub(crate) const LAYER: [(LayerSlot, &str, &str); 16] = [
    (QueryWeight,           "attention.self.query.weight",       "attention.q_lin.weight"),
    (KeyWeight,             "attention.self.key.weight",         "attention.k_lin.weight"),
    (ValueWeight,           "attention.self.value.weight",       "attention.v_lin.weight"),
    (QueryBias,             "attention.self.query.bias",         "attention.q_lin.bias"),
    (KeyBias,               "attention.self.key.bias",           "attention.k_lin.bias"),
    (ValueBias,             "attention.self.value.bias",         "attention.v_lin.bias"),
    (AttentionOutputWeight, "attention.output.dense.weight",     "attention.out_lin.weight"),
    (AttentionOutputBias,   "attention.output.dense.bias",       "attention.out_lin.bias"),
    (AttentionNormWeight,   "attention.output.LayerNorm.weight", "sa_layer_norm.weight"),
    (AttentionNormBias,     "attention.output.LayerNorm.bias",   "sa_layer_norm.bias"),
    (IntermediateWeight,    "intermediate.dense.weight",         "ffn.lin1.weight"),
    (IntermediateBias,      "intermediate.dense.bias",           "ffn.lin1.bias"),
    (OutputWeight,          "output.dense.weight",               "ffn.lin2.weight"),
    (OutputBias,            "output.dense.bias",                 "ffn.lin2.bias"),
    (OutputNormWeight,      "output.LayerNorm.weight",           "output_layer_norm.weight"),
    (OutputNormBias,        "output.LayerNorm.bias",             "output_layer_norm.bias"),
];

/// Slot and name, the same in every family, before the layers.
#[rustfmt::skip]
pub(crate) const EMBEDDINGS: [(Slot, &str); 7] = [
    (Slot::WordEmbeddings,            "embeddings.word_embeddings.weight"),
    (Slot::PositionEmbeddings,        "embeddings.position_embeddings.weight"),
    (Slot::TypeEmbeddings,            "embeddings.token_type_embeddings.weight"),
    (Slot::EmbeddingNormWeight,       "embeddings.LayerNorm.weight"),
    (Slot::EmbeddingNormBias,         "embeddings.LayerNorm.bias"),
    (Slot::EmbeddingProjectionWeight, "embeddings_project.weight"),
    (Slot::EmbeddingProjectionBias,   "embeddings_project.bias"),
];

/// Slot and full name of the classification head: BERT, RoBERTa and ELECTRA, DistilBERT.
#[rustfmt::skip]
pub(crate) const HEAD: [(Slot, &str, &str, &str); 4] = [
    (Slot::HeadDenseWeight,  "bert.pooler.dense.weight", "classifier.dense.weight",    "pre_classifier.weight"),
    (Slot::HeadDenseBias,    "bert.pooler.dense.bias",   "classifier.dense.bias",      "pre_classifier.bias"),
    (Slot::HeadOutputWeight, "classifier.weight",        "classifier.out_proj.weight", "classifier.weight"),
    (Slot::HeadOutputBias,   "classifier.bias",          "classifier.out_proj.bias",   "classifier.bias"),
];

/// Slot and full name of the masked-language-model head: BERT, RoBERTa, DistilBERT.
#[rustfmt::skip]
pub(crate) const LM_HEAD: [(Slot, &str, &str, &str); 5] = [
    (Slot::LmDenseWeight, "cls.predictions.transform.dense.weight",     "lm_head.dense.weight",      "vocab_transform.weight"),
    (Slot::LmDenseBias,   "cls.predictions.transform.dense.bias",       "lm_head.dense.bias",        "vocab_transform.bias"),
    (Slot::LmNormWeight,  "cls.predictions.transform.LayerNorm.weight", "lm_head.layer_norm.weight", "vocab_layer_norm.weight"),
    (Slot::LmNormBias,    "cls.predictions.transform.LayerNorm.bias",   "lm_head.layer_norm.bias",   "vocab_layer_norm.bias"),
    (Slot::LmOutputBias,  "cls.predictions.bias",                       "lm_head.bias",              "vocab_projector.bias"),
];

/// Slot and full name under which checkpoints repeat a parameter that the masked-language-model head shares: BERT,
/// RoBERTa, DistilBERT; empty where there is none.
#[rustfmt::skip]
const LM_COPIES: [(Slot, &str, &str, &str); 2] = [
    (Slot::WordEmbeddings, "cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight"),
    (Slot::LmOutputBias,   "cls.predictions.decoder.bias",   "lm_head.decoder.bias",   ""),
];

/// Names under which a checkpoint of a masked-language model may repeat a parameter, which must then be equal.
pub fn copies(family: Family) -> Vec<(Slot, &'static str)> {
    let of_family = |(slot, bert, roberta, distilbert)| match family {
        Family::Bert => (slot, bert),
        Family::Roberta | Family::Electra => (slot, roberta),
        Family::DistilBert => (slot, distilbert),
    };
    LM_COPIES.into_iter().map(of_family).filter(|(_, name)| !name.is_empty()).collect()
}

/// What the encoder's own parameters are prefixed with in a checkpoint that has a head.
pub fn prefix(family: Family) -> &'static str {
    match family {
        Family::Bert => "bert.",
        Family::Roberta => "roberta.",
        Family::Electra => "electra.",
        Family::DistilBert => "distilbert.",
    }
}

/// The name that `transformers` gives the parameter in a model of the family with the head that has it.
pub fn hugging_face_name(family: Family, slot: Slot) -> String {
    if let Slot::Layer(index, part) = slot {
        let (_, bert, distilbert) = LAYER[part as usize];
        return match family {
            Family::DistilBert => format!("distilbert.transformer.layer.{index}.{distilbert}"),
            _ => format!("{}encoder.layer.{index}.{bert}", prefix(family)),
        };
    }
    if let Some((_, name)) = EMBEDDINGS.iter().find(|(candidate, _)| *candidate == slot) {
        return format!("{}{name}", prefix(family));
    }
    let row = HEAD.iter().chain(&LM_HEAD).find(|row| row.0 == slot);
    let (_, bert, dense, distilbert) = row.expect("every slot is a layer's, an embedding's or a head's");
    match family {
        Family::Bert => bert,
        Family::Roberta | Family::Electra => dense,
        Family::DistilBert => distilbert,
    }
    .to_string()
}

/// Whether the parameter belongs to a head.
pub fn is_head(slot: Slot) -> bool {
    HEAD.iter().chain(&LM_HEAD).any(|(head, ..)| *head == slot)
}

/// Every parameter of the encoder with its shape, in the order of the flat buffer.
pub(crate) fn slots(config: &EncoderConfig) -> Vec<(Slot, Vec<usize>)> {
    let (e, h, i) = (config.embedding_size, config.hidden_size, config.intermediate_size);
    let mut slots = Vec::new();
    for (slot, _) in EMBEDDINGS {
        let shape = match slot {
            Slot::WordEmbeddings => vec![config.vocab_size, e],
            Slot::PositionEmbeddings => vec![config.max_positions, e],
            Slot::TypeEmbeddings if config.type_vocab_size == 0 => continue,
            Slot::TypeEmbeddings => vec![config.type_vocab_size, e],
            Slot::EmbeddingProjectionWeight | Slot::EmbeddingProjectionBias if !config.projects_embeddings() => {
                continue;
            }
            Slot::EmbeddingProjectionWeight => vec![h, e],
            Slot::EmbeddingProjectionBias => vec![h],
            _ => vec![e],
        };
        slots.push((slot, shape));
    }
    for layer in 0..config.num_layers {
        for (part, ..) in LAYER {
            let shape = match part {
                QueryWeight | KeyWeight | ValueWeight | AttentionOutputWeight => vec![h, h],
                IntermediateWeight => vec![i, h],
                OutputWeight => vec![h, i],
                IntermediateBias => vec![i],
                _ => vec![h],
            };
            slots.push((Slot::Layer(layer, part), shape));
        }
    }
    let head = match config.head {
        Head::Classification => HEAD.as_slice(),
        Head::MaskedLm => LM_HEAD.as_slice(),
    };
    for &(slot, ..) in head {
        let shape = match slot {
            Slot::HeadDenseWeight | Slot::LmDenseWeight => vec![h, h],
            Slot::HeadOutputWeight => vec![config.num_labels, h],
            Slot::HeadOutputBias => vec![config.num_labels],
            Slot::LmOutputBias => vec![config.vocab_size],
            _ => vec![h],
        };
        slots.push((slot, shape));
    }
    slots
}
