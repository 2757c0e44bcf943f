//! The cache is keyed by what the teacher reads, never by where a row stands, and belongs to one teacher alone.

use serde_json::{Value, json};

use crate::support::{CACHE, CLASSES, TRAIN, Workplace, keys, rows, tsv};

/// `rows`, `unique`, `forwarded` and `skipped` of caching a file.
fn counts(place: &Workplace, data: &str) -> [u64; 4] {
    let report = place.json(&format!("cache --teacher teacher --data {data} --output cache"));
    ["rows", "unique", "forwarded", "skipped"].map(|key| report[key].as_u64().expect("a count"))
}

#[test]
fn every_row_is_forwarded_once() {
    let place = Workplace::new();
    assert_eq!(counts(&place, "train.tsv"), [600, 600, 600, 0]);
    let files = place.files("cache");
    assert_eq!(counts(&place, "train.tsv"), [600, 600, 0, 600]);
    assert_eq!(place.files("cache"), files);
}

#[test]
fn rows_that_come_later_are_the_only_ones_forwarded() {
    let place = Workplace::new();
    let rows = rows(&place.read("train.tsv"));
    place.write("some.tsv", tsv(&rows[..250]));
    assert_eq!(counts(&place, "some.tsv"), [250, 250, 250, 0]);
    assert_eq!(counts(&place, "train.tsv"), [600, 600, 350, 250]);
    assert_eq!(counts(&place, "test.tsv"), [200, 200, 200, 0]);
    place.json(&format!("{TRAIN} --output student"));
}

#[test]
fn equal_texts_are_forwarded_once() {
    let place = Workplace::new();
    let mut rows = rows(&place.read("train.tsv"));
    rows.extend_from_within(..);
    rows.extend_from_within(..50);
    place.write("repeated.tsv", tsv(&rows));
    assert_eq!(counts(&place, "repeated.tsv"), [1250, 600, 600, 0]);
}

#[test]
fn a_shuffled_file_finds_the_same_rows() {
    let place = Workplace::with_cache();
    let mut rows = rows(&place.read("train.tsv"));
    rows.sort_by_key(|(text, _)| text.chars().rev().collect::<String>());
    place.write("shuffled.tsv", tsv(&rows));
    assert_eq!(counts(&place, "shuffled.tsv"), [600, 600, 0, 600]);
    // Had a row met another row's logits, the teacher would look like chance.
    place.json(&format!("{TRAIN} --output student").replace("train.tsv", "shuffled.tsv"));
}

#[test]
fn texts_that_the_teacher_reads_alike_share_a_row() {
    let place = Workplace::with_cache();
    let shouted: Vec<_> = rows(&place.read("train.tsv"))
        .into_iter()
        .map(|(text, label)| (format!("  {}", text.to_uppercase()), label))
        .collect();
    place.write("shouted.tsv", tsv(&shouted));
    assert_eq!(counts(&place, "shouted.tsv"), [600, 600, 0, 600]);
}

#[test]
fn the_manifest_says_whose_cache_it_is() {
    let place = Workplace::with_cache();
    let manifest = place.read_json("cache/manifest.json");
    assert_eq!(manifest["schema_version"], 2);
    assert_eq!(manifest["fingerprint"]["labels"], json!(CLASSES));
    assert_eq!(manifest["fingerprint"]["max_length"], 64);
    assert_eq!(
        keys(&manifest["fingerprint"]),
        [
            "teacher",
            "head",
            "config",
            "tokenizer",
            "labels",
            "max_length",
            "preprocessing",
            "task",
            "precision",
            "captured"
        ]
    );
}

/// The cache of one teacher, asked for by `cache` and by `train` with another that differs in `field`.
fn refuses_another(field: &str, edit: impl FnOnce(&Workplace), flags: &str) {
    let place = Workplace::with_cache();
    edit(&place);
    let files = place.files("cache");
    let expected = ["cache: this cache was made otherwise", &format!("its {field} is "), "another folder"];
    place.refuses(&format!("{CACHE} {flags}"), &expected);
    place.refuses(&format!("{TRAIN} --output student {flags}"), &expected);
    assert_eq!(place.files("cache"), files);
    assert!(!place.path("student").exists());
}

#[test]
fn a_cache_refuses_another_teacher() {
    let flip = |place: &Workplace, name: &str| place.edit_tensor(name, |bytes| bytes[0] ^= 1);
    refuses_another("teacher", |place| flip(place, "bert.encoder.layer.0.output.dense.weight"), "");
    // The rows that make the logits are held one by one, so that classes may change places.
    refuses_another("head", |place| flip(place, "classifier.weight"), "");
    refuses_another("head", |place| flip(place, "classifier.bias"), "");
}

/// `train` takes whatever form the answers are stored in; `cache` does not mix two.
#[test]
fn a_cache_refuses_another_form() {
    let place = Workplace::with_cache();
    let files = place.files("cache");
    for flags in ["--dtype f16", "--top-k 2", "--sample 4", "--hidden-states 1"] {
        place
            .refuses(&format!("{CACHE} {flags}"), &["cache: this cache was made otherwise: its captured", "--refresh"]);
    }
    assert!(place.files("cache") == files);
}

#[test]
fn a_cache_refuses_another_configuration() {
    let edit = |config: &mut Value| config["layer_norm_eps"] = json!(1e-5);
    refuses_another("config", |place| place.edit_json("teacher/config.json", edit), "");
}

#[test]
fn a_cache_refuses_another_tokenizer() {
    let edit = |config: &mut Value| config["do_lower_case"] = json!(false);
    refuses_another("tokenizer", |place| place.edit_json("teacher/tokenizer_config.json", edit), "");
}

#[test]
fn a_cache_refuses_another_order_of_labels() {
    let edit = |config: &mut Value| {
        config["id2label"] = json!({"0": "library", "1": "bakery", "2": "station", "3": "garden"});
        config["label2id"] = json!({"library": 0, "bakery": 1, "station": 2, "garden": 3});
    };
    refuses_another("labels", |place| place.edit_json("teacher/config.json", edit), "");
}

#[test]
fn a_cache_refuses_another_length() {
    refuses_another("max_length", |_| (), "--max-length 32");
}

#[test]
fn a_moved_or_renamed_teacher_is_still_the_same() {
    let place = Workplace::with_cache();
    place.copy("teacher", "elsewhere");
    let report = place.json(&CACHE.replace("--teacher teacher", "--teacher elsewhere"));
    assert_eq!(report["skipped"], 600);
}

#[test]
fn rows_that_are_not_cached_are_counted() {
    let place = Workplace::with_cache();
    let mut rows = rows(&place.read("train.tsv"));
    rows.push(("a sentence that nobody cached".to_owned(), "garden".to_owned()));
    rows.push(("and a second one".to_owned(), "garden".to_owned()));
    place.write("more.tsv", tsv(&rows));
    let line = format!("{TRAIN} --validation test.tsv --output student").replace("train.tsv", "more.tsv");
    place.refuses(&line, &["2 of 602 training rows are not in the cache", "hint: run distill cache"]);
    assert!(!place.path("student").exists());
}

#[test]
fn a_soft_term_without_a_cache_is_refused_with_the_way_out() {
    let place = Workplace::new();
    let line = format!("{TRAIN} --output student").replace("--cache cache", "");
    place.refuses(&line, &["no --cache is given", "distill cache", "--weight-soft 0"]);
    place.json(&format!("{line} --weight-soft 0"));
}

#[test]
fn a_folder_that_is_no_cache_is_refused() {
    let place = Workplace::new();
    let train = format!("{TRAIN} --output student");
    place.refuses(&train, &["cache: no such folder", "distill cache"]);
    place.refuses(&train.replace("--cache cache", "--cache teacher"), &["teacher: no cache", "manifest.json"]);
    place.refuses(&CACHE.replace("--output cache", "--output teacher"), &["teacher: no cache", "config.json"]);
}

#[test]
fn a_damaged_shard_is_refused() {
    let place = Workplace::with_cache();
    let mut shard = place.read_bytes("cache/shard-00000.safetensors");
    let middle = shard.len() / 2;
    shard[middle] ^= 1;
    place.write("cache/shard-00000.safetensors", shard);
    place.refuses(&format!("{TRAIN} --output student"), &["shard-00000.safetensors"]);
    place.json(&format!("{CACHE} --overwrite"));
    place.json(&format!("{TRAIN} --output student"));
}

#[test]
fn overwriting_a_cache_keeps_what_is_not_its_own() {
    let place = Workplace::with_cache();
    place.write("cache/notes.txt", "mine");
    let report = place.json(&CACHE.replace("train.tsv", "test.tsv"));
    assert_eq!(report["forwarded"], 200, "a cache that matches goes on, whatever else lies there");
    let message = place.refusal(&format!("{CACHE} --overwrite"));
    assert!(message.contains("notes.txt"), "{message}");
    assert_eq!(place.read("cache/notes.txt"), "mine");
    assert_eq!(place.json(&CACHE.replace("train.tsv", "test.tsv"))["forwarded"], 0, "the cache is still there");
}

#[test]
fn a_teacher_no_better_than_chance_is_refused() {
    let place = Workplace::new();
    let next = |label: &str| CLASSES[(CLASSES.iter().position(|class| *class == label).expect("known") + 1) % 4];
    let wrong: Vec<_> =
        rows(&place.read("train.tsv")).into_iter().map(|(text, label)| (text, next(&label).to_owned())).collect();
    place.write("wrong.tsv", tsv(&wrong));
    let chance = "no better than chance";
    let cache = CACHE.replace("train.tsv", "wrong.tsv");
    place.refuses(&cache, &[chance, "512 labelled rows", "--force"]);
    // A sample told it: nothing was captured, and what was there before stays.
    assert!(!place.path("cache/manifest.json").exists());
    place.json(CACHE);
    let before = place.files("cache");
    for line in [cache.clone(), format!("{cache} --refresh"), format!("{cache} --overwrite")] {
        place.refuses(&line, &[chance]);
        assert!(place.files("cache") == before, "{line}");
    }
    assert_eq!(place.json(&format!("{cache} --force"))["forwarded"], 0);
    let train = format!("{TRAIN} --output student").replace("train.tsv", "wrong.tsv");
    place.refuses(&train, &[chance, "--force"]);
    place.json(&format!("{train} --force"));
}
