//! RoBERTa (Liu et al., 2019): BERT's encoder, whose positions start behind the padding index; and the two that compute the
//! same under names of their own, since `transformers` chooses a tokenizer by the name: XLM-RoBERTa (Conneau et al., 2019)
//! and CamemBERT (Martin et al., 2019).
//!
//! Agrees with `modeling_roberta.py`, `modeling_xlm_roberta.py` and `modeling_camembert.py` of `transformers`.

use super::bert;
use crate::config::Definition;
use crate::program::Program;
use crate::slot::Slot;
use crate::{Activation, EncoderConfig, Head};

#[rustfmt::skip]
pub(super) const DEFINITION: Definition = Definition {
    title: "RoBERTa",
    model_type: "roberta",
    class: "Roberta",
    prefix: "roberta.",
    heads: &[
        bert::DENSE_CLASSIFIER[0], bert::DENSE_CLASSIFIER[1], bert::DENSE_CLASSIFIER[2], bert::DENSE_CLASSIFIER[3],
        (Slot::LmDenseWeight, "lm_head.dense.weight"),
        (Slot::LmDenseBias,   "lm_head.dense.bias"),
        (Slot::LmNormWeight,  "lm_head.layer_norm.weight"),
        (Slot::LmNormBias,    "lm_head.layer_norm.bias"),
        (Slot::LmOutputBias,  "lm_head.bias"),
    ],
    copies: &[
        (Slot::WordEmbeddings, "lm_head.decoder.weight"),
        (Slot::LmOutputBias,   "lm_head.decoder.bias"),
    ],
    position_offset: |config| config.pad_token_id + 1,
    read: |fields, family| {
        let pad_token_id = fields.size_or("pad_token_id", 1)?;
        Ok(EncoderConfig { pad_token_id, ..bert::read(fields, family)? })
    },
    program: |config| {
        let mut program = Program::default();
        let last = bert::encoder(&mut program, config, config.hidden_dropout);
        match config.head {
            Head::Classification => {
                let input_dropout = config.classifier_dropout;
                let classifier = bert::Classifier { input_dropout, activation: Activation::Tanh, pools: false };
                classifier.push(&mut program, config, last);
            }
            // This activation is a constant of the code, whatever the file says.
            Head::MaskedLm => bert::masked_lm(&mut program, config, last, Activation::Gelu),
        }
        program
    },
    ..bert::DEFINITION
};

#[rustfmt::skip]
pub(super) const XLM_ROBERTA: Definition = Definition {
    title: "XLM-RoBERTa",
    model_type: "xlm-roberta",
    class: "XLMRoberta",
    computes_as: Some(&DEFINITION),
    ..DEFINITION
};

#[rustfmt::skip]
pub(super) const CAMEMBERT: Definition = Definition {
    title: "CamemBERT",
    model_type: "camembert",
    class: "Camembert",
    computes_as: Some(&DEFINITION),
    ..DEFINITION
};
