//! `distill data`: what a data file holds.

use serde_json::json;

use crate::support::Workplace;

const TRAIN: &str = "{\"id\":1,\"text\":\"when does the library open\",\"label\":\"library\"}\n\
                     {\"id\":2,\"text\":\"a loaf of bread please\",\"label\":\"bakery\"}\n\
                     {\"id\":3,\"text\":\"when does the library open\",\"label\":\"garden\"}\n\
                     {\"id\":4,\"text\":\"when does the train to the city leave\",\"label\":null}\n";

#[test]
fn inspect_counts_labels_lengths_repeats_and_shared_rows() {
    let place = Workplace::new();
    place.write("train.jsonl", TRAIN);
    place.write("dev.tsv", "text\tlabel\na loaf of bread please\tbakery\nnew\tbakery\n");
    let report = place.json("data inspect train.jsonl --validation dev.tsv --model teacher --max-length 8");
    assert_eq!((&report["rows"], &report["unlabelled"]), (&json!(4), &json!(1)));
    assert_eq!(report["labels"][0], json!({"name": "bakery", "rows": 1}));
    assert_eq!(report["lengths"]["unit"], "tokens");
    assert_eq!(report["lengths"]["cut"]["max_length"], 8);
    let (longest, cut) = (report["lengths"]["longest"].as_u64(), report["lengths"]["cut"]["rows"].as_u64());
    assert!(longest > Some(8) && cut > Some(0), "{report}");
    assert_eq!((&report["duplicates"]["rows"], &report["duplicates"]["with_another_label"]), (&json!(1), &json!(1)));
    assert_eq!(report["duplicates"]["examples"][0]["labels"], json!(["library", "garden"]));
    let shared = &report["shared"][0];
    assert_eq!(
        (&shared["split"], &shared["rows"], &shared["split_rows"]),
        (&json!("validation"), &json!(1), &json!(2))
    );
    assert_eq!(report["scripts"], json!([{"name": "Latin", "rows": 4}]));
    // The same whatever the number of threads.
    let one = place.json("data inspect train.jsonl --validation dev.tsv --model teacher --max-length 8 --threads 1");
    assert_eq!(one, report);
}

#[test]
fn inspect_prints_bars_and_examples() {
    let place = Workplace::new();
    place.write("train.jsonl", TRAIN);
    let finished = place.run("data inspect train.jsonl");
    finished.succeeded();
    let text = finished.stdout.clone();
    for expected in [
        "4 rows in train.jsonl",
        "no label      1  25.0 %  ████████████████████████",
        "repeated: 1 (25.0 %) rows have a text that an earlier row has (1 texts), 1 of them with another label",
        "  line 3: when does the library open  (library first, then garden)",
        "half of the rows have at most 26 characters",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn inspect_takes_the_label_lists_of_several_files() {
    let place = Workplace::new();
    place.write("a.jsonl", "{\"text\":\"a\",\"labels\":[\"joy\",\"fear\"]}\n");
    place.write("b.jsonl", "{\"text\":\"b\",\"labels\":[\"joy\"]}\n");
    let report = place.json("data inspect a.jsonl b.jsonl");
    assert_eq!(report["labels"], json!([{"name": "joy", "rows": 2}, {"name": "fear", "rows": 1}]));
}

#[test]
fn a_limit_in_tokens_needs_a_model() {
    let place = Workplace::new();
    place.refuses(
        "data inspect train.tsv --max-length 8",
        &["--max-length counts tokens, and those are a model's; give it with --model"],
    );
}
