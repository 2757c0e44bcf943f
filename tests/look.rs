//! What shows how a run went: event files for TensorBoard, traces, plots. None of it changes the run.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::{TRAIN, Workplace};

/// Long enough to be caught in the middle, with several lines of metrics before.
const LONG: &str = "train --teacher teacher --cache cache --data train.tsv --epochs 60 --threads 1";

/// The records of an event file: framed by their length and its checksum before, and their own checksum behind.
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut records, mut rest) = (Vec::new(), bytes);
    while let Some((length, behind)) = rest.split_first_chunk::<8>() {
        let length = u64::from_le_bytes(*length) as usize;
        records.push(behind[4..4 + length].to_vec());
        rest = &behind[4 + length + 4..];
    }
    records
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn event_files_hold_what_the_metrics_hold_and_change_nothing() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output plain"));
    place.json(&format!("{TRAIN} --output out --tensorboard"));
    assert!(place.files("plain") == place.files("out"), "a file of the run depends on --tensorboard");
    assert!(!place.path("plain/tensorboard").exists());
    let files = place.files("out/tensorboard");
    let (name, bytes) = files.first_key_value().expect("a file");
    assert!(files.len() == 1 && name.starts_with("events.out.tfevents."), "{name}");
    let records = records(bytes);
    let metrics = place.read("out/metrics.jsonl");
    assert_eq!(records.len(), 2 + metrics.lines().count());
    assert!(holds(&records[0], "brain.Event:2"));
    for (tag, record) in [
        // Before steps 1, 4 and 16.
        ("gradient_share/soft_target", 2),
        ("gradient_share/hard_label", 4),
        ("loss/total", 5),
        ("loss/soft_target", 5),
        ("loss/hard_label", 5),
        ("training/learning_rate", 5),
        ("training/gradient_norm", 5),
        ("validation/loss", 6),
        ("validation/accuracy", 6),
        ("validation/macro_f1", 6),
        ("validation/agreement", 6),
    ] {
        assert!(holds(&records[record], tag), "no {tag}");
    }
}

#[test]
fn a_run_that_goes_on_starts_an_event_file_of_its_own() {
    let place = Workplace::with_cache();
    let line = format!("{LONG} --output out --tensorboard");
    let checkpoint = place.path("out/checkpoint.safetensors");
    let done = place.start(&line).until(|| checkpoint.exists()).signal("INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    let before = place.files("out/tensorboard");
    place.json(&format!("{line} --resume"));
    let after = place.files("out/tensorboard");
    assert_eq!(after.len(), 2);
    let (first, second) = (after.values().next().expect("a file"), after.values().last().expect("a file"));
    assert!(Some(first) == before.values().next(), "the earlier file was touched");
    // After the version, the start of a session: field 7, a message with field 1 set to START.
    assert!(records(second)[1].ends_with(&[7 << 3 | 2, 2, 1 << 3, 1]));
    let lines = place.read("out/metrics.jsonl").lines().count();
    assert_eq!(records(first).len() + records(second).len(), lines + 4);
}

#[test]
fn overwrite_removes_event_files_and_nothing_else() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output out --tensorboard"));
    place.json(&format!("{TRAIN} --output out --overwrite"));
    assert!(!place.path("out/tensorboard").exists());
    fs::create_dir(place.path("out/tensorboard")).expect("a folder");
    place.write("out/tensorboard/notes.txt", "mine");
    place.json(&format!("{TRAIN} --output out --overwrite --tensorboard"));
    place.json(&format!("{TRAIN} --output out --overwrite"));
    assert_eq!(place.names("out/tensorboard"), ["notes.txt"]);
}

/// The names of the spans in a trace.
fn spans(place: &Workplace, name: &str) -> BTreeSet<String> {
    let events: Vec<Value> = serde_json::from_str(&place.read(name)).expect("JSON");
    let spans = events.iter().filter(|event| event["ph"] == "X");
    spans.map(|span| span["name"].as_str().expect("a name").to_string()).collect()
}

#[test]
fn a_trace_shows_every_part_of_a_training_and_changes_nothing() {
    let place = Workplace::with_cache();
    let train = TRAIN.replace("--epochs 1", "--epochs 2");
    place.json(&format!("{train} --output plain"));
    place.json(&format!("{train} --output out --trace trace.json"));
    assert!(place.files("plain") == place.files("out"), "a file of the run depends on --trace");
    let spans = spans(&place, "trace.json");
    for name in [
        "prepare step",
        "read cache",
        "wait for step",
        "step",
        "forward",
        "loss",
        "backward",
        "update",
        "log",
        "evaluate",
        "checkpoint",
    ] {
        assert!(spans.contains(name), "no {name} in {spans:?}");
    }
}

#[test]
fn a_trace_shows_every_part_of_a_capture() {
    let place = Workplace::new();
    place.json("cache --teacher teacher --data train.tsv --output cache --trace trace.json");
    let spans = spans(&place, "trace.json");
    for name in ["tokenise", "forward", "write", "commit"] {
        assert!(spans.contains(name), "no {name} in {spans:?}");
    }
}

#[test]
fn a_stopped_run_leaves_a_whole_trace() {
    let place = Workplace::with_cache();
    let checkpoint = place.path("out/checkpoint.safetensors");
    let line = format!("{LONG} --output out --trace trace.json");
    let done = place.start(&line).until(|| checkpoint.exists()).signal("INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(spans(&place, "trace.json").contains("checkpoint"));
}

#[test]
fn a_file_that_is_no_trace_is_not_replaced_by_one() {
    let place = Workplace::with_cache();
    place.write("notes.json", "{}");
    place.refuses(&format!("{TRAIN} --output out --trace notes.json"), &["notes.json", "choose another file"]);
    place.refuses(&format!("{TRAIN} --output out --trace none/trace.json"), &["cannot write none/trace.json"]);
    assert_eq!(place.read("notes.json"), "{}");
    assert!(!place.path("out").exists());
}

#[test]
fn a_plot_has_a_panel_for_each_quantity_and_the_name_of_each_run() {
    let place = Workplace::with_cache();
    place.json(&format!("{} --output student", TRAIN.replace("--epochs 1", "--epochs 3")));
    place.json(&format!("{TRAIN} --output half&less"));
    let report = place.json("plot student half&less");
    assert_eq!(report["output"], "plot.svg");
    assert_eq!(report["runs"][0]["run"], "student");
    assert_eq!(report["runs"][0]["evaluations"], 3);
    let svg = place.read("plot.svg");
    assert_eq!(report["bytes"], svg.len());
    for text in [
        "student",
        "half&amp;less",
        "loss",
        "loss term soft_target",
        "loss term hard_label",
        "validation loss",
        "validation accuracy",
        "validation macro-F1",
        "agreement with the teacher",
        "learning rate",
        "gradient norm",
    ] {
        assert!(svg.contains(&format!("\n{text}\n")), "no {text}");
    }
    // Whoever opens it needs nothing else.
    assert!(!svg.contains("href") && !svg.contains("url("));
    place.json("plot student half&less --output again.svg");
    assert!(place.read("again.svg") == svg, "another plot of the same runs");
}

#[test]
fn runs_of_one_name_are_told_apart_by_their_folders() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output a/student"));
    place.json(&format!("{TRAIN} --output b/student"));
    place.json("plot a/student b/student");
    let svg = place.read("plot.svg");
    assert!(svg.contains("\na/student\n") && svg.contains("\nb/student\n"));
}

#[test]
fn what_cannot_be_plotted_is_refused_by_name() {
    let place = Workplace::with_cache();
    place.refuses("plot nowhere", &["cannot read nowhere"]);
    place.refuses("plot train.tsv", &["train.tsv is not a folder"]);
    place.refuses("plot cache", &["cache: not a run, there is no metrics.jsonl", "distill train"]);
    place.json(&format!("{TRAIN} --output all/student"));
    place.refuses("plot all", &["all: not a run", "distill plot all/student"]);

    let metrics = place.read("all/student/metrics.jsonl");
    let with = |text: &str| place.write("all/student/metrics.jsonl", text);
    with("");
    place.refuses("plot all/student", &["metrics.jsonl: nothing is logged yet", "every 50 steps"]);
    with(&format!("{metrics}{{\"schema_ver\n{metrics}"));
    place.refuses("plot all/student", &["metrics.jsonl: line 6: damaged", "--resume repairs", "remove the line"]);
    with(&metrics.replace("\"schema_version\":2", "\"schema_version\":3"));
    place.refuses("plot all/student", &["line 1: schema_version is 3, this build reads up to 2"]);
    // A run at work may be in the middle of a line.
    with(&format!("{metrics}{{\"schema_ver"));
    place.json("plot all/student");

    place.write("notes.svg", "<svg/>");
    place.refuses("plot all/student --output notes.svg", &["notes.svg: is there already and no plot", "--output"]);
    place.json("plot all/student");
}
