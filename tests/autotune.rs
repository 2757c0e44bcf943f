//! `--autotune` over the emulated driver, whose algorithms give other bits each and whose fastest one a test chooses.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::gpu::driver;
use crate::support::{Finished, Workplace};

/// As many texts as a step has rows: all steps have products of the same shapes, so a stop after the first has met them.
fn data() -> String {
    let words = ["bread", "book", "train", "tree"];
    let labels = ["bakery", "library", "station", "garden"];
    let rows = (0..16).map(|row| format!("{} {}\t{}\n", words[row % 4], words[row / 4], labels[row % 4]));
    format!("text\tlabel\n{}", rows.collect::<String>())
}

const TRAIN: &str = "train --teacher teacher --data rows.tsv --validation rows.tsv --weight-soft 0 --num-layers 1 \
                     --batch-rows 16 --precision f32 --device cuda:0 --seed 1";

/// A training where the algorithm with this number is the fastest.
fn command(place: &Workplace, driver: &PathBuf, fastest: usize, flags: &str) -> Command {
    let mut command = place.command(&format!("{TRAIN} {flags}"));
    command.env("LD_LIBRARY_PATH", driver).env("EMULATED_GPU", format!("eager,orders-differ,fastest={fastest}"));
    command
}

fn train(place: &Workplace, driver: &PathBuf, fastest: usize, flags: &str) -> Finished {
    let done = Finished::of(flags, command(place, driver, fastest, flags).output().expect("runs"));
    done.succeeded();
    done
}

/// The chosen algorithms in a record, by their shapes.
fn choices(record: &Value) -> Vec<(String, u64)> {
    let algorithms = record["figures"]["products"]["algorithms"].as_object().expect("choices");
    algorithms.iter().map(|(shape, number)| (shape.clone(), number.as_u64().expect("a number"))).collect()
}

#[test]
fn a_tuned_training_that_is_resumed_keeps_its_choices_and_its_bits() {
    let Some(driver) = driver() else { return };
    let place = Workplace::new();
    place.write("rows.tsv", data());
    let flags = "--epochs 12 --autotune --output";
    train(&place, &driver, 2, &format!("{flags} whole"));

    let checkpoint = place.path("out/checkpoint.safetensors");
    let mut first = command(&place, &driver, 2, &format!("{flags} out"));
    let first = place.started(&mut first, "train").until(|| checkpoint.exists());
    assert_eq!(first.signal("INT").code, Some(130));
    // By now another algorithm is the fastest.
    let done = train(&place, &driver, 1, &format!("{flags} out --resume"));
    assert!(done.stderr.contains("going on after step"), "{}", done.stderr);
    assert!(place.read_bytes("out/model.safetensors") == place.read_bytes("whole/model.safetensors"));
    let [whole, out] = ["whole", "out"].map(|folder| place.read_json(&format!("{folder}/distill.json")));
    assert_eq!(choices(&whole), choices(&out));
    assert!(choices(&out).iter().all(|(_, number)| *number == 2), "{:?}", choices(&out));
    assert_eq!(out["inputs"]["fit"]["autotune"], true);

    // Without the flag the first ones are taken, and nothing is kept.
    train(&place, &driver, 2, "--epochs 12 --output plain");
    assert!(place.read_bytes("plain/model.safetensors") != place.read_bytes("whole/model.safetensors"));
    assert_eq!(place.read_json("plain/distill.json")["figures"].get("products"), None);
}
