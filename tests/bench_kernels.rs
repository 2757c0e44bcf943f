//! `distill bench kernels` on the emulated GPU, with faults planted between it and the program.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::emulated;
use crate::support::{Finished, Workplace, repository};

/// A library that passes launches on to the emulated GPU, except of kernels that `FAULTS` names, as `KERNEL=WHAT,..`:
/// 2 fails, 3 loses the GPU, a ends the process, h hangs.
const FAULTY: &str = r#"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef int (*Launch)(const char*, const unsigned*, const unsigned*, unsigned, void**);
int emulated_launch(const char* name, const unsigned* grid, const unsigned* block, unsigned shared, void** arguments) {
    static Launch launch;
    static int lost;
    if (!launch) launch = (Launch)dlsym(dlopen(REAL, RTLD_NOW), "emulated_launch");
    const char* faults = getenv("FAULTS");
    const char* found = faults ? strstr(faults, name) : NULL;
    if (lost) return 3;
    if (found && found[strlen(name)] == '=') {
        switch (found[strlen(name) + 1]) {
            case '2': return 2;
            case '3': lost = 1; return 3;
            case 'a': abort();
            case 'h': for (;;) pause();
        }
    }
    return launch(name, grid, block, shared, arguments);
}
"#;

/// The library's path; none without a compiler.
fn faulty(place: &Workplace) -> Option<PathBuf> {
    let real = emulated::library(&repository().join("student/nn"))?;
    place.write("faulty.c", FAULTY);
    let (source, library) = (place.path("faulty.c"), place.path("faulty.so"));
    let mut compile = Command::new("g++");
    compile.args(["-x", "c", "-std=gnu99", "-shared", "-fPIC", &format!("-DREAL=\"{}\"", real.display()), "-o"]);
    let status = compile.arg(&library).arg(&source).arg("-ldl").status();
    assert!(status.is_ok_and(|status| status.success()), "the library compiles");
    Some(library)
}

/// Checks quick parts with these faults.
fn check(parts: &str, faults: &str, flags: &str) -> Option<Finished> {
    let place = Workplace::new();
    let library = faulty(&place)?;
    let line = format!("bench kernels --only {parts} --threads 2 {flags}");
    let mut command = place.command(&line);
    let output = command.arg("--emulation").arg(&library).env("FAULTS", faults).output().expect("runs");
    Some(Finished::of(&line, output))
}

/// A part of the report, and how many of its checks failed.
fn part<'a>(report: &'a Value, name: &str) -> (&'a Value, u64, u64) {
    let parts = report["parts"].as_array().expect("a list");
    let part = parts.iter().find(|part| part["part"] == name).unwrap_or_else(|| panic!("no {name}"));
    (part, part["checks"].as_u64().expect("a count"), part["failed"].as_u64().expect("a count"))
}

#[test]
fn without_a_fault_all_checks_hold() {
    let Some(done) = check("rows,loss", "", "--json") else { return };
    done.succeeded();
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(report["device"], "emulated GPU");
    for name in ["rows", "loss"] {
        let (part, checks, failed) = part(&report, name);
        assert!(checks > 30 && failed == 0 && part["ended"].is_null(), "{part}");
    }
}

#[test]
fn a_fault_in_one_part_leaves_the_table_of_all_others() {
    let faults = "gather_rows_f32=2,soft_hard_loss_bf16=3,activation_backward_f32=a";
    let Some(done) = check("rows,loss,activation,embed", faults, "--json") else { return };
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    // A launch that fails is one check's, and the next is tried.
    let (rows, checks, failed) = part(&report, "rows");
    assert!(failed > 0 && failed < checks / 4 && rows["ended"].is_null(), "{rows}");
    let fault = report["failed"][0]["fault"].as_str().expect("why");
    assert!(fault.contains("gather_rows_f32"), "{fault}");
    // A GPU that is lost ends its part: the checks in f32 were made.
    let (loss, checks, failed) = part(&report, "loss");
    assert!(checks > 10 && failed == 0, "{loss}");
    let ended = loss["ended"].as_str().expect("why");
    assert!(ended.contains("for good") && ended.contains("last check before it: sum_rows (f32)"), "{ended}");
    let (activation, checks, _) = part(&report, "activation");
    assert!(checks > 0 && activation["ended"].as_str().is_some_and(|why| why.contains("signal 6")), "{activation}");
    let (embed, checks, failed) = part(&report, "embed");
    assert!(checks > 30 && failed == 0 && embed["ended"].is_null(), "{embed}");
    assert!(done.stderr.ends_with("and these parts ended early: loss, activation\n"), "{}", done.stderr);
}

#[test]
fn faults_in_three_parts_leave_each_what_it_had_and_the_fourth_its_table() {
    let faults = "norm_backward_bf16=3,attention_backward_query_f32=a,add_bias_bf16=2";
    let Some(done) = check("norm,attention,products,loss", faults, "--json") else { return };
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let (norm, checks, failed) = part(&report, "norm");
    let ended = norm["ended"].as_str().expect("why");
    assert!(checks > 100 && failed == 0 && ended.contains("for good"), "{norm}");
    assert!(report["kernels"]["norm_backward (f32): d_x"]["shapes"].as_u64() > Some(5), "{}", report["kernels"]);
    let (attention, ..) = part(&report, "attention");
    assert!(attention["ended"].as_str().is_some_and(|why| why.contains("signal 6")), "{attention}");
    let (products, checks, failed) = part(&report, "products");
    assert!(failed > 0 && failed < checks / 4 && products["ended"].is_null(), "{products}");
    let (loss, checks, failed) = part(&report, "loss");
    assert!(checks > 30 && failed == 0 && loss["ended"].is_null(), "{loss}");
    assert!(done.stderr.ends_with("and these parts ended early: norm, attention\n"), "{}", done.stderr);
}

#[test]
fn a_gpu_that_the_engine_loses_is_there_for_the_next_part() {
    let Some(done) = check("products,engine,loss", "adamw_marked=3", "--json") else { return };
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let (engine, checks, failed) = part(&report, "engine");
    let ended = engine["ended"].as_str().expect("why");
    assert!(ended.contains("for good") && ended.contains("engine gradients (f32)"), "{ended}");
    // Of the first model, before its step.
    assert_eq!((checks, failed), (2, 0), "{engine}");
    for name in ["products", "loss"] {
        let (part, checks, failed) = part(&report, name);
        assert!(checks > 30 && failed == 0 && part["ended"].is_null(), "{part}");
    }
}

#[test]
fn an_illegal_access_on_a_driver_ends_its_part_alone() {
    let Some(driver) = crate::gpu::driver() else { return };
    let place = Workplace::new();
    let line = "bench kernels --only activation,loss --json";
    let mut command = place.command(line);
    command.env("LD_LIBRARY_PATH", driver).env("EMULATED_GPU", "fault=activation_backward_bf16");
    let done = Finished::of(line, command.output().expect("runs"));
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let (activation, checks, failed) = part(&report, "activation");
    let ended = activation["ended"].as_str().expect("why");
    assert!(checks > 30 && failed == 0 && ended.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{activation}");
    let (loss, checks, failed) = part(&report, "loss");
    assert!(checks > 30 && failed == 0 && loss["ended"].is_null(), "{loss}");
}

#[test]
fn a_kernel_that_hangs_ends_its_part_alone() {
    let Some(done) = check("optimizer,loss", "adamw=h", "--json --limit 15") else { return };
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let (optimizer, _, _) = part(&report, "optimizer");
    assert!(optimizer["ended"].as_str().is_some_and(|why| why.starts_with("stopped after 15 s")), "{optimizer}");
    let (loss, checks, failed) = part(&report, "loss");
    assert!(checks > 10 && failed == 0 && loss["ended"].is_null(), "{loss}");
}

#[test]
fn a_fault_is_named_in_the_table_of_a_person() {
    let Some(done) = check("loss", "soft_hard_loss_f32=2", "") else { return };
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("soft_hard_loss_f32: a fault in the kernel"), "{}", done.stderr);
    assert!(done.stdout.contains("soft_hard_loss (bf16): d_logits"), "{}", done.stdout);
}

#[test]
fn a_device_that_is_not_there_is_said_once() {
    let place = Workplace::new();
    let error = place.refusal("bench kernels --emulation nowhere.so");
    assert!(error.contains("--emulation nowhere.so"), "{error}");
}
