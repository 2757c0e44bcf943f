//! The format as `tests/scripts/read_cache.py` reads it, in another language and from FORMAT.md alone.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

use cache::{Captured, Dtype, key_hex};
use serde_json::Value;

use crate::support::*;

/// What the script says of a cache; none where there is no Python.
fn read(dir: &Path, keys: &[String]) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts/read_cache.py");
    match Command::new("python3").arg(script).arg(dir).args(keys).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
            {
                eprintln!("left out: there is no python3");
            }
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Two shards, two indexes.
fn two(dir: &Path, captured: &Captured, first: u64, rows: u64) {
    let mut writer = fill(dir, captured, 0..first);
    push(&mut writer, first..rows);
    writer.commit().unwrap();
    assert_eq!(files(dir).keys().filter(|name| name.starts_with("index-")).count(), 2);
}

fn numbers(value: &Value) -> Vec<f64> {
    let outputs = value.as_array().map(Vec::as_slice).unwrap_or_default();
    outputs.iter().flat_map(|output| output.as_array().unwrap()).map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn python_reads_every_value() {
    for (name, captured) in forms() {
        let dir = tempfile::tempdir().unwrap();
        two(dir.path(), &captured, 200, 220);
        let Some(output) = read(dir.path(), &[]) else { return };
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<Value> = output
            .stdout
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let reader = open(dir.path());
        assert_eq!(lines.len(), 220, "{name}");
        for (line, entry) in lines.iter().zip(reader.rows()) {
            let (key, row) = entry.unwrap();
            assert_eq!(line["key"], key_hex(&key), "{name}");
            assert!(numbers(&line["logits"]).into_iter().eq(row.logits().map(f64::from)), "{name}: {line}");
            assert!(numbers(&line["indices"]).into_iter().eq(row.indices().map(f64::from)), "{name}: {line}");
            assert!(numbers(&line["tails"]).into_iter().eq(row.tails().map(f64::from)), "{name}: {line}");
            let lists = line["logits"].as_array().or(line["indices"].as_array()).unwrap();
            assert_eq!(lists.len(), row.outputs(), "{name}");
        }
        // By key, and a key that is not there.
        let output = read(dir.path(), &[key_hex(&key(210)), key_hex(&key(3))]).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            [&found[0]["key"], &found[1]["key"]],
            [&key_hex(&key(210)), &key_hex(&key(3))].map(|key| key.as_str())
        );
        let output = read(dir.path(), &[key_hex(&key(999))]).unwrap();
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no row has the key"));
    }
}

#[test]
fn python_checks_text_of_any_kind_in_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let mut fingerprint = fingerprint(&dense(Dtype::F16));
    fingerprint.labels = ["a b", "\"c\": d", "é\u{2028}\n\t\\", "{\"x\": [1, 2]}", "  "].map(str::to_owned).to_vec();
    fingerprint.task = "with \\\" and \u{7f} \u{1}".to_owned();
    let mut writer = writer_for(dir.path(), &fingerprint);
    push(&mut writer, 0..3);
    writer.commit().unwrap();
    let Some(output) = read(dir.path(), &[]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_flipped_byte_ends_python_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    two(dir.path(), &of_tokens(top_k(Dtype::F16)), 8, 10);
    let Some(sound) = read(dir.path(), &[]) else { return };
    assert!(sound.status.success());
    for (name, bytes) in files(dir.path()) {
        if ["tokenizer.json", ".lock"].contains(&name.as_str()) {
            continue;
        }
        for position in (3..bytes.len()).step_by(131) {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1 << (position % 7);
            fs::write(dir.path().join(&name), &flipped).unwrap();
            let output = read(dir.path(), &[]).unwrap();
            // Spaces between the parts of a manifest carry nothing, and Python does not ask after their number.
            let spaces = name == "manifest.json" && output.stdout == sound.stdout;
            // Rows before the damaged one may have been printed.
            let refused = !output.status.success() && sound.stdout.starts_with(&output.stdout);
            assert!(refused || (spaces && bytes[position] == b' '), "byte {position} of {name}");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(spaces || name == "manifest.json" || error.contains(&name), "byte {position} of {name}: {error}");
        }
        fs::write(dir.path().join(&name), &bytes).unwrap();
    }
}
