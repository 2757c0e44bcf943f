//! Every format of a data file says the same, and a teacher reads the same of it.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use crate::support::{CACHE, CLASSES, TRAIN, Workplace, rows};

/// The fixture's rows in another format must be the rows that are cached already, with the labels that they have.
fn holds_the_same_rows(file: &str, flags: &str, content: impl Fn(&[(String, String)]) -> String) {
    let place = Workplace::with_cache();
    let content = content(&rows(&place.read("train.tsv")));
    place.write(file, &content);
    place.write(&format!("{file}.gz"), gzipped(content.as_bytes()));
    for file in [file.to_owned(), format!("{file}.gz")] {
        let report = place.json(&format!("{CACHE} {flags}").replace("train.tsv", &file));
        assert_eq!((&report["rows"], &report["forwarded"]), (&json!(600), &json!(0)), "{file}");
        assert!(report["accuracy"].as_f64() > Some(0.99), "{file}: {report}");
    }
    place.json(&format!("{TRAIN} --output student {flags}").replace("train.tsv", &format!("{file}.gz")));
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

#[test]
fn tsv_has_no_quotes() {
    holds_the_same_rows("data.tsv", "", |rows| {
        let lines = rows.iter().map(|(text, label)| format!("{label}\t{text}\n"));
        std::iter::once("label\ttext\n".to_owned()).chain(lines).collect()
    });
}

#[test]
fn csv_has_quotes() {
    holds_the_same_rows("data.csv", "", |rows| {
        // A line break within a text is white space to the tokenizer.
        let lines = rows.iter().map(|(text, label)| format!("\"{}\",{label}\r\n", text.replace(' ', "\n")));
        std::iter::once("text,label\r\n".to_owned()).chain(lines).collect()
    });
}

#[test]
fn jsonl_has_other_keys_and_ids() {
    holds_the_same_rows("data.jsonl", "", |rows| {
        let id = |label: &str| CLASSES.iter().position(|class| *class == label).expect("known");
        let line = |(text, label): &(String, String)| json!({"id": 7, "text": text, "label": id(label)});
        rows.iter().map(|row| format!("{}\n", line(row))).collect()
    });
}

#[test]
fn objects_may_stand_in_an_array() {
    holds_the_same_rows("data.json", "", |rows| {
        let objects: Vec<_> = rows.iter().map(|(text, label)| json!({"text": text, "label": label})).collect();
        serde_json::to_string_pretty(&objects).expect("JSON")
    });
}

#[test]
fn parquet_and_zstd_hold_the_same_rows() {
    let place = Workplace::with_cache();
    let rows = rows(&place.read("train.tsv"));
    let packed = zstd::encode_all(place.read("train.tsv").as_bytes(), 3).expect("packs");
    std::fs::write(place.path("data.tsv.zst"), packed).expect("writes");
    std::fs::write(place.path("data.parquet"), parquet(&rows)).expect("writes");
    for file in ["data.tsv.zst", "data.parquet"] {
        let report = place.json(&CACHE.replace("train.tsv", file));
        assert_eq!((&report["rows"], &report["forwarded"]), (&json!(600), &json!(0)), "{file}");
        assert!(report["accuracy"].as_f64() > Some(0.99), "{file}: {report}");
        place.json(&format!("{TRAIN} --output student --overwrite").replace("train.tsv", file));
    }
}

/// Texts and labels as a Parquet file.
fn parquet(rows: &[(String, String)]) -> Vec<u8> {
    let schema = "message rows { required binary text (STRING); required binary label (STRING); }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    let (texts, labels): (Vec<&str>, Vec<&str>) =
        rows.iter().map(|(text, label)| (text.as_str(), label.as_str())).unzip();
    for cells in [texts, labels] {
        let values: Vec<ByteArray> = cells.into_iter().map(ByteArray::from).collect();
        let mut column = group.next_column().expect("reads").expect("a column");
        column.typed::<ByteArrayType>().write_batch(&values, None, None).expect("writes");
        column.close().expect("closes");
    }
    group.close().expect("closes");
    writer.into_inner().expect("closes")
}

#[test]
fn columns_have_any_names() {
    holds_the_same_rows("data.csv", "--text-column message --label-column place", |rows| {
        let lines = rows.iter().map(|(text, label)| format!("wrong,{label},{text}\n"));
        std::iter::once("text,place,message\n".to_owned()).chain(lines).collect()
    });
}

#[test]
fn a_pair_is_read_as_two_texts() {
    let place = Workplace::with_cache();
    let pairs: String =
        rows(&place.read("train.tsv")).iter().map(|(text, label)| format!("{text}\tplease\t{label}\n")).collect();
    place.write("pairs.tsv", format!("question\tcontext\tlabel\n{pairs}"));
    let flags = "--text-column question --pair-column context";
    let cached = place.json(&format!("{CACHE} {flags}").replace("train.tsv", "pairs.tsv"));
    assert_eq!(cached["forwarded"], 600, "a pair is another input than its first text alone");
    place.json(&format!("{TRAIN} --output student {flags} --force").replace("train.tsv", "pairs.tsv"));
    // Without the option the second column is none of ours, and the texts are the cached ones.
    let first = place.json(&format!("{CACHE} --text-column question").replace("train.tsv", "pairs.tsv"));
    assert_eq!(first["forwarded"], 0);
}

#[test]
fn validation_rows_may_come_from_their_own_file() {
    let place = Workplace::with_cache();
    let held_out = place.json(&format!("{TRAIN} --output held-out"));
    assert!(held_out["agreement"].is_f64(), "the tenth that is held out is cached with the rest");
    let own = place.json(&format!("{TRAIN} --output own --validation test.tsv"));
    assert!(own["accuracy"].is_f64());
    assert_eq!(own["agreement"], json!(null), "the validation file is not cached");
    assert_eq!(place.read_json("own/distill.json")["figures"]["validation"]["rows"], 200);
}
