//! `distill bench` on tiny shapes: what it prints and that its figures fit together. How fast anything is, no test says.

use serde_json::{Value, json};

use crate::support::Workplace;

/// A model that takes no time, and no more repeats than a median needs.
const TINY: &str = "--layers 2 --hidden-size 8 --heads 2 --intermediate-size 16 --vocab-size 50 --labels 3 \
                    --batch-rows 4 --length 5 --repeats 3 --threads 2";

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Asserts that a figure is what the others make it, up to the last bits of a product in another order.
fn equal(found: &Value, expected: f64) {
    let found = number(found);
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} is not {expected}");
}

/// What holds between the figures of every report.
fn fits_together(report: &Value) {
    let data = &report["data"];
    let gemm = number(&report["gemm"]["flops_per_second"]);
    assert!(gemm > 0.0);
    for case in report["cases"].as_array().expect("a list") {
        let mut seconds: Vec<f64> = case["seconds"].as_array().expect("a list").iter().map(number).collect();
        assert_eq!(seconds.len(), 3, "one a repeat");
        seconds.sort_by(f64::total_cmp);
        let median = seconds[1];
        equal(&case["median_seconds"], median);
        assert!((number(&case["spread"]) - (seconds[2] - seconds[0]) / median).abs() < 1e-9);
        equal(&case["samples_per_second"], number(&data["rows"]) / median);
        equal(&case["tokens_per_second"], number(&data["tokens"]) / median);
        equal(&case["flops_per_second"], number(&case["flops"]) / median);
        equal(&case["conventional_flops_per_second"], number(&case["conventional_flops"]) / median);
        equal(&case["gemm_share"], number(&case["flops"]) / median / gemm);
        assert!(case["peak_memory_bytes"].is_null() || case["peak_memory_bytes"].as_u64() > Some(1_000_000));
        assert!(report["process_peak_memory_bytes"].as_u64() >= case["peak_memory_bytes"].as_u64());
    }
}

/// The conventional count: two operations for each multiply and add, every token in every layer.
fn conventional(rows: u64, length: u64) -> u64 {
    let (hidden, intermediate, labels, layers) = (8, 16, 3, 2);
    let linear = 2 * rows * length * (4 * hidden * hidden + 2 * hidden * intermediate);
    let attention = 4 * hidden * rows * length * length;
    layers * (linear + attention) + 2 * rows * (hidden * hidden + hidden * labels)
}

/// What is really done forward: the last layer makes keys and values of all tokens, everything else of one a row.
fn done(rows: u64, length: u64) -> [u64; 2] {
    let (hidden, intermediate, labels) = (8, 16, 3);
    let tokens = rows * length;
    let first = 2 * tokens * (4 * hidden * hidden + 2 * hidden * intermediate);
    let last = 4 * tokens * hidden * hidden + 2 * rows * (2 * hidden * hidden + 2 * hidden * intermediate);
    let head = 2 * rows * (hidden * hidden + hidden * labels);
    [first + last + head, 4 * hidden * rows * length * length + 4 * hidden * tokens]
}

#[test]
fn settings_of_a_training_are_timed_and_reported() {
    let place = Workplace::new();
    let plain = place.json(&format!("bench train {TINY}"));
    assert_eq!(plain["settings"], json!({ "recompute": false, "ema_decay": null }));
    let other = place.json(&format!("bench train {TINY} --recompute --ema-decay 0.99"));
    fits_together(&other);
    assert_eq!(other["settings"], json!({ "recompute": true, "ema_decay": 0.99 }));
    assert!(number(&other["cases"][0]["loss"]).is_finite());
    let done = place.run(&format!("bench capture {TINY} --recompute"));
    assert_eq!(done.code, Some(2), "of a training alone");
}

#[test]
fn train_prints_figures_that_fit_together() {
    let report = Workplace::new().json(&format!("bench train {TINY}"));
    assert_eq!(
        keys(&report),
        [
            "schema_version",
            "bench",
            "device",
            "precision",
            "autotune",
            "threads",
            "seed",
            "data",
            "gemm",
            "settings",
            "cases",
            "process_peak_memory_bytes"
        ]
    );
    assert_eq!((&report["bench"], &report["device"], &report["threads"]), (&json!("train"), &json!("cpu"), &json!(2)));
    let data = json!({"source": null, "rows": 4, "tokens": 20, "truncated": 0, "batch_rows": 4, "batch_tokens": 4096});
    assert_eq!(report["data"], data);
    let [case] = report["cases"].as_array().expect("a list").as_slice() else { panic!("{report}") };
    assert_eq!(
        keys(case),
        [
            "vocabulary",
            "model_type",
            "layers",
            "hidden_size",
            "heads",
            "intermediate_size",
            "vocab_size",
            "labels",
            "parameters",
            "weights",
            "passes_per_repeat",
            "seconds",
            "median_seconds",
            "spread",
            "steps",
            "samples_per_second",
            "tokens_per_second",
            "flops",
            "conventional_flops",
            "flops_per_second",
            "conventional_flops_per_second",
            "gemm_share",
            "peak_memory_bytes",
            "loss"
        ]
    );
    assert_eq!((&case["vocabulary"], &case["model_type"]), (&json!("full"), &json!("distilbert")));
    assert_eq!((&case["weights"], &case["steps"]), (&json!("random"), &json!(1)));
    assert_eq!(case["conventional_flops"], 3 * conventional(4, 5));
    // Twice the linear maps backward; attention's two products become five.
    let [linear, attention] = done(4, 5);
    assert_eq!(case["flops"], 3 * linear + attention / 2 * 7);
    assert!(number(&case["loss"]) > 0.0, "a loss that training knows: {case}");
    fits_together(&report);
}

#[test]
fn capture_prints_figures_that_fit_together() {
    let report = Workplace::new().json(&format!("bench capture {TINY}"));
    let case = &report["cases"][0];
    assert_eq!((&report["bench"], &case["model_type"]), (&json!("capture"), &json!("bert")));
    assert_eq!((&report["data"]["batch_rows"], &case["loss"]), (&Value::Null, &Value::Null));
    assert_eq!(case["conventional_flops"], conventional(4, 5));
    assert_eq!(case["flops"], done(4, 5).iter().sum::<u64>());
    fits_together(&report);
}

#[test]
fn gemm_prints_the_ceiling() {
    let report = Workplace::new().json("bench gemm --hidden-size 8 --threads 2");
    assert_eq!((&report["bench"], &report["threads"]), (&json!("gemm"), &json!(2)));
    assert_eq!((&report["hidden_size"], &report["intermediate_size"]), (&json!(8), &json!(32)));
    let least = report["seconds"].as_array().expect("a list").iter().map(number).fold(f64::INFINITY, f64::min);
    equal(&report["flops_per_second"], (2 * 2 * 256 * (4 * 8 * 8 + 2 * 8 * 32)) as f64 / least);
}

#[test]
fn real_rows_are_a_models_own() {
    let place = Workplace::new();
    let report = place.json("bench capture --model teacher --data test.tsv --limit 50 --repeats 3");
    let case = &report["cases"][0];
    assert_eq!((&report["data"]["source"], &report["data"]["rows"]), (&json!("test.tsv"), &json!(50)));
    assert_eq!((&case["weights"], &case["labels"]), (&json!("model"), &json!(4)));
    fits_together(&report);
}

#[test]
fn captures_are_timed_with_and_without_writing() {
    let place = Workplace::new();
    let line = "bench capture --model teacher --data test.tsv --limit 50 --repeats 3 --output made";
    for (form, bytes) in [("", 50 * 4 * 4), (" --dtype f16 --top-k 2 --hidden-states 1,2", 50 * (2 * (2 + 2) + 3 * 4))]
    {
        let report = place.json(&format!("{line}{form}"));
        let writing = &report["writing"];
        assert!(writing["bytes"].as_u64() > Some(bytes), "{writing}");
        let [dropped, written] =
            ["dropped", "written"].map(|name| writing[name]["seconds"].as_array().expect("a list"));
        let pairs = dropped.iter().zip(written).map(|(dropped, written)| number(written) / number(dropped) - 1.0);
        let mut pairs: Vec<f64> = pairs.collect();
        assert_eq!(pairs, writing["of_pairs"].as_array().expect("a list").iter().map(number).collect::<Vec<f64>>());
        pairs.sort_by(f64::total_cmp);
        assert_eq!((pairs.len(), number(&writing["overhead"])), (3, pairs[1]));
        assert_eq!(std::fs::read_dir(place.path("made")).expect("a folder").count(), 0, "removed");
        fits_together(&report);
    }
    place.refuses(&format!("{line} --hidden-states 9"), &["--hidden-states 9"]);
}

#[test]
fn a_pruned_vocabulary_stands_beside_the_full_one() {
    let place = Workplace::new();
    // Sizes and tokenizer are all that training steps need of a model.
    std::fs::remove_file(place.path("teacher/model.safetensors")).expect("removes");
    let line = "bench train --model teacher --layers 1 --data train.tsv --limit 64 --prune-vocabulary --repeats 3";
    let report = place.json(line);
    let [full, pruned] = report["cases"].as_array().expect("a list").as_slice() else { panic!("{report}") };
    assert_eq!((&full["vocabulary"], &pruned["vocabulary"]), (&json!("full"), &json!("pruned")));
    assert!(number(&pruned["vocab_size"]) < number(&full["vocab_size"]), "{report}");
    assert!(number(&pruned["parameters"]) < number(&full["parameters"]), "{report}");
    assert_eq!((&full["flops"], &full["steps"]), (&pruned["flops"], &pruned["steps"]), "the same work");
    assert_eq!(full["steps"], 2);
    fits_together(&report);
}

#[test]
fn cache_prints_figures_that_fit_together() {
    let place = Workplace::new();
    let line = "bench cache --rows 3000 --labels 5 --threads 2 --output made";
    let report = place.json(&format!("{line} --commit-rows 700"));
    assert_eq!((&report["bench"], &report["threads"]), (&json!("cache"), &json!(2)));
    let writing = &report["writing"];
    let parts = ["push_seconds", "commit_seconds", "finish_seconds"].map(|part| number(&writing[part]));
    equal(&writing["seconds"], parts.iter().sum());
    equal(&writing["rows_per_second"], 3000.0 / number(&writing["seconds"]));
    let sizes: Vec<u64> = std::fs::read_dir(place.path("made"))
        .expect("a folder")
        .map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len())
        .collect();
    let files = json!({
        "files": sizes.len(), "bytes": sizes.iter().sum::<u64>(), "payload_bytes": 30_000, "allowed_bytes": 34_500 + 72_000,
    });
    assert_eq!(report["files"], files);
    let passes = report["reading"]["passes"].as_array().expect("a list");
    let ways: Vec<[&Value; 3]> =
        passes.iter().map(|pass| ["threads", "first", "at_once"].map(|name| &pass[name])).collect();
    let expected = [(1, true, false), (1, false, false), (1, false, true), (2, false, true)];
    let expected = expected.map(|(threads, first, at_once)| [json!(threads), json!(first), json!(at_once)]);
    assert!(ways.into_iter().flatten().eq(expected.iter().flatten()), "{report}");
    assert!(passes.iter().all(|pass| number(&pass["rows_per_second"]) > 0.0), "{report}");

    let again = place.json(&format!("{line} --reuse"));
    assert_eq!((&again["writing"], &again["files"]), (&Value::Null, &files));
    place.refuses(line, &["made", "--reuse"]);
    place.refuses("bench cache --rows 2999 --labels 5 --output made --reuse", &["made", "3000 rows"]);
    place.refuses("bench cache --rows 3000 --labels 5 --output made --reuse --seed 1", &["seed 42", "seed 1"]);
}

#[test]
fn a_cache_without_a_folder_leaves_none() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("temporary")).expect("a folder");
    let mut command = place.command("bench cache --rows 100 --dtype f32");
    let done = command.env("TMPDIR", place.path("temporary")).output().expect("runs");
    assert!(done.status.success());
    assert!(String::from_utf8_lossy(&done.stdout).contains("4 labels in 32 bits"));
    assert_eq!(std::fs::read_dir(place.path("temporary")).expect("a folder").count(), 0);
}

#[test]
fn without_json_it_prints_a_table() {
    let done = Workplace::new().run(&format!("bench train {TINY}"));
    done.succeeded();
    for expected in ["samples a second", "share of these", "peak memory", "distilbert 2x8, 2 heads, cpu f32, 2 threads"]
    {
        assert!(done.stdout.contains(expected), "no `{expected}` in {}", done.stdout);
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let place = Workplace::new();
    place.refuses("bench train --length 513", &["--length 513", "at most 512"]);
    place.refuses("bench train --hidden-size 100", &["--hidden-size 100", "--heads"]);
    place.refuses("bench train --model teacher --data test.tsv --labels 2", &["--labels 2", "4 classes"]);
    place.refuses("bench train --model teacher --data test.tsv --vocab-size 5", &["--vocab-size 5", "tokens"]);
    place.refuses("bench capture --model nowhere", &["nowhere"]);
    place.refuses("bench train --device cuda:0", &["cuda:0"]);
    for line in [
        "bench",
        "bench train --data test.tsv",
        "bench train --prune-vocabulary",
        "bench gemm --repeats 1",
        "bench cache --reuse",
        "bench capture --output made",
    ] {
        assert_eq!(place.run(line).code, Some(2), "{line}");
    }
}
