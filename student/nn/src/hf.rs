//! Hugging Face's `config.json`: read once into an [`EncoderConfig`] with every default resolved, and written back.

pub(crate) mod fields;

use serde_json::{Map, Value, json};

use crate::{EncoderConfig, Error, Family, Head};
use fields::{Fields, bad, one_of};

/// The contents of a model's `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct HfConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Class names in the order of their ids; `LABEL_0` and so on if the file has none. Empty for a masked-language
    /// model.
    pub labels: Vec<String>,
}

/// [`read_config_for`] with a classification head.
pub fn read_config(json: &Value) -> Result<HfConfig, Error> {
    read_config_for(json, Head::Classification)
}

/// Reads a parsed `config.json`, for a model that will have this head, whatever head it was saved with.
///
/// # Errors
/// Unknown model types, and settings that would change the computation but are not supported (relative positions,
/// decoders, tasks other than single-label classification).
pub fn read_config_for(json: &Value, head: Head) -> Result<HfConfig, Error> {
    let fields = fields_of(json)?;
    let family = family_of(&fields)?;
    let labels = match head {
        Head::Classification => classes(&fields)?,
        Head::MaskedLm => Vec::new(),
    };
    read_encoder(&fields, family, head, labels)
}

/// Reads the `config.json` of a model that is to get a classification head; second, why it cannot keep the one it has:
/// that of another task (several labels, a score), or with classes that cannot be told apart. The classes are generic then.
pub fn read_config_of_base(json: &Value) -> Result<(HfConfig, Option<Error>), Error> {
    let fields = fields_of(json)?;
    let family = family_of(&fields)?;
    let (labels, why) = match classes(&fields) {
        Ok(labels) => (labels, None),
        Err(error) => (vec!["LABEL_0".to_string(), "LABEL_1".to_string()], Some(error)),
    };
    Ok((read_encoder(&fields, family, Head::Classification, labels)?, why))
}

fn fields_of(json: &Value) -> Result<Fields<'_>, Error> {
    Ok(Fields(json.as_object().ok_or_else(|| bad("config.json", "no object", "a JSON object"))?))
}

/// The classes of a single-label classifier.
fn classes(fields: &Fields<'_>) -> Result<Vec<String>, Error> {
    match fields.text("problem_type")?.filter(|&problem| problem != "single_label_classification") {
        Some(problem) => Err(bad("problem_type", problem, "single_label_classification")),
        None => fields.labels(),
    }
}

fn family_of(fields: &Fields<'_>) -> Result<Family, Error> {
    let model_type = fields.text("model_type")?.ok_or_else(|| Error::MissingField { field: "model_type".into() })?;
    Family::named(model_type).ok_or_else(|| {
        let known = Family::ALL.map(Family::model_type);
        bad("model_type", model_type, &one_of(&known))
    })
}

/// All but the classes.
fn read_encoder(fields: &Fields<'_>, family: Family, head: Head, labels: Vec<String>) -> Result<HfConfig, Error> {
    if let Some(kind) = fields.text("position_embedding_type")?.filter(|&kind| kind != "absolute") {
        return Err(bad("position_embedding_type", kind, "absolute"));
    }
    if fields.0.get("is_decoder") == Some(&Value::Bool(true)) {
        return Err(bad("is_decoder", "true", "false: an encoder"));
    }
    let encoder = EncoderConfig { head, num_labels: labels.len(), ..(family.0.read)(fields, family)? };
    encoder.validate()?;
    if encoder.pad_token_id >= encoder.vocab_size {
        return Err(bad("pad_token_id", encoder.pad_token_id, "a token id below vocab_size"));
    }
    Ok(HfConfig { encoder, labels })
}

/// Writes the `config.json` that `transformers` loads as a sequence-classification model, or as a masked-language model.
///
/// Keys are in alphabetical order, like those of `transformers`. `dtype` is that of the stored weights, such as
/// `float32`.
pub fn write_config(config: &EncoderConfig, labels: &[String], dtype: &str) -> Value {
    let id2label: Map<String, Value> = labels.iter().enumerate().map(|(id, l)| (id.to_string(), json!(l))).collect();
    let mut by_name: Vec<_> = labels.iter().enumerate().collect();
    by_name.sort_by_key(|(_, label)| *label);
    let label2id: Map<String, Value> = by_name.into_iter().map(|(id, label)| (label.clone(), json!(id))).collect();
    let family = config.family.0;
    let task = match config.head {
        Head::Classification => "ForSequenceClassification",
        Head::MaskedLm => "ForMaskedLM",
    };
    let mut fields = vec![
        ("architectures", json!([format!("{}{task}", family.class)])),
        ("dtype", json!(dtype)),
        ("initializer_range", json!(0.02)),
        ("max_position_embeddings", json!(config.max_positions)),
        ("model_type", json!(config.family.model_type())),
        ("pad_token_id", json!(config.pad_token_id)),
        ("vocab_size", json!(config.vocab_size)),
    ];
    if config.head == Head::Classification {
        fields.extend([
            ("id2label", Value::Object(id2label)),
            ("label2id", Value::Object(label2id)),
            ("problem_type", json!("single_label_classification")),
        ]);
    }
    fields.extend((family.write)(config));
    fields.sort_by_key(|(name, _)| *name);
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bert() -> Value {
        json!({"model_type": "bert", "vocab_size": 100, "hidden_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 32,
            "id2label": {"0": "no", "1": "yes"}})
    }

    #[test]
    fn what_is_written_is_read_back() {
        let read = read_config(&bert()).expect("a BERT");
        for family in Family::ALL {
            let mut config = EncoderConfig { family, ..read.encoder.clone() };
            if family == Family::ELECTRA {
                config.embedding_size = 16;
            }
            if !family.has_token_types() {
                config.type_vocab_size = 0;
            }
            let json = write_config(&config, &read.labels, "float32");
            assert_eq!(read_config(&json).expect("our own"), HfConfig { encoder: config, labels: read.labels.clone() });
        }
    }

    #[test]
    fn a_masked_language_model_is_read_back_and_has_no_classes() {
        for (family, class) in
            [(Family::BERT, "Bert"), (Family::ROBERTA, "Roberta"), (Family::DISTILBERT, "DistilBert")]
        {
            let mut config = read_config_for(&bert(), Head::MaskedLm).expect("a BERT").encoder;
            config.family = family;
            if family == Family::DISTILBERT {
                config.type_vocab_size = 0;
            }
            assert_eq!((config.num_labels, config.outputs()), (0, 100));
            let json = write_config(&config, &[], "float32");
            assert_eq!(json["architectures"], json!([format!("{class}ForMaskedLM")]));
            assert!(["id2label", "label2id", "problem_type"].iter().all(|field| json.get(field).is_none()), "{json}");
            let read = read_config_for(&json, Head::MaskedLm).expect("our own");
            assert_eq!(read, HfConfig { encoder: config, labels: Vec::new() });
        }
    }

    #[test]
    fn what_concerns_classes_alone_is_no_matter_of_a_masked_language_model() {
        let mut config = bert();
        config["problem_type"] = json!("regression");
        config["id2label"] = json!({"0": "a", "1": "a"});
        assert!(read_config_for(&config, Head::MaskedLm).is_ok());
        config["model_type"] = json!("electra");
        config["embedding_size"] = json!(16);
        let error = read_config_for(&config, Head::MaskedLm).expect_err("refused").to_string();
        assert!(error.contains("`model_type` is electra, expected bert, roberta, "), "{error}");
    }

    #[test]
    fn classes_are_read_by_id_or_explained() {
        let with = |id2label: Value| {
            let mut config = bert();
            config["id2label"] = id2label;
            config
        };
        let labels =
            |id2label| read_config(&with(id2label)).map(|config| config.labels).map_err(|error| error.to_string());
        assert_eq!(labels(json!({"1": "b", "0": "a"})), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(labels(json!({"0": 0, "1": 10})), Ok(vec!["0".into(), "10".into()]));
        for (id2label, expected) in [
            (json!({"1": "a", "2": "b"}), "the keys 1, 2, without 0, expected the ids 0 to 1"),
            (json!({"0": "a", "1": "b", "2": "a"}), "twice the name \"a\", for the ids 0 and 2"),
            (json!({"0": "a", "1": null}), "null for the id 1"),
            (json!({"0": 1, "1": 1.5}), "1.5 for the id 1"),
        ] {
            let error = labels(id2label.clone()).expect_err("refused");
            assert!(error.contains(expected), "{error}");
            // A new head has classes of its own.
            let (config, why) = read_config_of_base(&with(id2label)).expect("an encoder");
            assert_eq!((config.labels.len(), why.expect("a reason").to_string()), (2, error));
        }
    }

    #[test]
    fn a_head_of_another_task_is_told_apart_from_its_encoder() {
        for problem in ["regression", "multi_label_classification"] {
            let mut config = bert();
            config["problem_type"] = json!(problem);
            let (read, why) = read_config_of_base(&config).expect("an encoder");
            assert_eq!(read.encoder, read_config(&bert()).expect("a BERT").encoder);
            assert!(why.expect("a reason").to_string().contains(problem));
            config["hidden_act"] = json!("swish");
            assert!(read_config_of_base(&config).is_err(), "the encoder is refused all the same");
        }
        assert_eq!(read_config_of_base(&bert()).expect("a BERT").1.map(|error| error.to_string()), None);
    }

    #[test]
    fn the_forms_of_gelu_are_read_as_transformers_computes_them() {
        use crate::Activation::{Gelu, GeluNew};
        for (name, expected) in [
            ("gelu", Gelu),
            ("gelu_python", Gelu),
            ("gelu_new", GeluNew),
            ("gelu_fast", GeluNew),
            ("gelu_accurate", GeluNew),
            ("gelu_pytorch_tanh", GeluNew),
            ("gelu_python_tanh", GeluNew),
        ] {
            let mut config = bert();
            config["hidden_act"] = json!(name);
            assert_eq!(read_config(&config).expect(name).encoder.activation, expected, "{name}");
        }
        for name in ["quick_gelu", "gelu_10"] {
            let mut config = bert();
            config["hidden_act"] = json!(name);
            assert!(read_config(&config).is_err(), "{name} is another function");
        }
    }

    #[test]
    fn refusals_name_field_finding_and_expectation() {
        let cases = [
            ("model_type", json!("gpt2"), "`model_type` is gpt2, expected bert"),
            ("hidden_size", json!(25), "`num_attention_heads` is 3, expected a divisor of the hidden size 25"),
            ("hidden_size", json!(-1), "`hidden_size` is -1"),
            ("hidden_size", Value::Null, "has no `hidden_size`"),
            ("hidden_act", json!("swish"), "`hidden_act` is swish"),
            ("hidden_dropout_prob", json!(1.0), "`hidden_dropout_prob` is 1"),
            ("id2label", json!({"0": "a", "2": "b"}), "`id2label`"),
            ("id2label", json!({"0": "a", "1": "a"}), "twice the name \"a\""),
            ("problem_type", json!("regression"), "`problem_type` is regression"),
            ("position_embedding_type", json!("relative_key"), "`position_embedding_type`"),
            ("vocab_size", json!(99999999999u64), "`vocab_size` is 99999999999"),
            ("num_hidden_layers", json!(16_000_000), "`num_hidden_layers` is 16000000, expected at most 1,000"),
            ("hidden_size", json!(12_000_000), "at most 4 billion parameters"),
        ];
        for (field, value, expected) in cases {
            let mut config = bert();
            config[field] = value;
            let error = read_config(&config).expect_err(field).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
