//! Small data sets with one of everything.

use super::*;
use crate::record::for_each_whole;
use crate::rows::Columns;
use std::fs;
use std::ops::ControlFlow;

fn records(text: &str) -> Vec<Record> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.tsv");
    fs::write(&path, text).expect("writes");
    let mut records = Vec::new();
    for_each_whole(&path, &Columns::default(), |record| {
        records.push(record);
        ControlFlow::Continue(())
    })
    .expect("reads");
    records
}

fn count(name: &str, rows: usize) -> Count {
    Count { name: name.to_owned(), rows }
}

#[test]
fn rows_labels_and_repeats_are_counted() {
    let mut inspector = Inspector::new(None, None);
    let split = records("text\tlabel\na\tx\nnew\ty\na\tx\n");
    inspector.add_split("validation", &split[..2]);
    inspector.add_split("validation", &split[2..]);
    inspector.add(&records("text\tlabel\na\tx\nbb\ty\na\tx\n")).expect("counts");
    inspector.add(&records("text\tlabel\na\ty\nccc\t\nbb\ty\n")).expect("counts");
    let found = inspector.finish();
    assert_eq!((found.rows, found.unlabelled, found.pairs), (6, 1, 0));
    assert_eq!(found.labels, [count("y", 3), count("x", 2)]);
    let repeats = found.duplicates;
    assert_eq!((repeats.rows, repeats.texts, repeats.with_another_label), (3, 2, 1));
    // That with another label stands first.
    assert_eq!(repeats.examples[0], Repeat { line: 2, text: "a".into(), labels: ["x".into(), "y".into()] });
    assert_eq!(repeats.examples.len(), 3);
    let shared = &found.shared[0];
    assert_eq!((shared.split.as_str(), shared.split_rows, shared.rows, shared.texts), ("validation", 3, 3, 1));
    assert_eq!(shared.examples, ["a"]);
    assert_eq!((found.lengths.unit, found.lengths.longest, found.lengths.total), ("characters", 3, 10));
}

#[test]
fn scripts_and_languages_are_told() {
    let mut inspector = Inspector::new(None, None);
    let text = "text\n\
        The quick brown fox jumps over the lazy dog while the farmer watches from his house\n\
        Ich habe gestern meine Bankkarte verloren und möchte sie sofort sperren lassen, bitte\n\
        我昨天丢失了我的银行卡，请帮我挂失\n\
        Вчера я потерял свою банковскую карту и хочу её заблокировать\n12345 67\n";
    inspector.add(&records(text)).expect("counts");
    let writing = inspector.finish().writing;
    assert_eq!(writing.scripts, [count("Latin", 2), count("Cyrillic", 1), count("Mandarin", 1), count("none", 1)]);
    assert_eq!(writing.languages, [count("English", 1), count("German", 1), count("Mandarin", 1)]);
    // Russian is too much like other languages in this script, and digits are in none.
    assert_eq!(writing.unsure, 2);
}

#[test]
fn examples_with_another_label_take_the_place_of_others() {
    let mut text = "text\tlabel\n".to_owned();
    for number in 0..8 {
        text += &format!("same {number}\tx\nsame {number}\tx\n");
    }
    for number in 0..2 {
        text += &format!("other {number}\tx\nother {number}\ty\n");
    }
    let mut inspector = Inspector::new(None, None);
    inspector.add(&records(&text)).expect("counts");
    let repeats = inspector.finish().duplicates;
    let texts: Vec<&str> = repeats.examples.iter().map(|example| example.text.as_str()).collect();
    assert_eq!(texts, ["other 0", "other 1", "same 0", "same 1", "same 2"]);
    assert_eq!((repeats.rows, repeats.with_another_label), (10, 2));
}
