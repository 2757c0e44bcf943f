//! What a training will take: memory told before the first step, and limits of memory and time that decide its settings.

use std::fs;

use crate::support::{TRAIN, Workplace};

#[test]
fn memory_is_told_before_the_first_step_and_beside_its_peak() {
    let place = Workplace::with_cache();
    let done = place.run(&format!("{TRAIN} --output out --json"));
    done.succeeded();
    assert!(done.stderr.contains(" of memory"), "{}", done.stderr);
    let report: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    let [estimated, peak] = ["estimated_memory_bytes", "peak_memory_bytes"].map(|key| report[key].as_u64().expect(key));
    // The program's own memory is most of it here. Sums are compared on models of real sizes: docs/measurements.md.
    assert!((0.5..2.0).contains(&(estimated as f64 / peak as f64)), "{estimated} for {peak}");
}

#[test]
fn passes_are_as_large_as_the_memory_allows() {
    let place = Workplace::with_cache();
    let line = format!("{TRAIN} --batch-rows 600");
    let estimated = |flags: &str| {
        let done = place.run(&format!("{line} {flags} --output out --overwrite --json"));
        done.succeeded();
        let report: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
        let tokens = place.read_json("out/distill.json")["inputs"]["fit"]["batch_tokens"].as_u64().expect("resolved");
        (report["estimated_memory_bytes"].as_u64().expect("an estimate"), tokens, done.stderr)
    };
    let (whole, tokens, _) = estimated("");
    assert_eq!(tokens, 4096);
    let limit = format!("--memory {}kB", (whole - 3_000_000) / 1000);
    let (less, fewer, said) = estimated(&limit);
    assert!(fewer < tokens && less < whole, "{less} with {fewer} after {whole} with {tokens}");
    assert!(said.contains(&format!("--batch-tokens {fewer}")), "{said}");
    assert!(place.read("out/distill.json").contains("\"memory\": "));
    // What was found out is no other setting.
    place.json(&format!("{line} {limit} --output out --resume"));
    place.refuses(
        &format!("{line} --memory 1MB --output small"),
        &["--memory 1.0 MB", "even with --batch-tokens", "--max-length"],
    );
    let done = place.run(&format!("{line} --memory 1GB --batch-tokens 512 --output small"));
    assert_eq!(done.code, Some(2), "{}", done.stderr);
}

#[test]
fn a_teacher_beside_the_student_must_fit_too() {
    let place = Workplace::with_cache();
    let refused = |line: &str| place.run(&format!("{line} --memory 1MB --output none")).failure();
    let beside = refused(&TRAIN.replace("--cache cache", "--live"));
    let way_out = "stored answers in place of the teacher beside the student";
    assert!(beside.contains("even with --batch-tokens") && beside.contains(way_out), "{beside}");
    assert!(!refused(TRAIN).contains(way_out));
    assert!(place.names("none").is_empty(), "nothing was begun");
}

/// A run of a number of minutes is one of a number of steps, whose first ones were timed and undone.
#[test]
fn minutes_become_steps() {
    let place = Workplace::with_cache();
    let line = "train --teacher teacher --cache cache --data train.tsv --epochs 100000 --evaluate-every 20";
    place.json(&format!("{line} --max-minutes 0.1 --output minutes"));
    let record = place.read_json("minutes/distill.json");
    let steps = record["inputs"]["fit"]["max_steps"].as_u64().expect("found out");
    assert_eq!(record["figures"]["steps"], steps);
    assert!(steps > 1);
    place.json(&format!("{line} --max-steps {steps} --output steps"));
    assert!(place.read_bytes("minutes/model.safetensors") == place.read_bytes("steps/model.safetensors"));
    // The same command, once it is complete, finds the same steps.
    place.json(&format!("{line} --max-minutes 0.1 --output minutes --resume"));
    place.refuses(&format!("{line} --max-minutes 0.2 --output minutes --resume"), &["fit.max_minutes"]);
    place.refuses(
        &format!("{line} --max-minutes 1e-7 --output none"),
        &["--max-minutes 0.0000001", "before the first step"],
    );
    assert!(!place.path("none/distill.json").exists());
}

#[test]
fn a_run_of_minutes_that_was_killed_takes_the_steps_it_was_begun_with() {
    let place = Workplace::with_cache();
    let line = "train --teacher teacher --cache cache --data train.tsv --epochs 100000 --max-minutes 0.1 --checkpoint-every 5 --output out";
    let checkpoint = place.path("out/checkpoint.safetensors");
    place.start(line).until(|| fs::metadata(&checkpoint).is_ok()).signal("KILL");
    let bytes = fs::read(&checkpoint).expect("a checkpoint");
    let text = String::from_utf8_lossy(&bytes[..4000.min(bytes.len())]).replace('\\', "");
    let steps =
        text.split("\"max_steps\":").nth(1).and_then(|rest| rest.split(',').next()).expect("in the state").to_owned();
    place.json(&format!("{line} --resume"));
    assert_eq!(place.read_json("out/distill.json")["figures"]["steps"].to_string(), steps);
}

#[test]
fn what_would_be_found_out_is_not_given_as_well() {
    let place = Workplace::with_cache();
    let done = place.run(&format!("{TRAIN} --max-minutes 1 --max-steps 5 --output out"));
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    place.write(
        "recipe.toml",
        "[teacher]\nmodel = \"teacher\"\n[data]\ntrain = \"train.tsv\"\n[train]\nmax_minutes = 1\nmax_steps = 5\n",
    );
    place.refuses("run recipe.toml --output out", &["--max-minutes finds out --max-steps", "train.max_minutes"]);
    place.write(
        "recipe.toml",
        "[teacher]\nmodel = \"teacher\"\n[data]\ntrain = \"train.tsv\"\n[train]\nmemory = \"4 gigs\"\n",
    );
    place.refuses("run recipe.toml --output out", &["recipe.toml", "such as 20MB"]);
    place.refuses("run recipe.toml --output out --set train.memory=-5", &["a size such as 20MB"]);
    // Once divided by zero.
    let line = format!("{TRAIN} --max-steps 600 --batch-rows 54 --evaluate-every 9223372036854775808");
    place.json(&format!("{line} --output out"));
}

#[test]
fn values_that_are_computed_twice_make_the_same_model_in_less_memory() {
    let place = Workplace::with_cache();
    let line = format!("{TRAIN} --num-layers 4 --batch-rows 600 --batch-tokens 20000");
    let estimate = |flags: &str, folder: &str| {
        let report = place.json(&format!("{line} {flags} --output {folder}"));
        report["estimated_memory_bytes"].as_u64().expect("an estimate")
    };
    let (whole, less) = (estimate("", "whole"), estimate("--recompute", "twice"));
    assert!(less + 3_000_000 < whole, "{less} after {whole}");
    assert!(place.read_bytes("whole/model.safetensors") == place.read_bytes("twice/model.safetensors"));
    assert_eq!(place.read_json("twice/distill.json")["inputs"]["fit"]["recompute"], true);
    // It is no other run.
    place.json(&format!("{line} --output twice --resume"));
}
