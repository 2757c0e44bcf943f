//! Hugging Face's `config.json`: read once into an [`EncoderConfig`] with every default resolved, and written back.

use serde_json::{Map, Value, json};

use crate::{Activation, EncoderConfig, Error, Family, Head};

/// What `config.json` says of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct HfConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Class names in the order of their ids; `LABEL_0` and so on where the file has none. Empty in a masked-language
    /// model.
    pub labels: Vec<String>,
}

/// [`read_config_for`] a model with a classification head.
pub fn read_config(json: &Value) -> Result<HfConfig, Error> {
    read_config_for(json, Head::Classification)
}

/// Reads the parsed `config.json` of a BERT, RoBERTa, ELECTRA or DistilBERT model that is to have this head, whatever
/// head it was saved with.
///
/// Refuses other model types and what would change the arithmetic without our knowing (relative positions, decoders,
/// tasks other than single-label classification).
pub fn read_config_for(json: &Value, head: Head) -> Result<HfConfig, Error> {
    let fields = Fields(json.as_object().ok_or_else(|| bad("config.json", "no object", "a JSON object"))?);
    let family = match fields.text("model_type")? {
        Some("bert") => Family::Bert,
        Some("roberta" | "xlm-roberta") => Family::Roberta,
        Some("electra") => Family::Electra,
        Some("distilbert") => Family::DistilBert,
        Some(other) => return Err(bad("model_type", other, "bert, roberta, xlm-roberta, electra or distilbert")),
        None => return Err(Error::MissingField { field: "model_type".into() }),
    };
    if let Some(kind) = fields.text("position_embedding_type")?.filter(|&kind| kind != "absolute") {
        return Err(bad("position_embedding_type", kind, "absolute"));
    }
    if head == Head::Classification
        && let Some(problem) = fields.text("problem_type")?.filter(|&problem| problem != "single_label_classification")
    {
        return Err(bad("problem_type", problem, "single_label_classification"));
    }
    if fields.0.get("is_decoder") == Some(&Value::Bool(true)) {
        return Err(bad("is_decoder", "true", "false: an encoder"));
    }
    let labels = match head {
        Head::Classification => fields.labels()?,
        Head::MaskedLm => Vec::new(),
    };
    let distil = family == Family::DistilBert;
    let name = |bert: &'static str, distilbert: &'static str| if distil { distilbert } else { bert };
    let hidden_size = fields.size(name("hidden_size", "dim"))?;
    let hidden_dropout = fields.rate(name("hidden_dropout_prob", "dropout"), 0.1)?;
    let encoder = EncoderConfig {
        family,
        head,
        vocab_size: fields.size("vocab_size")?,
        embedding_size: if family == Family::Electra { fields.size("embedding_size")? } else { hidden_size },
        hidden_size,
        num_layers: fields.size(name("num_hidden_layers", "n_layers"))?,
        num_heads: fields.size(name("num_attention_heads", "n_heads"))?,
        intermediate_size: fields.size(name("intermediate_size", "hidden_dim"))?,
        max_positions: fields.size("max_position_embeddings")?,
        pad_token_id: fields.size_or("pad_token_id", if family == Family::Roberta { 1 } else { 0 })?,
        type_vocab_size: if distil { 0 } else { fields.size_or("type_vocab_size", 2)? },
        // DistilBERT's is a constant of the code, whatever the file says.
        layer_norm_epsilon: if distil { 1e-12 } else { fields.rate("layer_norm_eps", 1e-12)? },
        activation: fields.activation(name("hidden_act", "activation"))?,
        hidden_dropout,
        attention_dropout: fields.rate(name("attention_probs_dropout_prob", "attention_dropout"), 0.1)?,
        classifier_dropout: match distil {
            true => fields.rate("seq_classif_dropout", 0.2)?,
            false => fields.rate("classifier_dropout", hidden_dropout)?,
        },
        num_labels: labels.len(),
    };
    encoder.validate()?;
    if encoder.pad_token_id >= encoder.vocab_size {
        return Err(bad("pad_token_id", encoder.pad_token_id, "a token id below vocab_size"));
    }
    Ok(HfConfig { encoder, labels })
}

/// Writes the `config.json` that `transformers` loads as a sequence-classification model, or as a masked-language model.
///
/// Keys stand in alphabetical order, as `transformers` writes them. `dtype` is the stored weights', such as `float32`.
pub fn write_config(config: &EncoderConfig, labels: &[String], dtype: &str) -> Value {
    let id2label: Map<String, Value> = labels.iter().enumerate().map(|(id, l)| (id.to_string(), json!(l))).collect();
    let mut by_name: Vec<_> = labels.iter().enumerate().collect();
    by_name.sort_by_key(|(_, label)| *label);
    let label2id: Map<String, Value> = by_name.into_iter().map(|(id, label)| (label.clone(), json!(id))).collect();
    let activation = match config.activation {
        Activation::Gelu => "gelu",
        Activation::GeluNew => "gelu_new",
        Activation::Relu => "relu",
        Activation::Tanh => "tanh",
    };
    // Shortest decimal form: 0.1, not the nearest f64 of the f32.
    let number = |value: f32| value.to_string().parse::<f64>().map_or(Value::Null, Value::from);
    let (model_type, class) = match config.family {
        Family::Bert => ("bert", "Bert"),
        Family::Roberta => ("roberta", "Roberta"),
        Family::Electra => ("electra", "Electra"),
        Family::DistilBert => ("distilbert", "DistilBert"),
    };
    let task = match config.head {
        Head::Classification => "ForSequenceClassification",
        Head::MaskedLm => "ForMaskedLM",
    };
    let mut fields = vec![
        ("architectures", json!([format!("{class}{task}")])),
        ("dtype", json!(dtype)),
        ("initializer_range", json!(0.02)),
        ("max_position_embeddings", json!(config.max_positions)),
        ("model_type", json!(model_type)),
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
    if config.family == Family::DistilBert {
        fields.extend([
            ("activation", json!(activation)),
            ("attention_dropout", number(config.attention_dropout)),
            ("dim", json!(config.hidden_size)),
            ("dropout", number(config.hidden_dropout)),
            ("hidden_dim", json!(config.intermediate_size)),
            ("n_heads", json!(config.num_heads)),
            ("n_layers", json!(config.num_layers)),
            ("seq_classif_dropout", number(config.classifier_dropout)),
            ("sinusoidal_pos_embds", json!(false)),
        ]);
    } else {
        fields.extend([
            ("attention_probs_dropout_prob", number(config.attention_dropout)),
            ("classifier_dropout", number(config.classifier_dropout)),
            ("hidden_act", json!(activation)),
            ("hidden_dropout_prob", number(config.hidden_dropout)),
            ("hidden_size", json!(config.hidden_size)),
            ("intermediate_size", json!(config.intermediate_size)),
            ("layer_norm_eps", number(config.layer_norm_epsilon)),
            ("num_attention_heads", json!(config.num_heads)),
            ("num_hidden_layers", json!(config.num_layers)),
            ("type_vocab_size", json!(config.type_vocab_size)),
        ]);
        if config.family == Family::Electra {
            fields.push(("embedding_size", json!(config.embedding_size)));
        }
    }
    fields.sort_by_key(|(name, _)| *name);
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The field, where it is there and not null.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn text(&self, field: &str) -> Result<Option<&'a str>, Error> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(bad(field, other, "a string")),
        }
    }

    fn size(&self, field: &str) -> Result<usize, Error> {
        self.optional_size(field)?.ok_or_else(|| Error::MissingField { field: field.into() })
    }

    fn size_or(&self, field: &str, default: usize) -> Result<usize, Error> {
        Ok(self.optional_size(field)?.unwrap_or(default))
    }

    fn optional_size(&self, field: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64().filter(|&n| n <= 1 << 24) {
            Some(n) => Ok(Some(n as usize)),
            None => Err(bad(field, value, "a whole number up to 16,777,216")),
        }
    }

    fn rate(&self, field: &str, default: f32) -> Result<f32, Error> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_f64().map(|rate| rate as f32).ok_or_else(|| bad(field, value, "a number"))
    }

    fn activation(&self, field: &str) -> Result<Activation, Error> {
        match self.text(field)? {
            None | Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluNew),
            Some("relu") => Ok(Activation::Relu),
            Some(other) => Err(bad(field, other, "gelu, gelu_new, gelu_pytorch_tanh or relu")),
        }
    }

    fn labels(&self) -> Result<Vec<String>, Error> {
        let Some(value) = self.get("id2label") else {
            let count = self.size_or("num_labels", 2)?;
            return Ok((0..count).map(|id| format!("LABEL_{id}")).collect());
        };
        let expected = "an object from \"0\", \"1\", ... to distinct class names";
        let map = value.as_object().ok_or_else(|| bad("id2label", value, expected))?;
        let names: Option<Vec<String>> =
            (0..map.len()).map(|id| Some(map.get(&id.to_string())?.as_str()?.to_string())).collect();
        let names = names.ok_or_else(|| bad("id2label", value, expected))?;
        let mut sorted: Vec<_> = names.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(bad("id2label", format!("twice the name {:?}", pair[0]), expected)),
            None => Ok(names),
        }
    }
}

fn bad(field: &str, found: impl ToString, expected: &str) -> Error {
    Error::BadField { field: field.into(), found: found.to_string(), expected: expected.into() }
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
        for family in [Family::Bert, Family::Roberta, Family::Electra, Family::DistilBert] {
            let mut config = EncoderConfig { family, ..read.encoder.clone() };
            match family {
                Family::Electra => config.embedding_size = 16,
                Family::DistilBert => config.type_vocab_size = 0,
                _ => {}
            }
            let json = write_config(&config, &read.labels, "float32");
            assert_eq!(read_config(&json).expect("our own"), HfConfig { encoder: config, labels: read.labels.clone() });
        }
    }

    #[test]
    fn a_masked_language_model_is_read_back_and_has_no_classes() {
        for (family, class) in
            [(Family::Bert, "Bert"), (Family::Roberta, "Roberta"), (Family::DistilBert, "DistilBert")]
        {
            let mut config = read_config_for(&bert(), Head::MaskedLm).expect("a BERT").encoder;
            config.family = family;
            if family == Family::DistilBert {
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
        assert!(error.contains("`model_type` is electra, expected bert, roberta or distilbert"), "{error}");
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
