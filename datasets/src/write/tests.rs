//! What is written can be read again, and says the same.

use super::*;
use crate::record::for_each_whole;
use crate::rows::Columns;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::fs;
use std::ops::ControlFlow;

fn record(line: usize, columns: Value) -> Record {
    let columns: Map<String, Value> = columns.as_object().cloned().expect("an object");
    let text = columns["text"].as_str().expect("a text").to_owned();
    let row = crate::Row { text, text_b: None, label: None, line };
    Record { row, labels: Vec::new(), columns }
}

fn written(name: &str, records: Vec<Record>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut writer = RecordWriter::new(RecordFormat::of(name)?, name, &mut bytes);
    let middle = records.len() / 2;
    let (first, second) = records.split_at(middle);
    writer.write(first.to_vec())?;
    writer.write(second.to_vec())?;
    writer.finish()?;
    Ok(bytes)
}

/// What is read of what was written.
fn again(name: &str, records: Vec<Record>) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, written(name, records).expect("writes")).expect("writes");
    let mut found = Vec::new();
    for_each_whole(&path, &Columns::default(), |record| {
        found.push(Value::Object(record.columns));
        ControlFlow::Continue(())
    })
    .expect("reads");
    found
}

#[test]
fn both_formats_keep_all_columns_and_their_types() {
    let rows = [
        json!({"id": 7, "text": "a", "label": "x", "p": [0.25, 0.75], "labels": ["joy", "fear"], "sure": true, "a (b)": 1.5}),
        json!({"id": -1, "text": "b \"q\"\n中", "label": null, "p": [], "labels": [null, "joy"], "sure": false, "a (b)": 2}),
        json!({"id": 8, "text": "c", "label": "y", "p": null, "labels": [], "sure": null, "a (b)": -0.5}),
    ];
    let records: Vec<Record> = rows.iter().enumerate().map(|(at, row)| record(at + 1, row.clone())).collect();
    for name in ["a.jsonl", "a.parquet"] {
        let found = again(name, records.clone());
        let number = |value: &Value| value.as_f64();
        assert_eq!(found.len(), 3);
        for (found, row) in found.iter().zip(&rows) {
            for (column, value) in row.as_object().expect("an object") {
                let same = found[column] == *value
                    || number(&found[column]).is_some() && number(&found[column]) == number(value);
                assert!(same, "{name}, {column}: {} {value}", found[column]);
            }
        }
    }
}

#[test]
fn values_of_several_kinds_and_objects_are_spelled_in_parquet() {
    let rows = [
        json!({"text": "a", "x": 1, "y": {"z": [1]}}),
        json!({"text": "b", "x": "one"}),
        json!({"text": "c", "x": [2]}),
    ];
    let found = again("a.parquet", rows.iter().enumerate().map(|(at, row)| record(at + 1, row.clone())).collect());
    assert_eq!(found[0], json!({"text": "a", "x": "1", "y": "{\"z\":[1]}"}));
    assert_eq!(found[1], json!({"text": "b", "x": "one", "y": null}));
    assert_eq!(found[2]["x"], "[2]");
}

#[test]
fn a_value_that_comes_too_late_for_its_column_is_refused_with_the_line() {
    let many = (1..=65_536).map(|line| record(line, json!({"text": "a", "id": line})));
    let mut late: Vec<Record> = many.collect();
    late.push(record(65_537, json!({"text": "a", "id": "seven"})));
    let error = written("a.parquet", late.clone()).expect_err("refused").to_string();
    assert!(
        error.contains("column `id` of line 65537 is \"seven\"") && error.contains("column of whole numbers"),
        "{error}"
    );
    late.pop();
    late.push(record(65_537, json!({"text": "a", "new": 1})));
    let error = written("a.parquet", late).expect_err("refused").to_string();
    assert!(error.contains("column `new`") && error.contains("column of nothing"), "{error}");
}

#[test]
fn other_names_are_refused() {
    let error = RecordFormat::of("a.csv").expect_err("refused").to_string();
    assert!(error.contains("a.csv: records are written as .jsonl or .parquet"), "{error}");
}

proptest! {
    #[test]
    fn texts_come_back(texts in prop::collection::vec("\\PC*[a-z中]", 1..20)) {
        let records: Vec<Record> = texts.iter().enumerate().map(|(at, text)| record(at + 1, json!({"text": text, "n": at}))).collect();
        for name in ["a.jsonl", "a.parquet"] {
            let found = again(name, records.clone());
            let found: Vec<&str> = found.iter().map(|row| row["text"].as_str().expect("a text")).collect();
            prop_assert_eq!(&found, &texts);
        }
    }
}
