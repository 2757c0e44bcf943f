//! The whole job, command by command: what each prints with `--json`, and what it leaves on the disk.

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{CACHE, CLASSES, TRAIN, Workplace, keys, rows};

/// The files of a trained model, beside those that tell of its training.
const MODEL: [&str; 6] = [
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
];

/// `MODEL` and these, sorted.
fn model_and<const N: usize>(others: [&'static str; N]) -> Vec<&'static str> {
    let mut names: Vec<_> = MODEL.into_iter().chain(others).collect();
    names.sort_unstable();
    names
}

/// A workplace with `cache` and a trained `student`.
fn with_student() -> Workplace {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output student"));
    place
}

/// The shared keys that scripts rely on, which must come in this order.
fn has_pinned_keys(report: &Value, pinned: &[&str]) {
    assert_eq!(report["schema_version"], 2);
    assert_eq!(keys(report)[0], "schema_version");
    let found: Vec<_> = keys(report).into_iter().filter(|key| pinned.contains(key)).collect();
    assert_eq!(found, pinned, "in {report}");
}

const FIGURES: [&str; 9] =
    ["accuracy", "macro_f1", "agreement", "ece", "parameters", "bytes", "rows_per_second", "seconds", "output"];

#[test]
fn cache_prints_its_counts() {
    let place = Workplace::new();
    let report = place.json(CACHE);
    has_pinned_keys(&report, &["rows", "unique", "forwarded", "skipped", "truncated", "bytes"]);
    let mut files = place.files("cache");
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let [index, shard] = ["index-00000.safetensors", "shard-00000.safetensors"];
    assert_eq!(names, [".lock", index, "manifest.json", shard, "tokenizer.json"]);
    files.remove("manifest.json");
    assert_eq!(report["bytes"], files.values().map(Vec::len).sum::<usize>());
}

#[test]
fn train_prints_its_figures_and_leaves_a_model() {
    let place = Workplace::with_cache();
    let report = place.json(&format!("{TRAIN} --output student"));
    has_pinned_keys(&report, &FIGURES);
    assert_eq!(report["output"], "student");
    assert_eq!(report["bytes"], place.read_bytes("student/model.safetensors").len());
    assert!(["accuracy", "macro_f1", "agreement", "ece"].iter().all(|key| report[*key].is_f64()), "{report}");
    assert_eq!(place.names("student"), model_and(["distill.json", "metrics.jsonl"]));
}

#[test]
fn every_file_of_a_run_has_its_schema_version() {
    let place = with_student();
    assert_eq!(place.read_json("cache/manifest.json")["schema_version"], 2);
    assert_eq!(place.read_json("student/distill.json")["schema_version"], 2);
    let metrics = place.read("student/metrics.jsonl");
    let events: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(events.iter().all(|event| event["schema_version"] == 2), "{metrics}");
    let kinds: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(kinds, ["gradient", "gradient", "gradient", "step", "evaluation"]);
}

#[test]
fn a_record_of_the_first_version_is_read_without_its_macro_f1() {
    let place = with_student();
    place.edit_json("student/distill.json", |record| record["schema_version"] = json!(1));
    let kept = place.json(&format!("{TRAIN} --output student --resume"));
    assert!(kept["accuracy"].is_f64() && kept["macro_f1"].is_null(), "{kept}");
    place.json("export --model student --output export");
    let card = place.read("export/README.md");
    assert!(card.contains("| accuracy |") && !card.contains("macro-F1"), "it was over other classes: {card}");
    place.edit_json("student/distill.json", |record| record["schema_version"] = json!(3));
    place.refuses("export --model student --output other", &["schema_version is 3, this build reads 2"]);
}

#[test]
fn finetune_prints_its_figures_and_leaves_a_teacher() {
    let place = Workplace::new();
    let report = place.json("finetune --model teacher --data train.tsv --epochs 1 --output tuned");
    has_pinned_keys(&report, &FIGURES);
    assert_eq!(report["agreement"], Value::Null, "there is no teacher to agree with");
    assert_eq!(place.names("tuned"), model_and(["distill.json", "metrics.jsonl"]));
    place.json(&CACHE.replace("--teacher teacher", "--teacher tuned"));
}

#[test]
fn evaluate_prints_its_figures() {
    let place = with_student();
    let report = place.json("evaluate --model student --teacher teacher --data test.tsv");
    has_pinned_keys(&report, &FIGURES);
    assert_eq!(report["bytes"], place.read_bytes("student/model.safetensors").len());
    assert_eq!(report["output"], Value::Null, "nothing is written");
    let alone = place.json("evaluate --model student --data test.tsv");
    assert_eq!((&alone["accuracy"], &alone["agreement"]), (&report["accuracy"], &Value::Null));
}

#[test]
fn the_teacher_is_as_good_as_it_was_in_python() {
    let place = Workplace::new();
    let report = place.json("evaluate --model teacher --teacher teacher --data test.tsv");
    let figures = crate::support::repository().join("tests/fixtures/e2e/e2e.json");
    let python: Value = serde_json::from_slice(&std::fs::read(figures).expect("reads")).expect("JSON");
    assert_eq!(report["accuracy"], python["test_accuracy"]);
    assert_eq!(report["parameters"], python["parameters"]);
    assert_eq!(report["agreement"], 1.0);
}

#[test]
fn a_student_learns_from_its_teacher() {
    let place = Workplace::with_cache();
    let line = format!("{TRAIN} --output student --learning-rate 2e-3").replace("--epochs 1", "--epochs 3");
    place.json(&line);
    let report = place.json("evaluate --model student --teacher teacher --data test.tsv");
    assert!(report["accuracy"].as_f64() > Some(0.9) && report["agreement"].as_f64() > Some(0.9), "{report}");
}

#[test]
fn without_json_a_command_prints_a_table() {
    let place = with_student();
    let done = place.run("evaluate --model student --data test.tsv");
    done.succeeded();
    assert!(done.stdout.contains("accuracy") && !done.stdout.contains('{'), "{}", done.stdout);
    assert!(done.stderr.contains("evaluate: 200 rows"), "progress goes to stderr: {}", done.stderr);
}

/// The texts of the fixture's test rows, one a line, in `texts.txt`.
fn with_texts(place: &Workplace) -> String {
    let lines: String = rows(&place.read("test.tsv")).iter().map(|(text, _)| format!("{text}\n")).collect();
    place.write("texts.txt", &lines);
    lines
}

fn predictions(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

fn logits(prediction: &Value) -> Vec<f64> {
    let logits = prediction["logits"].as_array().expect("a list");
    logits.iter().map(|logit| logit.as_f64().expect("a number")).collect()
}

#[test]
fn predict_gives_an_object_a_line() {
    let place = Workplace::new();
    with_texts(&place);
    let done = place.run("predict --model teacher --json texts.txt");
    done.succeeded();
    let predictions = predictions(&done.stdout);
    assert_eq!(predictions.len(), 200);
    for prediction in &predictions {
        assert_eq!(keys(prediction), ["schema_version", "text", "label", "probability", "probabilities"]);
        assert_eq!(keys(&prediction["probabilities"]), CLASSES);
        let probabilities = prediction["probabilities"].as_object().expect("an object").values();
        let sum: f64 = probabilities.map(|probability| probability.as_f64().expect("a number")).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{prediction}");
        let label = prediction["label"].as_str().expect("a name");
        assert_eq!(prediction["probabilities"][label], prediction["probability"]);
    }
    let right =
        predictions.iter().zip(rows(&place.read("test.tsv"))).filter(|(ours, (_, label))| ours["label"] == **label);
    assert_eq!(right.count(), 193, "as many as the teacher has right in Python: 0.965 of 200");
}

#[test]
fn predicted_logits_are_those_of_pytorch() {
    let place = Workplace::new();
    with_texts(&place);
    let done = place.run("predict --model teacher --json --logits --precision f32 texts.txt");
    done.succeeded();
    let file = crate::support::repository().join("tests/fixtures/e2e/test_logits.safetensors");
    let bytes = std::fs::read(file).expect("reads");
    let tensors = SafeTensors::deserialize(&bytes).expect("readable");
    let expected = tensors.tensor("logits").expect("is there").data().chunks_exact(4);
    let expected = expected.map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().expect("4 bytes"))));
    let ours: Vec<f64> = predictions(&done.stdout).iter().flat_map(logits).collect();
    assert_eq!(ours.len(), 800);
    let largest = ours.iter().zip(expected).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max);
    // Measured: 1.2e-6, where PyTorch's own f32 is 6e-7 from its f64.
    assert!(largest <= 3.6e-6, "the largest difference is {largest:e}");
}

#[test]
fn predict_reads_stdin() {
    let place = Workplace::new();
    let texts = with_texts(&place);
    let from_file = place.run("predict --model teacher --json --logits texts.txt");
    let from_stdin = place.run_with_input("predict --model teacher --json --logits", &texts);
    assert_eq!(from_stdin.stdout, from_file.stdout);
    let plain = place.run_with_input("predict --model teacher", "when does the train to the coast leave\n");
    assert!(plain.stdout.starts_with("station\t0."), "{}", plain.stdout);
}

#[test]
fn predict_refuses_what_it_cannot_read() {
    let place = Workplace::new();
    place.refuses("predict --model teacher nowhere.txt", &["nowhere.txt"]);
    place.refuses("predict --model nowhere texts.txt", &["nowhere"]);
    place.write("latin1.txt", b"caf\xe9\n");
    place.refuses("predict --model teacher latin1.txt", &["latin1.txt", "line 1", "UTF-8"]);
}

#[test]
fn predict_reads_the_column_of_a_table() {
    let place = Workplace::new();
    with_texts(&place);
    let lines = place.run("predict --model teacher --json --logits texts.txt").stdout;
    let fixture = rows(&place.read("test.tsv"));
    let csv = fixture.iter().map(|(text, label)| format!("{label},\"{text}\"\n"));
    place.write("test.csv", std::iter::once("label,words\n".to_owned()).chain(csv).collect::<String>());
    let jsonl = fixture.iter().map(|(text, label)| format!("{}\n", json!({"labels": [label], "words": text})));
    place.write("test.jsonl", jsonl.collect::<String>());
    for table in ["test.tsv", "test.csv", "test.jsonl"] {
        place.refuses(&format!("predict --model teacher {table}"), &[table, "a table", "--text-column"]);
        let column = if table == "test.tsv" { "text" } else { "words" };
        let done = place.run(&format!("predict --model teacher --json --logits --text-column {column} {table}"));
        done.succeeded();
        assert_eq!(done.stdout, lines, "{table}");
    }
    place.refuses("predict --model teacher --text-column text test.csv", &["no column `text`", "`words`"]);

    let pairs = fixture.iter().map(|(text, _)| format!("{text}\tplease\n"));
    place.write("pairs.tsv", std::iter::once("words\tmore\n".to_owned()).chain(pairs).collect::<String>());
    let predict = "predict --model teacher --json --logits --text-column words";
    let (alone, pairs) = (format!("{predict} pairs.tsv"), format!("{predict} --pair-column more pairs.tsv"));
    assert_eq!(place.run(&alone).stdout, lines);
    let pairs = place.run(&pairs).stdout;
    assert!(pairs.lines().zip(lines.lines()).all(|(pair, text)| pair != text), "{pairs}");
    assert_eq!(pairs.lines().count(), fixture.len());
}

#[test]
fn export_leaves_a_folder_for_transformers() {
    let place = with_student();
    let report = place.json("export --model student --data test.tsv --output export");
    assert_eq!((&report["schema_version"], &report["output"]), (&json!(2), &json!("export")));
    assert_eq!(report["bytes"], place.read_bytes("export/model.safetensors").len());
    assert_eq!(place.names("export"), model_and(["README.md", "distill.json"]));
    let bytes = place.read_bytes("export/model.safetensors");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("readable");
    let metadata = header.metadata().clone().expect("metadata");
    assert_eq!(metadata.into_iter().collect::<Vec<_>>(), [("format".to_owned(), "pt".to_owned())]);
    let config = place.read_json("export/config.json");
    assert_eq!(config["id2label"], json!({"0": "bakery", "1": "library", "2": "station", "3": "garden"}));
    assert_eq!(config["architectures"], json!(["DistilBertForSequenceClassification"]));
    assert_eq!(place.read_json("export/distill.json")["schema_version"], 2);
    let measured = place.json("evaluate --model export --data test.tsv");
    let accuracy = measured["accuracy"].as_f64().expect("a number");
    let card = place.read("export/README.md");
    assert!(card.contains(&format!("{accuracy:.3}")), "no {accuracy} on the card: {card}");
}

#[test]
fn exported_logits_are_the_runs_own() {
    let place = with_student();
    with_texts(&place);
    let run = place.run("predict --model student --json --logits texts.txt").stdout;
    for (dtype, bytes_a_weight, within) in [("f32", 4, 0.0), ("f16", 2, 2e-3), ("bf16", 2, 2e-2)] {
        let report = place.json(&format!("export --model student --dtype {dtype} --output {dtype}"));
        let parameters = report["parameters"].as_u64().expect("a count");
        let excess = report["bytes"].as_u64().expect("a count") - parameters * bytes_a_weight;
        assert!(excess < 10_000, "{dtype}: {excess} bytes beside the weights");
        let export = place.run(&format!("predict --model {dtype} --json --logits texts.txt")).stdout;
        let flat = |stdout: &str| predictions(stdout).iter().flat_map(logits).collect::<Vec<f64>>();
        let largest = flat(&run).iter().zip(flat(&export)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest <= within, "{dtype}: {largest:e}");
    }
}

#[test]
fn an_export_is_the_same_twice() {
    let place = with_student();
    place.json("export --model student --data test.tsv --output first");
    place.json("export --model student --data test.tsv --output second --threads 1");
    assert!(place.files("first") == place.files("second"));
}

#[test]
fn export_refuses_to_replace_anything() {
    let place = with_student();
    std::fs::create_dir(place.path("export")).expect("a folder");
    place.write("export/notes.txt", "mine");
    place.refuses("export --model student --output export", &["export is not empty", "notes.txt", "--overwrite"]);
    place.json("export --model student --output export --overwrite");
    assert_eq!(place.read("export/notes.txt"), "mine");
    let student = place.files("student");
    place.refuses("export --model student --output student --overwrite", &["student"]);
    assert!(place.files("student") == student);
    place.refuses("export --model nowhere --output other", &["nowhere: no such folder"]);
}
