//! The program on a GPU, over the emulated driver: what a person is told of memory that runs out, of products that cuBLASLt
//! refuses and of rows that are slow, and the defaults there.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::emulated::{build_once, library};
use crate::support::{Finished, Workplace, repository};

/// The folder with the emulated driver and cuBLASLt; none, with a word why, where there is no C++ compiler.
pub(crate) fn driver() -> Option<PathBuf> {
    let nn = repository().join("student/nn");
    let kernels = library(&nn)?;
    let folder = kernels.with_extension("driver");
    std::fs::create_dir_all(&folder).expect("a folder for the libraries");
    build_once(&folder.join("libcuda.so"), &nn.join("cuda/emulation/driver/build.sh"), &[&folder, &kernels]);
    Some(folder)
}

/// Runs a command on the emulated GPU, with these words to heed.
fn on_gpu(place: &Workplace, driver: &Path, words: &str, line: &str) -> Finished {
    let line = format!("{line} --device cuda:0");
    let mut command = place.command(&line);
    let output = command.env("LD_LIBRARY_PATH", driver).env("EMULATED_GPU", words).output().expect("runs");
    Finished::of(&line, output)
}

/// Lines of what was said that have this in them.
fn said<'a>(done: &'a Finished, part: &str) -> Vec<&'a str> {
    done.stderr.lines().filter(|line| line.contains(part)).collect()
}

const TRAIN: &str = "train --teacher teacher --data train.tsv --weight-soft 0 --num-layers 1 --max-steps 3 --batch-rows 8 \
                     --output out";

#[test]
fn memory_that_is_full_at_the_start_is_named() {
    let Some(driver) = driver() else { return };
    let place = Workplace::new();
    let error = on_gpu(&place, &driver, "memory=16", "bench gemm --hidden-size 64").failure();
    assert!(error.contains("has no memory left for") && error.contains("--device cpu"), "{error}");
}

#[test]
fn memory_that_runs_out_within_a_training_is_named_with_what_needs_less() {
    let Some(driver) = driver() else { return };
    let place = Workplace::new();
    let line = format!("{TRAIN} --layers random --hidden-size 256 --num-heads 4");
    // Told that there is more, it begins.
    let error = on_gpu(&place, &driver, "memory=40", &format!("{line} --memory 1GiB")).failure();
    assert!(error.contains("the GPU has no room for") && error.contains("MiB are free"), "{error}");
    assert!(error.contains("--batch-tokens"), "{error}");
    let error = on_gpu(&place, &driver, "memory=40", &format!("{line} --overwrite")).failure();
    assert!(error.contains("the training takes about") && error.contains("are free for it"), "{error}");
    assert!(!place.path("out/model.safetensors").exists());
}

#[test]
fn a_product_that_is_refused_is_named_once_for_its_shape() {
    let Some(driver) = driver() else { return };
    let place = Workplace::new();
    for (words, instead) in [
        ("no-bias", "its bias is added by a kernel of its own"),
        ("no-algorithm", "a kernel of this program computes it, slowly"),
    ] {
        let done = on_gpu(&place, &driver, words, &format!("{TRAIN} --overwrite"));
        done.succeeded();
        let mut named = said(&done, "refuses the product");
        assert!(named.len() > 2 && named.iter().all(|line| line.contains(instead)), "{words}: {named:#?}");
        let count = named.len();
        named.sort();
        named.dedup();
        assert_eq!(named.len(), count, "{words}: {}", done.stderr);
    }
}

#[test]
fn rows_that_are_slow_are_said_once() {
    let Some(driver) = driver() else { return };
    let place = Workplace::new();
    place.edit_json("teacher/config.json", |config| config["max_position_embeddings"] = 4200.into());
    let line = "bench capture --model teacher --layers 1 --length 4150 --batch-rows 1 --repeats 2 --precision f32";
    let done = on_gpu(&place, &driver, "", line);
    done.succeeded();
    let slow = said(&done, "attention is slower for rows of more than 4096 tokens");
    assert!(slow.len() == 1 && slow[0].contains("one of 4150"), "{}", done.stderr);
    let place = Workplace::new();
    // Heads of 16 values, for which there is no kernel on tensor cores.
    let done = on_gpu(&place, &driver, "", "bench capture --model teacher --batch-rows 2 --length 5 --repeats 2");
    done.succeeded();
    assert_eq!(said(&done, "attention runs without tensor cores").len(), 1, "{}", done.stderr);
}

#[test]
fn a_pass_has_more_tokens_on_a_gpu_by_default() {
    let Some(driver) = driver() else { return };
    let place = Workplace::new();
    let line = "bench capture --model teacher --data train.tsv --limit 4 --repeats 1 --json";
    let batch_tokens = |done: Finished| {
        done.succeeded();
        let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
        report["data"]["batch_tokens"].as_u64()
    };
    assert_eq!(batch_tokens(on_gpu(&place, &driver, "", line)), Some(16_384));
    assert_eq!(batch_tokens(place.run(&format!("{line} --device cpu"))), Some(4096));
}

/// Runs `verify_gpu.sh` with tiny sizes on the emulated GPU.
fn verify(place: &Workplace, driver: &Path, program: &str, flags: &str) -> Finished {
    let script = repository().join("tests/scripts/verify_gpu.sh");
    let line = format!("{} --distill {program} --rehearsal --output out {flags}", script.display());
    let mut command = Command::new("bash");
    command.args(line.split_whitespace()).current_dir(place.path("")).env("LD_LIBRARY_PATH", driver);
    Finished::of(&line, command.output().expect("runs"))
}

#[test]
fn the_script_for_a_real_gpu_keeps_what_earlier_calls_found_and_names_a_crash() {
    let script = repository().join("tests/scripts/verify_gpu.sh");
    assert!(Command::new("bash").arg("-n").arg(script).status().is_ok_and(|status| status.success()));
    let Some(driver) = driver() else { return };
    let place = Workplace::new();
    let program = env!("CARGO_BIN_EXE_distill");
    let first = verify(&place, &driver, program, "--parts bench --cases train-6x768-32x128-autotune");
    first.succeeded();
    assert!(first.stdout.contains("1 passed, 0 failed"), "{}", first.stdout);

    // A program that a signal ends, where it is asked for launches.
    let crashing = format!("#!/bin/sh\ncase \"$*\" in *--launches*) kill -SEGV $$;; esac\nexec {program} \"$@\"\n");
    place.write("crashing", crashing);
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path("crashing"), permissions).expect("its own file");
    let done = verify(&place, &driver, "./crashing", "--parts launches --cases train-6x768-32x128 --keep");
    assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
    let failed = "launches-train-6x768-32x128";
    let named =
        done.stdout.lines().any(|line| line.starts_with(failed) && line.ends_with("FAILED: crashed by signal 11"));
    assert!(named && done.stdout.contains("1 passed, 1 failed"), "{}", done.stdout);
    let row = |name: &str| {
        let mut rows = done.stdout.lines().filter_map(|line| line.strip_prefix(name));
        rows.next_back().and_then(|row| row.split_whitespace().next()?.parse::<f64>().ok())
    };
    assert!(row("train 6x768 32x128 autotune  ") > Some(0.0), "{}", done.stdout);

    let archive = place.path("out/verify-gpu.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).current_dir(place.path("")).status();
    assert!(unpacked.is_ok_and(|status| status.success()));
    // It was run once more, with launches that are waited for.
    assert!(place.path(&format!("{failed}.again.log")).exists());
    let calls = place.read("calls.txt");
    let found: Vec<&str> = calls.lines().filter(|line| line.starts_with("call ")).map(|line| &line[..6]).collect();
    assert_eq!(found, ["call 1", "call 2"]);
    assert!(
        calls.contains("  ours-train-6x768-32x128-autotune: passed\n") && calls.contains("crashed by signal 11"),
        "{calls}"
    );
    let machines = place.read("machine.txt");
    assert!(machines.contains("call 1\n") && machines.contains("call 2\n"), "{machines}");
}
