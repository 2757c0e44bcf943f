//! Every kind of vocabulary as a teacher's, a student's, a pruned student's and an export's; and what an export says of
//! its tokenizer.

use std::fs;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::support::{TRAIN, Workplace, repository};

/// Texts that the tokenizers were not made for.
const TEXTS: &str = "where is my card?\n我的银行卡 😀 <pad> [SEP]\nEine Straße; naïve café\n";

/// Puts the tokenizer of this form, as `tests/fixtures/tokenizers` has it, in the place of a model's, and gives the model
/// embeddings enough.
pub(crate) fn set_tokenizer(place: &Workplace, model: &str, form: &str, config: Value, pad_token_id: usize) {
    for name in ["tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"] {
        let _ = fs::remove_file(place.path(&format!("{model}/{name}")));
    }
    for entry in fs::read_dir(repository().join("tests/fixtures/tokenizers").join(form)).expect("the fixture") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("text");
        if !["config.json", "ids.json"].contains(&name.as_str()) {
            place.write(&format!("{model}/{name}"), fs::read(entry.path()).expect("reads"));
        }
    }
    place.write(&format!("{model}/tokenizer_config.json"), config.to_string());
    let rows = 640;
    widen(place, &format!("{model}/model.safetensors"), rows);
    place.edit_json(&format!("{model}/config.json"), |config| {
        config["vocab_size"] = json!(rows);
        config["pad_token_id"] = json!(pad_token_id);
    });
}

/// Repeats the rows of the word embeddings until there are so many.
fn widen(place: &Workplace, file: &str, rows: usize) {
    let bytes = place.read_bytes(file);
    let tensors = SafeTensors::deserialize(&bytes).expect("readable weights");
    let name = tensors.names().into_iter().find(|name| name.ends_with("word_embeddings.weight")).expect("is there");
    let table = tensors.tensor(name).expect("is there");
    let width = table.shape()[1];
    let repeated: Vec<u8> = table.data().iter().copied().cycle().take(rows * width * 4).collect();
    let wide = TensorView::new(Dtype::F32, vec![rows, width], &repeated).expect("whole rows");
    let others = tensors.iter().filter(|(other, _)| *other != name);
    let all: Vec<(String, TensorView<'_>)> =
        others.map(|(name, tensor)| (name.to_owned(), tensor)).chain([(name.to_owned(), wide)]).collect();
    place.write(file, safetensors::serialize(all, None).expect("serialises"));
}

fn predict(place: &Workplace, model: &str) -> String {
    let done = place.run_with_input(&format!("predict --model {model} --json --logits"), TEXTS);
    done.succeeded();
    assert_eq!(done.stdout.lines().count(), 3, "{}", done.stdout);
    done.stdout
}

/// A teacher with this tokenizer, a student of it, a pruned one, and what is exported of both.
fn teacher_student_pruned_exported(form: &str, class: &str, pad_token_id: usize, exported_class: &str) {
    let place = Workplace::new();
    set_tokenizer(&place, "teacher", form, json!({ "tokenizer_class": class }), pad_token_id);
    place.json("cache --teacher teacher --data train.tsv --output cache --force");
    predict(&place, "teacher");
    for (student, flags) in [("student", ""), ("pruned", "--prune-vocabulary")] {
        place.json(&format!("{TRAIN} --output {student} --force {flags}"));
        place.json(&format!("evaluate --model {student} --data test.tsv"));
        let answers = predict(&place, student);
        place.json(&format!("export --model {student} --output exported-{student}"));
        assert_eq!(predict(&place, &format!("exported-{student}")), answers, "{student}");
        let config = place.read_json(&format!("exported-{student}/tokenizer_config.json"));
        assert_eq!(config["tokenizer_class"], exported_class);
        assert_eq!(config["model_input_names"], json!(["input_ids", "attention_mask"]), "a DistilBERT has no segments");
    }
    let vocabulary = |model: &str| place.read_json(&format!("{model}/config.json"))["vocab_size"].as_u64();
    assert_eq!(vocabulary("student"), Some(640));
    assert!(vocabulary("exported-pruned") < Some(600), "{:?}", vocabulary("exported-pruned"));
}

#[test]
fn word_pieces_as_teacher_student_pruned_and_exported() {
    teacher_student_pruned_exported("bert-vocab", "BertTokenizer", 0, "BertTokenizer");
}

#[test]
fn byte_level_byte_pairs_as_teacher_student_pruned_and_exported() {
    teacher_student_pruned_exported("roberta-files", "RobertaTokenizer", 1, "PreTrainedTokenizerFast");
}

#[test]
fn unigram_as_teacher_student_pruned_and_exported() {
    teacher_student_pruned_exported("xlmr-spm", "XLMRobertaTokenizer", 1, "PreTrainedTokenizerFast");
}

/// `transformers` chooses classes by the model's type, so a model keeps the one it came with.
#[test]
fn kin_of_roberta_keep_their_names() {
    for (model_type, class, form) in
        [("xlm-roberta", "XLMRoberta", "xlmr-spm"), ("camembert", "Camembert", "camembert-spm")]
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
        for folder in ["tuned", "exported"] {
            let config = place.read_json(&format!("{folder}/config.json"));
            assert_eq!(config["model_type"], model_type);
            assert_eq!(config["architectures"], json!([format!("{class}ForSequenceClassification")]));
            assert_eq!(config["problem_type"], "single_label_classification");
            let tokenizer = place.read_json(&format!("{folder}/tokenizer_config.json"));
            assert_eq!(tokenizer["tokenizer_class"], "PreTrainedTokenizerFast");
            assert_eq!(tokenizer["model_input_names"], json!(["input_ids", "attention_mask"]));
        }
        assert_eq!(predict(&place, "exported"), predict(&place, "tuned"));
    }
}

#[test]
fn a_tokenizer_beyond_the_embeddings_is_refused_wherever_it_is_loaded() {
    let place = Workplace::new();
    set_tokenizer(&place, "teacher", "roberta-files", json!({ "tokenizer_class": "RobertaTokenizer" }), 1);
    place.edit_json("teacher/config.json", |config| config["vocab_size"] = json!(600));
    widen(&place, "teacher/model.safetensors", 600);
    for command in [
        "cache --teacher teacher --data train.tsv --output cache",
        "finetune --model teacher --data train.tsv --output tuned",
        "evaluate --model teacher --data test.tsv",
        "export --model teacher --output exported",
        "cache estimate --teacher teacher --data train.tsv",
    ] {
        place.refuses(command, &["ids reach 619", "embeddings for 600 tokens", "do not belong together"]);
    }
}

#[test]
fn the_side_that_a_long_text_loses_goes_with_the_model() {
    let place = Workplace::new();
    let long = format!("{}\n", "the end of this text matters most of all here ".repeat(9));
    let answer = |model: &str| {
        let done = place.run_with_input(&format!("predict --model {model} --json --logits --max-length 12"), &long);
        done.succeeded();
        done.stdout
    };
    let right = answer("teacher");
    place.edit_json("teacher/tokenizer_config.json", |config| config["truncation_side"] = json!("left"));
    let left = answer("teacher");
    assert_ne!(left, right);
    place.json("cache --teacher teacher --data train.tsv --output cache");
    place.json("cache estimate --teacher teacher --data train.tsv");
    place.json(&format!("{TRAIN} --output student"));
    place.json("export --model teacher --output exported");
    assert_eq!(answer("exported"), left);
    for folder in ["student", "exported"] {
        assert_eq!(place.read_json(&format!("{folder}/tokenizer_config.json"))["truncation_side"], "left");
    }
}

/// A student whose tokenizer is another than its teacher's, whole and pruned.
fn crosses(form: &str, class: &str, pad_token_id: usize) {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --layers 1 --output first"));
    set_tokenizer(&place, "first", form, json!({ "tokenizer_class": class }), pad_token_id);
    for (student, flags) in [("student", ""), ("pruned", "--prune-vocabulary")] {
        place.json(&format!("{TRAIN} --student first --output {student} {flags}"));
        place.json(&format!("evaluate --model {student} --teacher teacher --data test.tsv"));
        let answers = predict(&place, student);
        place.json(&format!("export --model {student} --output exported-{student}"));
        assert_eq!(predict(&place, &format!("exported-{student}")), answers, "{student}");
    }
    // What it reads is its own: the sizes are not the teacher's.
    assert_eq!(place.read_json("student/config.json")["vocab_size"], 640);
    assert!(place.read_json("pruned/config.json")["vocab_size"].as_u64() < Some(640));
}

#[test]
fn word_pieces_across() {
    crosses("bert-vocab", "BertTokenizer", 0);
}

#[test]
fn byte_level_byte_pairs_across() {
    crosses("roberta-files", "RobertaTokenizer", 1);
}

#[test]
fn unigram_across() {
    crosses("xlmr-spm", "XLMRobertaTokenizer", 1);
}
