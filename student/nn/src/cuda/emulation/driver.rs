//! The driver's own interface without a GPU: `driver.rs` and `blas.rs` run as they do on one, against libraries that look
//! at every call (`student/nn/cuda/emulation/driver`).
//!
//! A process opens the driver once and finds it by its name, so each task runs in a process of its own, which is this
//! test binary again with another path to its libraries.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::library::build_once;
use super::{library, races, root};
use crate::cuda::ProductChoices;
use crate::cuda::device::{Backend, Buffer, Device};
use crate::cuda::op::rows::launch::Cast;
use crate::cuda::operand::{Matrix, Number, Precision, Vector};
use crate::cuda::verify::engine::{Rows, weights};
use crate::cuda::verify::{Part, verify};
use crate::cuda::work::{Arguments, Launch};
use crate::hf::HfConfig;
use crate::{
    AdamW, Clip, Compute, DropoutRng, EncoderConfig, Error, Family, Mode, Model, Normal, SoftHardLoss, StepRates, Tap,
};

/// What is allowed: work may run late or at once; a driver may have no pools; cuBLASLt may refuse an algorithm that it
/// named, for sizes that it was not chosen for or for all, and read a bias in accesses of 16 bytes.
const MODES: [&str; 2] = ["", "eager,no-pool,other-sizes-refused,first-refused,misaligned-bias"];
/// No product is cuBLASLt's.
const NO_PRODUCTS: &str = "no-algorithm";
/// cuBLASLt adds no bias: a kernel does, behind its product.
const NO_BIAS: &str = "no-bias,trace";

#[test]
fn every_check_passes_over_the_driver_as_late_as_allowed_and_no_kernel_has_a_race() {
    let recording = std::env::temp_dir().join(format!("distill-launches-{}", std::process::id()));
    let words = format!("record={},record-each=1", recording.display());
    if every_check_passes(&words) {
        races::find_none_in(&recording);
        std::fs::remove_file(recording).expect("recorded");
    }
}

#[test]
fn every_check_passes_over_the_driver_at_once_and_with_algorithms_refused() {
    every_check_passes(MODES[1]);
}

/// Returns whether it could be found out.
fn every_check_passes(words: &str) -> bool {
    let Some(outcome) = run(words, "checks") else { return false };
    outcome.assert_clean();
    assert!(outcome.result[0][0] > 1000.0, "{} checks", outcome.result[0][0]);
    assert!(outcome.counted("launches") > 1000 && outcome.counted("products") > 1000);
    true
}

#[test]
fn a_training_and_a_capture_over_the_driver_are_the_emulated_device_s() {
    let Some(device) = super::device() else { return };
    for (precision, task, limit) in [(Precision::F32, "train-f32", F32), (Precision::Bf16, "train-bf16", BF16)] {
        let expected = train_and_capture(&device, precision).expect("no launch fails");
        let [late, early, alone, biased] = [MODES[0], MODES[1], NO_PRODUCTS, NO_BIAS].map(|mode| {
            let outcome = run(mode, task).expect("a compiler, as for the emulated device");
            outcome.assert_clean();
            outcome
        });
        assert_eq!(late.result, early.result, "{task}: when work runs changes what it computes");
        assert!(early.counted("products") > 0 && alone.counted("products") == 0);
        // No product is computed twice for it.
        assert!(biased.counted("products") == early.counted("products"));
        let add_bias = if precision == Precision::F32 { "add_bias_f32" } else { "add_bias_bf16" };
        assert!(biased.counted(add_bias) > 0);
        for outcome in [late, alone, biased] {
            for ((what, ours), theirs) in PARTS.iter().zip(&outcome.result).zip(&expected) {
                let distance = distance(ours, theirs);
                assert!(distance <= limit, "{task}, {what}: {distance:e} from the emulated device's, over {limit:e}");
            }
        }
    }
}

#[test]
fn tuned_products_take_the_fastest_algorithms_and_a_later_process_takes_the_same() {
    let kept = std::env::temp_dir().join(format!("distill-choices-{}.json", std::process::id()));
    let tune = format!("tune={}", kept.display());
    let choices = || -> ProductChoices {
        serde_json::from_slice(&std::fs::read(&kept).expect("kept by the task")).expect("choices")
    };
    let Some(plain) = run("fastest=2,orders-differ", "train-f32") else { return };
    // Nothing is kept yet, and the third algorithm is the fastest.
    let tuned = run("fastest=2,orders-differ", &tune).expect("a compiler");
    let first = choices();
    assert!(first.algorithms.len() > 20, "{}", first.algorithms.len());
    let others: Vec<_> = first.algorithms.iter().filter(|(_, number)| **number != 2).collect();
    assert!(others.is_empty(), "{others:#?}");
    // Now another one is, but the choices are there.
    let restored = run("fastest=1,orders-differ", &tune).expect("a compiler");
    assert_eq!(choices(), first);
    // Of another library's version they are made anew.
    let other = ProductChoices { cublaslt: "1.2.3".to_owned(), ..first.clone() };
    std::fs::write(&kept, serde_json::to_vec(&other).expect("JSON")).expect("the folder is there");
    let anew = run("fastest=1,orders-differ", &tune).expect("a compiler");
    assert_eq!(choices().cublaslt, first.cublaslt);
    assert!(choices().algorithms.values().all(|&number| number == 1));
    // Where algorithms refuse the sizes that a shape was rounded up from, what is computed is as without a choice.
    std::fs::remove_file(&kept).expect("written by the task");
    let refused = run("fastest=2,orders-differ,other-sizes-refused", &tune).expect("a compiler");
    assert!(choices().algorithms.values().any(|&number| number == 0));
    std::fs::remove_file(&kept).expect("written by the task");

    assert!(plain.result != tuned.result && plain.result != anew.result && tuned.result != anew.result);
    assert_eq!(refused.result, plain.result);
    assert_eq!(restored.result, tuned.result, "the same choices give the same bits");
    assert!(restored.counted("products") < tuned.counted("products"), "nothing is timed again");
    for outcome in [&tuned, &restored, &anew, &refused] {
        outcome.assert_clean();
        for ((what, ours), theirs) in PARTS.iter().zip(&outcome.result).zip(&plain.result) {
            let distance = distance(ours, theirs);
            assert!(distance <= F32, "{what}: {distance:e}, at most {F32:e}");
        }
    }
}

#[test]
fn what_a_gpu_would_not_forgive_is_found() {
    for (task, found, error) in [
        ("leave-memory", "byte 512 of an allocation of 512", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("read-freed", "an address that is not allocated", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("too-much-shared-memory", "more shared memory than a block can have", "CUDA_ERROR_INVALID_VALUE"),
        ("wrong-grid", "a grid of wrong size", "CUDA_ERROR_INVALID_VALUE"),
        // Freeing says nothing of an error.
        ("free-under-a-copy", "a copy still needs this memory", "no error"),
    ] {
        let Some(outcome) = run("", task) else { return };
        assert!(outcome.log.contains(found) && outcome.log.contains(error), "{task}: {}", outcome.log);
        assert!(outcome.counted("complaints") > 0, "{task}");
    }
}

#[test]
fn an_upload_reads_the_host_s_memory_when_it_is_waited_for() {
    for (mode, seen) in [("", 2.0), ("eager", 1.0)] {
        let Some(outcome) = run(mode, "change-under-a-copy") else { return };
        assert_eq!(outcome.result, [[seen]], "{mode}");
    }
}

/// Of what [`train_and_capture`] gives.
const PARTS: [&str; 3] = ["losses and norms", "changes of weights", "logits"];
/// Distance of a part from the emulated device's, whose products add up in another order. Measured: 2.4e-6 and 1.9e-2.
const F32: f64 = 7.2e-6;
const BF16: f64 = 5.7e-2;

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = length(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let distance = difference / length(&mut b.iter().map(|&b| f64::from(b))).max(1e-30);
    if distance.is_nan() { f64::INFINITY } else { distance }
}

// The process that has the driver.

const TASK: &str = "NN_DRIVER_TASK";
const RESULT: &str = "NN_DRIVER_RESULT";

#[test]
#[ignore = "a part of the tests above, in a process that they start"]
#[expect(clippy::print_stderr, reason = "the test reads it")]
fn task() {
    let Ok(task) = std::env::var(TASK) else { return };
    let device = Device::cuda(0).expect("a driver is laid out");
    let result = match task.as_str() {
        "checks" => vec![vec![checks(&device)]],
        "train-f32" => train_and_capture(&device, Precision::F32).expect("no call fails").into(),
        "train-bf16" => train_and_capture(&device, Precision::Bf16).expect("no call fails").into(),
        tune if tune.starts_with("tune=") => {
            tuned(&device, Path::new(&tune["tune=".len()..])).expect("no call fails").into()
        }
        "change-under-a-copy" => vec![vec![change_under_a_copy(&device)]],
        _ => {
            let result = break_a_rule(&device, &task);
            eprintln!("{}", result.err().map_or("no error".to_string(), |error| error.to_string()));
            Vec::new()
        }
    };
    drop(device);
    let path = std::env::var_os(RESULT).expect("where the result goes");
    std::fs::write(path, serde_json::to_vec(&result).expect("numbers")).expect("the folder is there");
}

/// Runs all that are not for a real GPU alone, and returns how many there are.
fn checks(device: &Device) -> f32 {
    let (mut count, mut failures) = (0, Vec::new());
    let report = &mut |check: crate::cuda::KernelCheck| {
        count += 1;
        if !check.passed {
            failures.push(format!("{check:?}"));
        }
    };
    for part in Part::ALL.into_iter().filter(|&part| part != Part::Large) {
        verify(device, part, report).expect("no call fails");
    }
    assert!(failures.is_empty(), "{} of {count} checks failed:\n{}", failures.len(), failures.join("\n"));
    count as f32
}

/// Trains and captures with products chosen by timing; the choices come from this file if there is one, and go there.
fn tuned(device: &Device, kept: &Path) -> Result<[Vec<f32>; 3], Error> {
    let read = std::fs::read(kept).ok();
    let choices: Option<ProductChoices> = read.map(|json| serde_json::from_slice(&json).expect("choices"));
    let same = device.tune_products(choices.as_ref());
    assert_eq!(same, choices.is_none_or(|choices| choices.cublaslt == "13.0.0"));
    let result = train_and_capture(device, Precision::F32);
    let choices = device.product_choices().expect("products are tuned");
    std::fs::write(kept, serde_json::to_vec(&choices).expect("JSON")).expect("the folder is there");
    device.stop_tuning_products();
    assert_eq!(device.product_choices(), None);
    result
}

/// Steps over batches whose sizes change, then a capture of the same batches.
fn train_and_capture(device: &Device, precision: Precision) -> Result<[Vec<f32>; 3], Error> {
    let config = EncoderConfig {
        hidden_dropout: 0.2,
        attention_dropout: 0.1,
        classifier_dropout: 0.3,
        ..Family::BERT.small(64)
    };
    let start = weights(&config);
    let layout = start.layout().clone();
    let compute = Compute::Cuda { device: device.clone(), precision };
    let mut model = Model::on(&compute, HfConfig { encoder: config.clone(), labels: Vec::new() }, start.clone())?;
    // Large second moments: no step divides a gradient of nothing but rounding by its own size.
    let (first, second) = (vec![0.0; layout.len()], vec![1e-5; layout.len()]);
    model.begin(AdamW::restore(layout, 0.01, 1000, first, second).expect("as many as there are weights"))?;
    let batches: Vec<Rows> = [&[3, 17, 1][..], &[40], &[5, 1, 2, 8, 33, 9], &[2, 2], &[70, 30, 64], &[1]]
        .iter()
        .zip(0..)
        .map(|(lengths, seed)| Rows::new(&config, lengths, seed))
        .collect();

    let rates = StepRates { learning_rate: 0.1, clip: Clip::Norm(0.5) };
    let mut reports = Vec::new();
    for step in 0..4u64 {
        for micro_batch in 0..2 {
            let batch = &batches[(2 * step as usize + micro_batch) % batches.len()];
            let rng = DropoutRng::new(1, step, micro_batch as u64);
            let mut teacher = vec![0.0; batch.len() * config.num_labels];
            Normal::new(step, "teacher", 2.0).fill(&mut teacher);
            let labels: Vec<i32> = (0..batch.len() as i32).map(|row| (row + step as i32) % 6 - 1).collect();
            let mut pass = model.forward(batch.input(), &[Tap::Logits], Mode::Train(&rng))?;
            let (soft_weight, temperature, hard_weight) = (0.1, 2.0, 0.1);
            let target_logits = Some(&teacher[..]);
            let loss = SoftHardLoss { target_logits, labels: &labels, soft_weight, temperature, hard_weight };
            assert!(model.soft_hard_loss(&mut pass, loss)?);
            model.backward(pass)?;
        }
        model.step(step, rates)?;
        reports.extend(model.reports(1)?);
    }
    reports.extend(model.reports(0)?);
    assert_eq!(reports.len(), 4);
    let figures = reports.iter().flat_map(|r| [r.losses[0] as f32, r.losses[1] as f32, r.gradient_norm as f32]);
    let changes = model.settle()?.flat().iter().zip(start.flat()).map(|(after, before)| after - before).collect();

    let mut logits = Vec::new();
    for batch in batches.iter().chain(&batches) {
        model.submit(batch.input())?;
        logits.extend(model.collect(1)?.into_iter().flatten());
    }
    while let Some(last) = model.collect(0)? {
        logits.extend(last);
    }
    Ok([figures.collect(), changes, logits])
}

/// Uploads from memory that is written to before anybody waits, and returns what has arrived.
fn change_under_a_copy(device: &Device) -> f32 {
    let buffer = Buffer::zeroed(device, 512).expect("memory");
    let mut bytes = 1f32.to_le_bytes().repeat(128);
    device.upload_later(buffer.ptr(), &bytes).expect("asked for");
    bytes.copy_from_slice(&2f32.to_le_bytes().repeat(128));
    device.synchronize().expect("done");
    device.read(Matrix::new(Number::F32, buffer.ptr(), [1, 1])).expect("read")[0]
}

/// Does what is not allowed, and waits for the device.
fn break_a_rule(device: &Device, task: &str) -> Result<(), Error> {
    let memory = || Buffer::zeroed(device, 512);
    let (from, to) = (memory()?, memory()?);
    let cast = |count| Cast {
        from: Vector { at: from.ptr(), len: count },
        to: Matrix::new(Number::F32, to.ptr(), [1, count]),
    };
    let launch = |grid, shared_bytes| {
        let launch = Launch { kernel: "cast_f32", grid, block: [32, 1, 1], shared_bytes };
        let slots = [from.ptr().0, to.ptr().0, 128];
        device.launch(launch, &slots.into_iter().fold(Arguments::new(), Arguments::push))
    };
    match task {
        "leave-memory" => cast(132).launch(device)?,
        "read-freed" => {
            let cast = cast(128);
            drop(from);
            cast.launch(device)?;
        }
        "too-much-shared-memory" => launch([1, 1, 1], 200 << 10)?,
        "wrong-grid" => launch([1, 65536, 1], 0)?,
        "free-under-a-copy" => {
            let Backend::Driver(driver) = &*device.backend else { panic!("a driver") };
            let words = driver.allocate_host(512)?;
            // SAFETY: just allocated with so many bytes.
            #[expect(unsafe_code, reason = "page-locked memory comes from the driver as a pointer")]
            let bytes = unsafe { std::slice::from_raw_parts_mut(words.cast::<u8>(), 512) };
            bytes.fill(0);
            device.upload_later(to.ptr(), bytes)?;
            driver.free_host(words);
        }
        other => panic!("no task {other}"),
    }
    device.synchronize()
}

// Starting it.

/// What a task has left.
struct Outcome {
    result: Vec<Vec<f32>>,
    /// The driver's counts.
    report: BTreeMap<String, u64>,
    log: String,
}

impl Outcome {
    fn counted(&self, what: &str) -> u64 {
        *self.report.get(what).unwrap_or_else(|| panic!("no {what} in the report"))
    }

    /// Nothing was complained of, and nothing is left over.
    fn assert_clean(&self) {
        for what in ["complaints", "left-in-streams", "left-allocated", "left-page-locked", "left-events"] {
            assert_eq!(self.counted(what), 0, "{what}:\n{}", self.log);
        }
    }
}

/// Runs a task with a driver that has these words to heed; `None`, with a word why, where there is no C++ compiler.
fn run(words: &str, task: &str) -> Option<Outcome> {
    let libraries = libraries()?;
    let kind = task.split('=').next().unwrap_or_default();
    let name = format!("distill-driver-{}-{kind}-{}", std::process::id(), words.len());
    let [result, report] = ["json", "txt"].map(|ending| std::env::temp_dir().join(&name).with_extension(ending));
    let mut path = OsString::from(libraries);
    if let Some(others) = std::env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(others);
    }
    let module = module_path!().split_once("::").expect("inside the crate").1;
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", &format!("{module}::task"), "--ignored", "--nocapture"])
        .envs([("LD_LIBRARY_PATH", &path), ("EMULATED_GPU_REPORT", &report.clone().into())])
        .envs([(TASK, task), ("EMULATED_GPU", words)])
        .env(RESULT, &result)
        .output()
        .expect("starts");
    let log = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n");
    assert!(output.status.success(), "{task} with {words:?}: {}\n{log}", output.status);
    let counts = std::fs::read_to_string(&report).expect("the driver's report");
    let counts = counts.lines().filter_map(|line| line.split_once(' '));
    let outcome = Outcome {
        result: serde_json::from_slice(&std::fs::read(&result).expect("a result")).expect("numbers"),
        report: counts.map(|(name, count)| (name.to_string(), count.parse().expect("a count"))).collect(),
        log,
    };
    for file in [result, report] {
        std::fs::remove_file(file).expect("written by the task");
    }
    Some(outcome)
}

/// The folder with both libraries.
fn libraries() -> Option<PathBuf> {
    let kernels = library()?;
    let folder = kernels.with_extension("driver");
    std::fs::create_dir_all(&folder).expect("a folder for the libraries");
    // Made last.
    build_once(&folder.join("libcuda.so"), &root().join("cuda/emulation/driver/build.sh"), &[&folder, kernels]);
    Some(folder)
}
