//! ELECTRA (Clark et al., 2020), the discriminator: BERT's encoder, with embeddings that may be narrower than the
//! hidden states and are then projected.
//!
//! Agrees with `modeling_electra.py` of `transformers`. The generator's head is different and not supported.

use serde_json::json;

use super::bert;
use crate::config::Definition;
use crate::program::Program;
use crate::{Activation, EncoderConfig};

pub(super) const DEFINITION: Definition = Definition {
    title: "ELECTRA",
    model_type: "electra",
    class: "Electra",
    prefix: "electra.",
    heads: &bert::DENSE_CLASSIFIER,
    copies: &[],
    projects_embeddings: true,
    read: |fields, family| {
        let embedding_size = fields.size("embedding_size")?;
        Ok(EncoderConfig { embedding_size, ..bert::read(fields, family)? })
    },
    write: |config| [bert::write(config), vec![("embedding_size", json!(config.embedding_size))]].concat(),
    student: |teacher, family| {
        let student = bert::student(teacher, family);
        let embedding_size = if teacher.family == family { teacher.embedding_size } else { student.embedding_size };
        EncoderConfig { embedding_size, ..student }
    },
    program: |config| {
        let mut program = Program::default();
        let last = bert::encoder(&mut program, config, config.hidden_dropout);
        let input_dropout = config.classifier_dropout;
        let classifier = bert::Classifier { input_dropout, activation: Activation::Gelu, pools: false };
        classifier.push(&mut program, config, last);
        program
    },
    ..bert::DEFINITION
};
