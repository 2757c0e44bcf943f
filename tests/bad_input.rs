//! Bad input: refused with the thing and the way out, before anything is touched.

use serde_json::json;

use crate::support::{CACHE, TRAIN, Workplace, rows};

/// Every command that reads data refuses this file with all of these in the message, and writes nothing.
fn refused_by_all(name: &str, content: &[u8], expected: &[&str]) {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output student"));
    place.write(name, content);
    let (cache, student) = (place.files("cache"), place.files("student"));
    for line in [
        "finetune --model teacher --data train.tsv --output student --overwrite",
        &format!("{CACHE} --overwrite"),
        &format!("{TRAIN} --output student --overwrite"),
        "evaluate --model teacher --data train.tsv",
    ] {
        place.refuses(&line.replace("train.tsv", name), expected);
        if line.contains("--output student") {
            place.refuses(&format!("{line} --validation {name}"), expected);
        }
    }
    assert!(place.files("cache") == cache && place.files("student") == student, "an earlier output was touched");
}

#[test]
fn an_empty_file() {
    refused_by_all("empty.tsv", b"", &["empty.tsv"]);
    refused_by_all("header.csv", b"text,label\n", &["header.csv: holds no rows"]);
    refused_by_all("empty.jsonl", b"\n\n", &["empty.jsonl: holds no rows"]);
}

#[test]
fn a_row_with_too_few_columns() {
    let rows = b"text\tlabel\nhello\tgarden\nhello\n";
    refused_by_all("short.tsv", rows, &["short.tsv, line 3: 1 columns where the header has 2"]);
    let rows = b"text,label\n\"hello\nyou\",garden\nhello\n";
    refused_by_all("short.csv", rows, &["short.csv, line 4: 1 columns where the header has 2"]);
}

#[test]
fn a_row_that_is_no_json() {
    let rows = b"{\"text\": \"a\", \"label\": \"garden\"}\n{\"text\": \n";
    refused_by_all("broken.jsonl", rows, &["broken.jsonl, line 2: not one JSON object on a line"]);
}

#[test]
fn invalid_utf8() {
    refused_by_all("latin1.tsv", b"text\tlabel\ncaf\xe9\tbakery\n", &["latin1.tsv, line 2: not valid UTF-8"]);
    refused_by_all("latin1.csv", b"text,label\na,bakery\ncaf\xe9,bakery\n", &["latin1.csv, line 3: not valid UTF-8"]);
    refused_by_all("latin1.jsonl", b"{\"text\": \"caf\xe9\"}\n", &["latin1.jsonl, line 1: not valid UTF-8"]);
}

#[test]
fn a_column_that_is_not_there() {
    refused_by_all("other.csv", b"sentence,label\na,garden\n", &["other.csv: no column `text`", "`sentence`, `label`"]);
}

#[test]
fn a_text_that_is_blank() {
    refused_by_all("blank.tsv", b"text\tlabel\n \tgarden\n", &["blank.tsv, line 2: nothing in column `text`"]);
}

#[test]
fn a_kind_of_file_that_nobody_knows() {
    refused_by_all("data.xlsx", b"PK", &["data.xlsx: unknown kind of data file", ".jsonl", ".parquet"]);
}

#[test]
fn a_parquet_file_that_is_broken() {
    refused_by_all("data.parquet", b"PAR1", &["data.parquet: cannot be read as Parquet"]);
}

#[test]
fn a_gzipped_file_that_is_cut_off() {
    refused_by_all("cut.tsv.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x2b\x49", &["cut.tsv.gz"]);
}

#[test]
fn a_missing_file() {
    let place = Workplace::with_cache();
    for line in [
        "finetune --model teacher --data nowhere.tsv --output out",
        "cache --teacher teacher --data nowhere.tsv --output out",
        "train --teacher teacher --cache cache --data nowhere.tsv --output out",
        "train --teacher teacher --cache cache --data train.tsv --validation nowhere.tsv --output out",
        "evaluate --model teacher --data nowhere.tsv",
    ] {
        place.refuses(line, &["nowhere.tsv", "No such file"]);
    }
    assert!(!place.path("out").exists());
}

#[test]
fn a_missing_model() {
    let place = Workplace::new();
    place.refuses("evaluate --model ./nowhere --data test.tsv", &["`./nowhere`: no such folder"]);
    place.refuses("evaluate --model owner/nowhere --data test.tsv", &["`owner/nowhere`: offline"]);
    place.refuses("evaluate --model test.tsv --data test.tsv", &["test.tsv: a file; give the folder"]);
}

#[test]
fn a_text_longer_than_the_model_is_cut_and_counted() {
    let place = Workplace::new();
    let long = "bread ".repeat(100);
    place.write("long.tsv", format!("text\tlabel\n{long}\tbakery\nthe hedge\tgarden\n"));
    for line in ["cache --teacher teacher --data long.tsv --output cache", "evaluate --model teacher --data long.tsv"] {
        assert_eq!(place.json(line)["truncated"], 1);
        let again = place.run(&format!("{line} --max-length 10"));
        if again.code == Some(0) {
            assert!(again.stderr.contains("1 of 2 rows are longer than 10 tokens"), "{}", again.stderr);
        } else {
            assert!(again.failure().contains("max_length"), "the cache is of another length");
        }
    }
    let train =
        "train --teacher teacher --cache cache --data long.tsv --validation test.tsv --epochs 1 --output student";
    let done = place.run(train);
    done.succeeded();
    assert!(done.stderr.contains("1 of 2 rows are longer than 64 tokens and were cut; see --max-length"));
    let expected = ["--max-length 65: the model takes at most 64 tokens"];
    place.refuses("evaluate --model teacher --data long.tsv --max-length 65", &expected);
}

/// Weights that cannot be read are refused by their path, wherever a model is given.
fn refuses_weights(spoil: impl Fn(Vec<u8>) -> Vec<u8>, expected: &str) {
    let place = Workplace::new();
    let weights = "teacher/model.safetensors";
    place.write(weights, spoil(place.read_bytes(weights)));
    for line in
        [CACHE, "evaluate --model teacher --data test.tsv", "finetune --model teacher --data train.tsv --output f"]
    {
        place.refuses(line, &[weights, expected, "again"]);
    }
    assert!(!place.path("cache").exists());
}

#[test]
fn weights_that_are_cut_off() {
    refuses_weights(|bytes| bytes[..bytes.len() - 1].to_vec(), "no readable weights");
    refuses_weights(|bytes| bytes[..100].to_vec(), "no readable weights");
    refuses_weights(|bytes| bytes[..4].to_vec(), "no readable weights");
    refuses_weights(|_| Vec::new(), "no readable weights");
}

#[test]
fn weights_with_a_hostile_header() {
    let file = |header: &str, data: &[u8]| {
        let length = (header.len() as u64).to_le_bytes();
        [&length, header.as_bytes(), data].concat()
    };
    // A header of 2^64 - 1 bytes, or of 1 GiB in a file of 200 kB.
    refuses_weights(|bytes| [&[0xff; 8], &bytes[8..]].concat(), "no readable weights");
    refuses_weights(|bytes| [&(1_u64 << 30).to_le_bytes(), &bytes[8..]].concat(), "no readable weights");
    refuses_weights(|_| file("{\"a\":", b""), "no readable weights");
    refuses_weights(|_| file(&"[".repeat(100_000), b""), "no readable weights");
    let offsets = |from: u64, to: u64, shape: &str| {
        format!(r#"{{"bert.x":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
    };
    for (from, to, shape) in [(0, 1 << 40, "[1]"), (8, 4, "[1]"), (0, 4, "[18446744073709551615,4]"), (0, 4, "[2]")] {
        refuses_weights(|_| file(&offsets(from, to, shape), &[0; 4]), "no readable weights");
    }
}

#[test]
fn a_config_that_contradicts_the_weights() {
    let place = Workplace::new();
    let refused = |field: &str, value: serde_json::Value, expected: &[&str]| {
        let whole = place.read("teacher/config.json");
        place.edit_json("teacher/config.json", |config| config[field] = value);
        place.refuses(CACHE, expected);
        place.write("teacher/config.json", whole);
    };
    refused(
        "intermediate_size",
        json!(128),
        &["model.safetensors", "layer.0.intermediate.dense.weight", "[64, 32]", "[128, 32]"],
    );
    refused("vocab_size", json!(400), &["word_embeddings.weight", "[347, 32]", "[400, 32]"]);
    refused("num_hidden_layers", json!(5), &["model.safetensors: no tensor", "layer.4."]);
    refused("num_hidden_layers", json!(3), &["layer.3.", "beyond the 3 that config.json gives"]);
    refused("num_attention_heads", json!(3), &["config.json", "32", "3"]);
    refused("hidden_size", json!("wide"), &["config.json", "hidden_size"]);
    refused("model_type", json!("gpt2"), &["config.json", "gpt2", "expected bert, ", "mobilebert"]);
    refused("id2label", json!({"0": "a", "1": "b"}), &["`classifier.weight`", "names 2 classes", "the weights have 4"]);
}

#[test]
fn a_model_without_a_head_is_no_teacher() {
    let place = Workplace::new();
    // Renamed, the head is just another tensor that nobody asks for.
    let weights = place.read_bytes("teacher/model.safetensors");
    let renamed = String::from_utf8_lossy(&weights[..8000]).contains("classifier.weight");
    assert!(renamed, "the header names the head");
    let position = |name: &[u8]| weights.windows(name.len()).position(|window| window == name).expect("named");
    let mut headless = weights.clone();
    for name in [b"classifier.weight".as_slice(), b"classifier.bias"] {
        headless[position(name)] = b'k';
    }
    place.write("teacher/model.safetensors", headless);
    place.refuses(CACHE, &["no tensor `classifier.weight`", "no classification head", "hint: make a classifier of it"]);
    place.json("finetune --model teacher --data train.tsv --epochs 1 --output tuned");
}

#[test]
fn a_model_without_its_files() {
    let place = Workplace::new();
    let without = |files: &[&str], expected: &str| {
        place.copy("teacher", "spoilt");
        for file in files {
            std::fs::remove_file(place.path("spoilt").join(file)).expect("removes");
        }
        place.refuses("evaluate --model spoilt --data test.tsv", &["spoilt", expected]);
    };
    without(&["config.json"], "config.json");
    without(&["model.safetensors"], "model.safetensors");
    without(&["tokenizer.json", "vocab.txt"], "no tokenizer.json and no vocab.txt");
}

#[test]
fn an_output_that_already_holds_something() {
    let place = Workplace::with_cache();
    for line in
        [format!("{TRAIN} --output out"), "finetune --model teacher --data test.tsv --epochs 1 --output out".into()]
    {
        std::fs::create_dir_all(place.path("out")).expect("a folder");
        place.write("out/notes.txt", "mine");
        place.refuses(&line, &["out is not empty: it holds", "--overwrite"]);
        place.json(&format!("{line} --overwrite"));
        assert_eq!(place.read("out/notes.txt"), "mine");
        assert!(place.names("out").contains(&"model.safetensors".to_owned()));
        let before = place.files("out");
        place.refuses(&line, &["out is not empty", "--overwrite"]);
        assert!(place.files("out") == before);
    }
}

#[test]
fn an_output_that_is_the_model_itself() {
    let place = Workplace::with_cache();
    let teacher = place.files("teacher");
    for line in
        [format!("{TRAIN} --output ./teacher"), "finetune --model teacher --data test.tsv --output teacher".into()]
    {
        place.refuses(&format!("{line} --overwrite"), &["teacher: the result would replace what it is made of"]);
    }
    assert!(place.files("teacher") == teacher);
}

#[test]
fn an_output_that_is_a_file() {
    let place = Workplace::with_cache();
    place.refuses(&format!("{TRAIN} --output test.tsv"), &["test.tsv is not a folder"]);
    place.refuses(&CACHE.replace("--output cache", "--output test.tsv"), &["test.tsv"]);
}

#[test]
fn a_device_or_number_format_that_this_machine_does_not_have() {
    let place = Workplace::new();
    // No machine has that many GPUs; whether this one has a driver decides which of two messages comes.
    let expected = ["--device cuda:99", "or give --device cpu"];
    for line in
        [CACHE, "evaluate --model teacher --data test.tsv", "finetune --model teacher --data test.tsv --output f"]
    {
        place.refuses(&format!("{line} --device cuda:99"), &expected);
        let expected = ["--precision bf16", "the CPU computes in f32 alone", "--precision f32"];
        place.refuses(&format!("{line} --device cpu --precision bf16"), &expected);
        place.json(&format!("{line} --device cpu --precision f32"));
    }
    place.refuses(&format!("{TRAIN} --output student --device cuda:99"), &expected);
    let expected = ["--autotune", "the CPU has one way to compute a product", "--device cuda"];
    for line in [
        &format!("{TRAIN} --output student"),
        "finetune --model teacher --data test.tsv --output g",
        "bench train",
        "bench gemm",
    ] {
        place.refuses(&format!("{line} --device cpu --autotune"), &expected);
    }
}

#[test]
fn a_training_that_diverges_names_the_step() {
    let place = Workplace::new();
    place.json(CACHE);
    let done = place.run(&format!("{TRAIN} --output student --learning-rate 1e30"));
    let message = done.failure();
    assert!(done.stderr.contains("such steps are skipped and counted"), "{}", done.stderr);
    assert!(
        message.contains("error: step ") && message.contains("10th time in a row; lower --learning-rate"),
        "{message}"
    );
    assert!(!place.path("student/model.safetensors").exists());
}

#[test]
fn settings_of_a_training_that_do_not_fit_are_named() {
    let place = Workplace::with_cache();
    let refuses = |flags: &str, expected: &[&str]| {
        place.refuses(&format!("{TRAIN} --output student {flags}"), expected);
        assert!(!place.path("student/metrics.jsonl").exists(), "{flags}");
    };
    refuses("--schedule-restarts 2", &["--schedule-restarts goes with --schedule cosine", "`train.schedule_restarts`"]);
    refuses(
        "--schedule constant --schedule-floor 0.1",
        &["--schedule-floor goes with --schedule linear or cosine or plateau"],
    );
    refuses("--warmup-steps 100000", &["--warmup-steps is 100000", "the whole training has"]);
    let texts: String = rows(&place.read("train.tsv")).iter().map(|(text, _)| format!("{text}\n")).collect();
    place.write("train.txt", texts);
    let unlabelled = TRAIN.replace("train.tsv", "train.txt");
    let message = place.run(&format!("{unlabelled} --output student --metric macro-f1")).failure();
    assert!(message.contains("no macro-f1") && message.contains("by agreement or loss"), "{message}");
    let masked = "finetune --model teacher --task masked-lm --data train.txt --output student --metric ece";
    let message = place.run(masked).failure();
    assert!(message.contains("no ece") && message.contains("by accuracy or loss"), "{message}");
}

#[test]
fn a_flag_with_a_bad_value_ends_with_2() {
    let place = Workplace::new();
    for (line, expected) in [
        ("train --teacher t --cache c --data d --output o --layers middle", "uniform, first, last, random"),
        ("train --teacher t --cache c --data d --output o --learning-rate=-1", "must be a number above 0"),
        ("train --teacher t --cache c --data d --output o --epochs 0", "at least 1"),
        ("cache --teacher t --data d --output o --device gpu", "auto, cpu or cuda:N"),
        ("evaluate --model m --data d --max-length 2", "at least 3"),
        ("evaluate --model m", "--data"),
        ("evaluate --model m --data d --colour", "--colour"),
        ("distil", "distil"),
    ] {
        let done = place.run(line);
        assert_eq!(done.code, Some(2), "`{line}`: {}", done.stderr);
        assert_eq!(done.stdout, "");
        assert!(done.stderr.starts_with("error: ") && done.stderr.contains(expected), "`{line}`: {}", done.stderr);
    }
}

#[test]
fn a_stdout_that_nobody_reads() {
    let place = Workplace::new();
    let evaluate = "$DISTILL evaluate --model teacher --data test.tsv --json";
    let full = place.shell(&format!("{evaluate} > /dev/full"));
    assert!(full.failure().contains("cannot write to stdout"));
    // Whoever closes the pipe has seen enough.
    let closed = place.shell(&format!("({evaluate}; echo $? > code) | true; cat code"));
    assert_eq!((closed.stdout.as_str(), closed.stderr.contains("error")), ("0\n", false));
}

#[test]
fn class_names_that_are_not_as_many_as_the_head_has_are_counted() {
    let place = Workplace::new();
    place.edit_json("teacher/config.json", |config| {
        config["id2label"].as_object_mut().expect("an object").remove("3");
    });
    let expected = ["teacher/config.json", "names 3 classes (`id2label`)", "the weights have 4"];
    place.refuses("evaluate --model teacher --data test.tsv", &expected);
}
