//! The same seed gives the same bytes, whatever the number of threads, the folder and the time of day.

use std::collections::BTreeMap;

use crate::support::{CACHE, TRAIN, Workplace};

/// Bytes of everything that `line` writes into `out`, in a folder of its own.
fn files_of(line: &str, threads: Option<&str>) -> BTreeMap<String, Vec<u8>> {
    let place = Workplace::with_cache();
    let mut command = place.command(&format!("{line} --output out"));
    if let Some(threads) = threads {
        command.env("RAYON_NUM_THREADS", threads);
    }
    assert!(command.output().expect("runs").status.success());
    place.files("out")
}

fn assert_same(ours: &BTreeMap<String, Vec<u8>>, theirs: &BTreeMap<String, Vec<u8>>) {
    assert!(ours.len() > 1);
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, bytes) in ours {
        assert!(*bytes == theirs[name], "{name} differs");
    }
}

fn same_for_any_threads(line: &str) {
    let one = files_of(line, Some("1"));
    assert_same(&one, &files_of(line, Some("2")));
    assert_same(&one, &files_of(&format!("{line} --threads 3"), None));
    assert_same(&one, &files_of(&format!("{line} --threads 1"), Some("2")));
}

#[test]
fn a_student_is_the_same_for_any_threads() {
    same_for_any_threads(TRAIN);
}

#[test]
fn a_random_pruned_student_is_the_same_for_any_threads() {
    same_for_any_threads(&format!("{TRAIN} --layers random --hidden-size 16 --prune-vocabulary"));
}

#[test]
fn a_teacher_is_the_same_for_any_threads() {
    same_for_any_threads("finetune --model teacher --data test.tsv --epochs 1");
}

#[test]
fn a_cache_is_the_same_for_any_threads() {
    same_for_any_threads("cache --teacher teacher --data train.tsv --batch-tokens 64");
}

#[test]
fn another_seed_gives_another_student() {
    let (ours, other) = (files_of(TRAIN, None), files_of(&format!("{TRAIN} --seed 43"), None));
    assert!(ours["model.safetensors"] != other["model.safetensors"]);
    assert!(ours["config.json"] == other["config.json"]);
}

#[test]
fn nothing_that_is_written_names_its_folder() {
    let place = Workplace::new();
    place.json(CACHE);
    place.json(&format!("{TRAIN} --output student"));
    let folder = place.path("").display().to_string();
    let folder = folder.trim_end_matches('/').as_bytes();
    for (name, bytes) in place.files("cache").into_iter().chain(place.files("student")) {
        assert!(!bytes.windows(folder.len()).any(|window| window == folder), "{name}");
    }
}
