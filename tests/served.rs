//! Exports have what text-embeddings-inference asks of a classifier's folder.
//!
//! Its rules are read from its sources (`router/src/lib.rs` and `backends/candle/src/` in
//! huggingface/text-embeddings-inference): a classifier is what has `architectures` that end in `Classification`, with
//! `id2label` from texts to texts and `label2id` back; `tokenizer.json` is read as it is; a configuration that lacks one of the
//! fields below, or an activation other than these, is refused; and tensors are looked up by these names and shapes.

use std::collections::BTreeMap;
use std::fs;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{CACHE, TRAIN, Workplace, repository};
use crate::tokenizers::set_tokenizer;

/// What it deserialises of a BERT's or a RoBERTa's configuration, as whole or other numbers.
const BERT_FIELDS: [&str; 10] = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
];

/// Of a DistilBERT's.
const DISTILBERT_FIELDS: [&str; 6] = ["vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "pad_token_id"];

/// The tensors that it looks up, `[rows]` or `[rows, columns]` each.
type Tensors = BTreeMap<String, Vec<usize>>;

/// A weight `[out, inner]` with its bias.
fn linear(all: &mut Tensors, name: String, out: usize, inner: usize) {
    all.insert(format!("{name}.weight"), vec![out, inner]);
    all.insert(format!("{name}.bias"), vec![out]);
}

fn norm(all: &mut Tensors, name: String, width: usize) {
    all.insert(format!("{name}.weight"), vec![width]);
    all.insert(format!("{name}.bias"), vec![width]);
}

fn of_bert(config: &Value, prefix: &str, classes: usize) -> Tensors {
    let of = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("{key} in {config}")) as usize;
    let (width, inner) = (of("hidden_size"), of("intermediate_size"));
    let mut all = Tensors::new();
    for (name, rows) in
        [("word", of("vocab_size")), ("position", of("max_position_embeddings")), ("token_type", of("type_vocab_size"))]
    {
        all.insert(format!("{prefix}.embeddings.{name}_embeddings.weight"), vec![rows, width]);
    }
    norm(&mut all, format!("{prefix}.embeddings.LayerNorm"), width);
    for layer in 0..of("num_hidden_layers") {
        let layer = format!("{prefix}.encoder.layer.{layer}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            linear(&mut all, format!("{layer}.attention.{part}"), width, width);
        }
        norm(&mut all, format!("{layer}.attention.output.LayerNorm"), width);
        linear(&mut all, format!("{layer}.intermediate.dense"), inner, width);
        linear(&mut all, format!("{layer}.output.dense"), width, inner);
        norm(&mut all, format!("{layer}.output.LayerNorm"), width);
    }
    match prefix {
        "bert" => {
            linear(&mut all, "bert.pooler.dense".to_owned(), width, width);
            linear(&mut all, "classifier".to_owned(), classes, width);
        }
        _ => {
            linear(&mut all, "classifier.dense".to_owned(), width, width);
            linear(&mut all, "classifier.out_proj".to_owned(), classes, width);
        }
    }
    all
}

fn of_distilbert(config: &Value, classes: usize) -> Tensors {
    let of = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("{key} in {config}")) as usize;
    let (width, inner) = (of("dim"), of("hidden_dim"));
    let mut all = Tensors::new();
    for (name, rows) in [("word", of("vocab_size")), ("position", of("max_position_embeddings"))] {
        all.insert(format!("distilbert.embeddings.{name}_embeddings.weight"), vec![rows, width]);
    }
    norm(&mut all, "distilbert.embeddings.LayerNorm".to_owned(), width);
    for layer in 0..of("n_layers") {
        let layer = format!("distilbert.transformer.layer.{layer}");
        for part in ["q_lin", "k_lin", "v_lin", "out_lin"] {
            linear(&mut all, format!("{layer}.attention.{part}"), width, width);
        }
        linear(&mut all, format!("{layer}.ffn.lin1"), inner, width);
        linear(&mut all, format!("{layer}.ffn.lin2"), width, inner);
        norm(&mut all, format!("{layer}.sa_layer_norm"), width);
        norm(&mut all, format!("{layer}.output_layer_norm"), width);
    }
    linear(&mut all, "pre_classifier".to_owned(), width, width);
    linear(&mut all, "classifier".to_owned(), classes, width);
    all
}

/// Asserts all rules of a folder.
fn is_served(place: &Workplace, folder: &str, model_type: &str) {
    let config = place.read_json(&format!("{folder}/config.json"));
    assert_eq!(config["model_type"], model_type);
    let architectures = config["architectures"].as_array().expect("a list");
    assert!(architectures[0].as_str().expect("a name").ends_with("Classification"), "{config}");
    let names = config["id2label"].as_object().expect("names of classes");
    assert!(names.len() > 1, "one class is a reranker's");
    for (id, name) in names {
        assert_eq!(config["label2id"][name.as_str().expect("a text")], json!(id.parse::<u64>().expect("a number")));
    }
    assert!(config["max_position_embeddings"].is_u64());
    assert_eq!(config.get("position_embedding_type").unwrap_or(&json!("absolute")), "absolute");
    let (fields, activation, tensors) = match model_type {
        "distilbert" => (&DISTILBERT_FIELDS[..], "activation", of_distilbert(&config, names.len())),
        "bert" => (&BERT_FIELDS[..], "hidden_act", of_bert(&config, "bert", names.len())),
        _ => (&BERT_FIELDS[..], "hidden_act", of_bert(&config, "roberta", names.len())),
    };
    for field in fields {
        assert!(config[*field].is_number(), "`{field}` is {} in {config}", config[*field]);
    }
    assert!(["gelu", "relu", "silu"].contains(&config[activation].as_str().expect("a name")), "{config}");
    let tokenizer = place.read_json(&format!("{folder}/tokenizer.json"));
    assert!(tokenizer["post_processor"].is_object(), "it adds what stands around a text");
    let bytes = place.read_bytes(&format!("{folder}/model.safetensors"));
    let found = SafeTensors::deserialize(&bytes).expect("readable weights");
    for (name, shape) in tensors {
        let tensor = found.tensor(&name).unwrap_or_else(|_| panic!("{folder}: no tensor `{name}`"));
        assert_eq!(tensor.shape(), shape, "{name}");
    }
}

#[test]
fn text_embeddings_inference_finds_what_it_asks_for_in_a_bert_and_a_distilbert() {
    let place = Workplace::new();
    place.json(&format!("{CACHE} --force"));
    for (model_type, student) in [("distilbert", "student"), ("bert", "other")] {
        place.json(&format!("{TRAIN} --model-type {model_type} --layers 1,2 --prune-vocabulary --output {student}"));
        for dtype in ["f32", "f16"] {
            place.json(&format!("export --model {student} --dtype {dtype} --output {student}-{dtype}"));
            is_served(&place, &format!("{student}-{dtype}"), model_type);
        }
    }
}

#[test]
fn text_embeddings_inference_finds_what_it_asks_for_in_roberta_and_its_kin() {
    for (model_type, form) in
        [("roberta", "roberta-files"), ("xlm-roberta", "xlmr-spm"), ("camembert", "camembert-spm")]
    {
        let place = Workplace::new();
        let from = repository().join("tests/fixtures/tiny-roberta");
        fs::create_dir(place.path("base")).expect("makes a folder");
        for file in ["config.json", "model.safetensors"] {
            place.write(&format!("base/{file}"), fs::read(from.join(file)).expect("the fixture"));
        }
        set_tokenizer(&place, "base", form, json!({}), 1);
        place.edit_json("base/config.json", |config| {
            config["model_type"] = json!(model_type);
            config["problem_type"] = Value::Null;
        });
        place.json("finetune --model base --data train.tsv --output tuned --epochs 1 --max-length 24");
        place.json("export --model tuned --output exported");
        is_served(&place, "exported", model_type);
    }
}
