//! A stop at any moment, by Ctrl-C or by a kill, costs at most what was done since the last checkpoint, and the run that
//! goes on ends with the bytes of one that was never stopped.

use std::fs;

use crate::cache_tools::MANY;
use crate::support::{Finished, TRAIN, Workplace, rows, tsv};

/// Long enough to be caught in the middle: the last `--epochs` counts.
const LONG: &str = "train --teacher teacher --cache cache --data train.tsv --epochs 60 --threads 1";

/// Stops `line` as soon as `file` is in its `out`.
fn stopped(place: &Workplace, line: &str, file: &str, signal: &str) -> Finished {
    let awaited = place.path("out").join(file);
    let filled = || fs::metadata(&awaited).is_ok_and(|metadata| metadata.len() > 0);
    let done = place.start(&format!("{line} --output out")).until(filled).signal(signal);
    assert!(!place.path("out/distill.json").exists(), "`{line}` was done before it could be stopped");
    done
}

fn interrupted(place: &Workplace, line: &str) -> Finished {
    let done = stopped(place, line, "checkpoint.safetensors", "INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.lines().any(|line| line == "interrupted"), "{}", done.stderr);
    assert_eq!(unfinished(place), ["checkpoint.safetensors", "metrics.jsonl"]);
    done
}

/// The files of a run that was stopped, but for the earlier one of its checkpoints, which there may be.
fn unfinished(place: &Workplace) -> Vec<String> {
    place.names("out").into_iter().filter(|name| name != "checkpoint.earlier.safetensors").collect()
}

/// Goes on with `out`, and compares it with the same run undisturbed.
fn goes_on_to_the_same_end(place: &Workplace, line: &str) {
    place.json(&format!("{line} --output out --resume"));
    ends_like_the_undisturbed(place, line);
}

/// Compares `out` with the same run undisturbed.
fn ends_like_the_undisturbed(place: &Workplace, line: &str) {
    place.json(&format!("{line} --output undisturbed"));
    assert_eq!(place.names("out"), place.names("undisturbed"));
    for (name, bytes) in place.files("undisturbed") {
        assert!(place.read_bytes(&format!("out/{name}")) == bytes, "{name} differs");
    }
}

#[test]
fn a_training_that_ctrl_c_stopped_goes_on_to_the_same_end() {
    let place = Workplace::with_cache();
    let done = interrupted(&place, LONG);
    assert!(done.stderr.contains("hint: the same command with --resume goes on from here"), "{}", done.stderr);
    goes_on_to_the_same_end(&place, LONG);
}

#[test]
fn a_training_that_was_stopped_twice_goes_on_to_the_same_end() {
    let place = Workplace::with_cache();
    interrupted(&place, LONG);
    let metrics = place.read("out/metrics.jsonl").len() as u64;
    let grown = || fs::metadata(place.path("out/metrics.jsonl")).is_ok_and(|file| file.len() > metrics);
    let done = place.start(&format!("{LONG} --output out --resume")).until(grown).signal("INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(done.stderr.contains("going on after step"), "{}", done.stderr);
    goes_on_to_the_same_end(&place, LONG);
}

/// Where every step ends an epoch, a stop falls on an epoch's end for certain; its evaluation was once left out.
#[test]
fn a_stop_at_the_end_of_an_epoch_does_not_lose_its_evaluation() {
    let place = Workplace::with_cache();
    let line = "train --teacher teacher --cache cache --data train.tsv --epochs 80 --batch-rows 600 --threads 1";
    interrupted(&place, line);
    goes_on_to_the_same_end(&place, line);
}

#[test]
fn a_training_that_was_killed_goes_on_from_its_checkpoint() {
    let place = Workplace::with_cache();
    let done = stopped(&place, LONG, "checkpoint.safetensors", "KILL");
    assert_eq!(done.code, None);
    goes_on_to_the_same_end(&place, LONG);
}

#[test]
fn a_training_with_every_term_of_the_loss_goes_on_to_the_same_end() {
    let place = Workplace::with_cache();
    let line = format!("{LONG} --class-weights balanced --focal-gamma 1.5 --r-drop 1");
    interrupted(&place, &line);
    goes_on_to_the_same_end(&place, &line);
}

#[test]
fn a_training_of_projections_alone_with_texts_in_turn_goes_on_to_the_same_end() {
    let place = Workplace::with_cache();
    place.write_texts(80);
    let line = LONG.replace("--cache cache", "--unlabelled texts.tsv --unlabelled-rate 0.3")
        + " --layers random --num-layers 2 --hidden-size 16 --freeze all --keep last --weight-soft 0 --weight-hard 0 \
           --term hidden_mse,weight=1";
    interrupted(&place, &line);
    goes_on_to_the_same_end(&place, &line);
}

#[test]
fn a_training_that_was_killed_before_its_first_checkpoint_starts_again() {
    let place = Workplace::with_cache();
    fs::create_dir(place.path("out")).expect("a folder");
    place.write("out/metrics.jsonl", "{\"schema_version\":1,\"ev");
    place.write("out/.distill-x1.partial", "half a checkpoint");
    goes_on_to_the_same_end(&place, TRAIN);
}

/// Once wrote a student over whatever model lay there.
#[test]
fn resuming_where_no_run_began_touches_nothing() {
    let place = Workplace::with_cache();
    place.copy("teacher", "other");
    place.refuses(&format!("{TRAIN} --output other --resume"), &["other is not empty", "--overwrite"]);
    assert!(place.files("other") == place.files("teacher"));
    std::fs::create_dir(place.path("mine")).expect("makes a folder");
    place.write("mine/metrics.jsonl", "{\"loss\":1}\n");
    place.refuses(&format!("{TRAIN} --output mine --resume"), &["mine is not empty"]);
    assert_eq!(place.read("mine/metrics.jsonl"), "{\"loss\":1}\n");
    place.json(&format!("{TRAIN} --output out --resume"));
}

#[test]
fn a_complete_run_is_kept_as_it_is() {
    let place = Workplace::with_cache();
    let first = place.json(&format!("{TRAIN} --output out"));
    let files = place.files("out");
    let again = place.json(&format!("{TRAIN} --output out --resume"));
    assert_eq!(again["accuracy"], first["accuracy"]);
    assert_eq!(place.files("out"), files);
    // A kill may come when the record is written and the checkpoints are not yet removed.
    place.write("out/checkpoint.earlier.safetensors", "left behind");
    place.json(&format!("{TRAIN} --output out --resume"));
    assert_eq!(place.files("out"), files);
    place.refuses(
        &format!("{TRAIN} --output out --resume --seed 7"),
        &["out", "complete run with another `fit.seed` (42, now 7)", "--overwrite"],
    );
    assert_eq!(place.files("out"), files);
}

#[test]
fn a_stopped_run_refuses_other_settings_by_name() {
    let place = Workplace::with_cache();
    interrupted(&place, LONG);
    let files = place.files("out");
    let resume = format!("{LONG} --output out --resume");
    for (other, expected) in [
        ("--learning-rate 2e-4", "another `fit.learning_rate` (0.001, now 0.0002)"),
        ("--seed 7", "another `fit.seed` (42, now 7)"),
        ("--temperature 2", "another `objective.0.temperature` (4.0, now 2.0)"),
        ("--layers last", "another `student.layers` (\"uniform\", now \"last\")"),
        ("--patience 3", "another `fit.patience` (null, now 3)"),
    ] {
        place.refuses(&format!("{resume} {other}"), &["checkpoint.safetensors", expected, "--overwrite"]);
    }
    assert_eq!(place.files("out"), files);
}

#[test]
fn a_stopped_run_refuses_other_data() {
    let place = Workplace::with_cache();
    interrupted(&place, LONG);
    let fewer = rows(&place.read("train.tsv")).split_off(100);
    place.write("fewer.tsv", tsv(&fewer));
    let line = LONG.replace("train.tsv", "fewer.tsv");
    place.refuses(&format!("{line} --output out --resume"), &["another `train`"]);
}

#[test]
fn a_stopped_run_is_not_overwritten_by_accident() {
    let place = Workplace::with_cache();
    interrupted(&place, LONG);
    place.refuses(&format!("{LONG} --output out"), &["out is not empty", "--overwrite"]);
    place.json(&format!("{TRAIN} --output out --overwrite"));
    assert!(place.names("out").iter().all(|name| !name.starts_with("checkpoint")), "{:?}", place.names("out"));
}

#[test]
fn a_damaged_checkpoint_is_refused_where_it_is_the_only_one() {
    let place = Workplace::with_cache();
    interrupted(&place, LONG);
    if place.path("out/checkpoint.earlier.safetensors").exists() {
        fs::remove_file(place.path("out/checkpoint.earlier.safetensors")).expect("removes");
    }
    let bytes = place.read_bytes("out/checkpoint.safetensors");
    let line = format!("{LONG} --output out --resume");
    place.write("out/checkpoint.safetensors", &bytes[..bytes.len() / 2]);
    place.refuses(&line, &["checkpoint.safetensors: a damaged checkpoint", "--overwrite"]);
    let mut flipped = bytes.clone();
    flipped[bytes.len() - 100] ^= 1;
    place.write("out/checkpoint.safetensors", &flipped);
    place.refuses(&line, &["its checksum is another", "--overwrite"]);
}

#[test]
fn a_damaged_checkpoint_is_gone_round_by_the_one_before_it() {
    let place = Workplace::with_cache();
    let line = format!("{LONG} --checkpoint-every 5");
    let done = stopped(&place, &line, "checkpoint.earlier.safetensors", "KILL");
    assert_eq!(done.code, None);
    let bytes = place.read_bytes("out/checkpoint.earlier.safetensors");
    let newest = place.path("out/checkpoint.safetensors");
    // Killed between two names, there may be the earlier one alone.
    let newest = if newest.exists() { fs::read(newest).expect("reads") } else { bytes };
    let mut flipped = newest;
    let last = flipped.len() - 1;
    flipped[last] ^= 128;
    place.write("out/checkpoint.safetensors", &flipped);
    let resumed = place.run(&format!("{line} --output out --resume"));
    resumed.succeeded();
    assert!(
        resumed.stderr.contains("its checksum is another); going on from the checkpoint before it"),
        "{}",
        resumed.stderr
    );
    ends_like_the_undisturbed(&place, &line);
}

/// Plateau, early stopping, evaluations between epochs: whatever a training remembers is in its checkpoints.
#[test]
fn a_training_that_is_killed_at_any_step_goes_on_to_the_same_end() {
    let place = Workplace::with_cache();
    let line = format!(
        "{LONG} --schedule plateau --plateau-patience 1 --plateau-factor 0.5 --evaluate-steps 7 --metric loss --patience 30 \
         --min-gain 0.001 --max-steps 400 --checkpoint-every 3 --ema-decay 0.9 --layer-decay 0.8 --freeze 0"
    );
    let mut kills = 0;
    for grown in [1, 700, 900, 1500, 1100] {
        let bytes = || fs::metadata(place.path("out/metrics.jsonl")).map_or(0, |file| file.len());
        let before = bytes();
        let resume = if before > 0 { "--resume" } else { "" };
        let done =
            place.start(&format!("{line} --output out {resume}")).until(|| bytes() >= before + grown).signal("KILL");
        kills += usize::from(done.code.is_none());
    }
    assert!(kills >= 3, "{kills} kills");
    place.json(&format!("{line} --output out --resume"));
    ends_like_the_undisturbed(&place, &line);
}

#[test]
fn a_training_stops_early_where_evaluations_no_longer_improve() {
    let place = Workplace::with_cache();
    let line = "train --teacher teacher --cache cache --data train.tsv --epochs 50 --learning-rate 1e-9 --patience 3 --metric loss \
                --min-gain 1 --threads 1";
    let done = place.run(&format!("{line} --output out"));
    done.succeeded();
    let record: serde_json::Value = serde_json::from_str(&place.read("out/distill.json")).expect("JSON");
    // The first evaluation and three more.
    let evaluations = place.read("out/metrics.jsonl").lines().filter(|line| line.contains("\"evaluation\"")).count();
    assert_eq!(evaluations, 4);
    assert!(done.stderr.contains("stopped early after step"), "{}", done.stderr);
    let steps = record["figures"]["steps"].as_u64().expect("a number");
    assert_eq!(steps % 4, 0);
    assert_eq!((&record["inputs"]["fit"]["patience"], &record["inputs"]["fit"]["metric"]), (&3.into(), &"loss".into()));
    assert!(!place.path("out/checkpoint.safetensors").exists());
}

#[test]
fn sigterm_stops_in_order_with_a_status_of_its_own() {
    let place = Workplace::with_cache();
    let done = stopped(&place, LONG, "checkpoint.safetensors", "TERM");
    assert_eq!(done.code, Some(75), "{}", done.stderr);
    assert!(done.stderr.contains("hint: the same command with --resume goes on from here"), "{}", done.stderr);
    goes_on_to_the_same_end(&place, LONG);
}

/// When checkpoints are written is no part of a result.
#[test]
fn a_stopped_run_goes_on_with_other_checkpoints() {
    let place = Workplace::with_cache();
    interrupted(&place, &format!("{LONG} --checkpoint-every 2"));
    place.json(&format!("{LONG} --checkpoint-minutes 5 --output out --resume"));
    ends_like_the_undisturbed(&place, LONG);
}

#[test]
fn a_finetuning_that_ctrl_c_stopped_goes_on() {
    let place = Workplace::new();
    let done =
        stopped(&place, "finetune --model teacher --data train.tsv --epochs 60", "checkpoint.safetensors", "INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(done.stderr.contains("hint: the same command with --resume"), "{}", done.stderr);
    assert_eq!(unfinished(&place), ["checkpoint.safetensors", "metrics.jsonl"]);
    let line = "finetune --model teacher --data train.tsv --epochs 60";
    place.refuses(&format!("{line} --output out --resume --dropout 0.3"), &["another `config`"]);
    place.json(&format!("{line} --output out --resume"));
    place.json(&format!("{line} --output undisturbed"));
    assert!(place.files("out") == place.files("undisturbed"));
}

fn cache_goes_on_after(signal: &str, code: Option<i32>) {
    let place = Workplace::new();
    place.many_rows(5);
    let line = MANY;
    let shard = || place.path("out/shard-00001.safetensors").exists();
    let done = place.start(&format!("{line} --output out")).until(shard).signal(signal);
    assert_eq!(done.code, code, "{}", done.stderr);
    if code.is_some() {
        assert!(done.stderr.lines().any(|line| line == "interrupted"), "{}", done.stderr);
        assert!(done.stderr.contains("hint: the same command goes on from here"), "{}", done.stderr);
    }
    let whole = place.json(&format!("{line} --output undisturbed"));
    let rest = place.json(&format!("{line} --output out"));
    let (skipped, forwarded) = (rest["skipped"].as_u64(), rest["forwarded"].as_u64());
    assert!(skipped > Some(0) && forwarded > Some(0), "stopped too late or too early: {rest}");
    assert_eq!(skipped.zip(forwarded).map(|(skipped, forwarded)| skipped + forwarded), whole["unique"].as_u64());
    assert!(place.files("out") == place.files("undisturbed"));
}

#[test]
fn a_cache_that_ctrl_c_stopped_goes_on_to_the_same_end() {
    cache_goes_on_after("INT", Some(130));
}

#[test]
fn a_cache_that_was_killed_goes_on_to_the_same_end() {
    cache_goes_on_after("KILL", None);
}

/// Once ended without a checkpoint: the steps before the evaluation were lost.
#[test]
fn a_stop_during_an_evaluation_keeps_the_steps_before_it() {
    let place = Workplace::with_cache();
    let all = rows(&place.read("train.tsv"));
    let many: Vec<_> = std::iter::repeat_n(&all[..], 40).flatten().cloned().collect();
    place.write("many.tsv", tsv(&many));
    // Steps take a moment and evaluations seconds.
    let done = stopped(&place, &format!("{LONG} --validation many.tsv --evaluate-steps 10"), "metrics.jsonl", "TERM");
    assert_eq!(done.code, Some(75), "{}", done.stderr);
    assert!(done.stderr.contains("--resume goes on from here"), "{}", done.stderr);
    assert_eq!(unfinished(&place), ["checkpoint.safetensors", "metrics.jsonl"]);
}
