//! What `--help` says, word for word, so that a change to it is seen.

use crate::support::Workplace;

/// `distill COMMAND --help` in a window of 100 columns.
fn help(name: &str, command: &str) {
    let place = Workplace::new();
    let output = place.command(&format!("{command} --help")).env("COLUMNS", "100").output().expect("runs");
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).expect("text");
    let (_, example) = text.split_once("Example:\n").expect("an example");
    assert!(example.contains(&format!("distill {command}")), "{example}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "wider than the window: {text}");
    insta::assert_snapshot!(name, text);
}

#[test]
fn distill() {
    help("distill", "");
}

#[test]
fn finetune() {
    help("finetune", "finetune");
}

#[test]
fn cache() {
    help("cache", "cache");
}

#[test]
fn cache_inspect() {
    help("cache_inspect", "cache inspect");
}

#[test]
fn cache_verify() {
    help("cache_verify", "cache verify");
}

#[test]
fn cache_estimate() {
    help("cache_estimate", "cache estimate");
}

#[test]
fn cache_import() {
    help("cache_import", "cache import");
}

#[test]
fn cache_merge() {
    help("cache_merge", "cache merge");
}

#[test]
fn cache_export() {
    help("cache_export", "cache export");
}

#[test]
fn cache_gc() {
    help("cache_gc", "cache gc");
}

#[test]
fn data() {
    help("data", "data");
}

#[test]
fn data_inspect() {
    help("data_inspect", "data inspect");
}

#[test]
fn data_augment() {
    help("data_augment", "data augment");
}

#[test]
fn data_select() {
    help("data_select", "data select");
}

#[test]
fn data_clean() {
    help("data_clean", "data clean");
}

#[test]
fn propose() {
    help("propose", "propose");
}

#[test]
fn train() {
    help("train", "train");
}

#[test]
fn plot() {
    help("plot", "plot");
}

#[test]
fn evaluate() {
    help("evaluate", "evaluate");
}

#[test]
fn export() {
    help("export", "export");
}

#[test]
fn predict() {
    help("predict", "predict");
}

#[test]
fn bench() {
    help("bench", "bench");
}

#[test]
fn bench_capture() {
    help("bench_capture", "bench capture");
}

#[test]
fn bench_train() {
    help("bench_train", "bench train");
}

#[test]
fn bench_cache() {
    help("bench_cache", "bench cache");
}

#[test]
fn bench_gemm() {
    help("bench_gemm", "bench gemm");
}

#[test]
fn bench_kernels() {
    help("bench_kernels", "bench kernels");
}

#[test]
fn run() {
    help("run", "run");
}

#[test]
fn demo() {
    help("demo", "demo");
}
