//! A student on an emulated GPU takes the steps of one on the CPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use datasets::Task;
use nn::cuda::{Device, Precision};
use nn::hf::HfConfig;
use nn::{Activation, EncoderConfig, Family, Head, LayerSlot, Layout, Normal, Parameters, Slot};

use super::*;
use crate::objective::LossTermRecipe;

#[expect(clippy::print_stderr, reason = "says why a test does nothing")]
fn emulated_gpu() -> Option<Device> {
    if Command::new("g++").arg("--version").output().is_err() {
        eprintln!("skipped: g++ compiles the emulated GPU, and is not installed");
        return None;
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../student/nn/cuda");
    let files = |folder: PathBuf| fs::read_dir(folder).expect("the sources").map(|entry| entry.expect("a file").path());
    let mut paths: Vec<_> = files(sources.clone()).chain(files(sources.join("emulation"))).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    let mut hash = blake3::Hasher::new();
    paths.iter().for_each(|path| {
        hash.update(&fs::read(path).expect("a source"));
    });
    let folder = std::env::temp_dir().join("distill-emulated-gpu");
    fs::create_dir_all(&folder).expect("a folder for the library");
    let library = folder.join(format!("learner-{}.so", &hash.finalize().to_hex()[..16]));
    let lock = fs::File::create(library.with_extension("lock")).expect("a lock beside the library");
    lock.lock().expect("locks of files");
    if !library.exists() {
        let status = Command::new(sources.join("emulation/build.sh")).arg(&library).status();
        assert!(status.is_ok_and(|status| status.success()), "student/nn/cuda/emulation/build.sh failed");
    }
    Some(Device::emulated(&library).expect("the library that was just built"))
}

fn student(compute: &Compute) -> Student {
    let encoder = EncoderConfig {
        family: Family::Bert,
        head: Head::Classification,
        vocab_size: 40,
        embedding_size: 24,
        hidden_size: 24,
        num_layers: 2,
        num_heads: 3,
        intermediate_size: 40,
        max_positions: 32,
        pad_token_id: 0,
        type_vocab_size: 2,
        layer_norm_epsilon: 1e-12,
        activation: Activation::Gelu,
        hidden_dropout: 0.1,
        attention_dropout: 0.1,
        classifier_dropout: 0.1,
        num_labels: 3,
    };
    let mut parameters = Parameters::random(Layout::new(&encoder), 0, 1);
    parameters.flat_mut().iter_mut().for_each(|value| *value *= 3.0);
    let labels = ["a", "b", "c"].map(str::to_string).to_vec();
    Student::on(compute, HfConfig { encoder, labels }, parameters).expect("a student")
}

/// Four steps of two micro-batches each; the outcomes, and the number of them known after each step.
fn train(learner: &mut Learner<'_>, steps: std::ops::Range<usize>) -> (Vec<Outcome>, Vec<usize>) {
    let (mut outcomes, mut known) = (Vec::new(), Vec::new());
    for step in steps.clone() {
        let labels = [[Some(0), None, Some(2)], [Some(1), Some(1), None]];
        let counts = StepCounts { rows: 6, labelled: 4 };
        for (index, labels) in labels.iter().enumerate() {
            let starts = vec![0, 5, 6, 18];
            let batch = TokenBatch {
                input_ids: (0..18).map(|token| (token * 7 + step as u32 * 3 + index as u32) % 40).collect(),
                token_type_ids: (0..18).map(|token| token % 2).collect(),
                starts,
                rows: vec![0, 1, 2],
            };
            let mut teacher_logits = vec![0.0; 9];
            Normal::new((2 * step + index) as u64, "teacher", 1.5).fill(&mut teacher_logits);
            let dropout = DropoutRng::new(1, step as u64, index as u64);
            let rows = MicroBatch {
                positions: None,
                batch: &batch,
                first_row: 3 * index,
                labels,
                teacher: Some(&TeacherSignal::Dense(teacher_logits)),
                dropout: &dropout,
            };
            learner.micro_batch(&rows, counts).expect("a micro-batch");
        }
        learner.step(step, counts, 1e-3).expect("a step");
        outcomes.extend(learner.outcomes(step + 1 == steps.end).expect("outcomes"));
        known.push(outcomes.len());
    }
    (outcomes, known)
}

fn check(terms: Vec<LossTermRecipe>, fused: bool) {
    let Some(device) = emulated_gpu() else { return };
    let objective = Objective::new(Task::SingleLabel, terms).expect("an objective");
    assert_eq!(objective.fused().is_some(), fused);
    let gpu = Compute::Cuda { device, precision: Precision::F32 };
    let (mut on_cpu, mut on_gpu) = (student(&Compute::Cpu), student(&gpu));
    let optimizer = || AdamW::new(student(&Compute::Cpu).parameters().layout().clone(), 0.01);
    let mut cpu = Learner::new(&mut on_cpu, &objective, optimizer(), 0.01, 1.0, true).expect("a learner");
    let mut gpu = Learner::new(&mut on_gpu, &objective, optimizer(), 0.01, 1.0, true).expect("a learner");
    let (expected, known) = train(&mut cpu, 0..4);
    assert_eq!(known, [1, 2, 3, 4]);
    let (found, known) = train(&mut gpu, 0..4);
    assert_eq!(known, [0, 1, 2, 4]);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.step, expected.step);
        // Measured: at most 2.9e-7.
        let near = |a: f64, b: f64| (a - b).abs() <= 9e-7 * b.abs().max(1.0);
        assert!(
            near(found.gradient_norm, expected.gradient_norm),
            "{} {}",
            found.gradient_norm,
            expected.gradient_norm
        );
        assert!(near(found.loss.total(), expected.loss.total()), "{:?} {:?}", found.loss, expected.loss);
        for (found, expected) in found.loss.terms.iter().zip(&expected.loss.terms) {
            assert!(near(found.loss.sum, expected.loss.sum), "{found:?} {expected:?}");
            assert_eq!(found.loss.count, expected.loss.count);
        }
    }
    let (steps, _, _) = gpu.state().expect("the state").1.state();
    assert_eq!(steps, 4);
    let ours = gpu.student.parameters();
    for entry in ours.layout().entries() {
        if matches!(entry.slot, Slot::Layer(_, LayerSlot::KeyBias)) {
            // Its gradient is nothing but rounding, of which Adam makes whole steps.
            continue;
        }
        for (ours, theirs) in ours.get(entry.slot).iter().zip(cpu.student.parameters().get(entry.slot)) {
            // Measured: at most 4.6e-7.
            assert!((ours - theirs).abs() < 1.4e-6, "{}: {ours} {theirs}", entry.name);
        }
    }
}

const SOFT: LossTermRecipe = LossTermRecipe::SoftTarget { weight: 0.7, temperature: 2.0 };
const HARD: LossTermRecipe = LossTermRecipe::HardLabel { weight: 0.4 };

#[test]
fn a_gpu_takes_the_steps_of_the_cpu() {
    check(vec![SOFT, HARD], true);
    check(vec![HARD], true);
}

#[test]
fn an_objective_that_no_kernel_has_is_computed_on_the_host() {
    check(vec![SOFT, HARD, LossTermRecipe::SoftTarget { weight: 0.2, temperature: 1.0 }], false);
}

#[test]
fn a_learner_on_a_gpu_goes_on_from_its_optimizer_bit_for_bit() {
    let Some(device) = emulated_gpu() else { return };
    let objective = Objective::new(Task::SingleLabel, vec![SOFT, HARD]).expect("an objective");
    let compute = Compute::Cuda { device, precision: Precision::Bf16 };
    let optimizer = AdamW::new(student(&Compute::Cpu).parameters().layout().clone(), 0.01);
    let (mut whole, mut first, mut second) = (student(&compute), student(&compute), student(&compute));
    let mut learner = Learner::new(&mut whole, &objective, optimizer.clone(), 0.01, 1.0, true).expect("a learner");
    train(&mut learner, 0..4);

    let mut learner = Learner::new(&mut first, &objective, optimizer, 0.01, 1.0, true).expect("a learner");
    train(&mut learner, 0..2);
    let optimizer = learner.state().expect("the state").1.into_owned();
    second.set_parameters(first.parameters().flat()).expect("weights");
    let mut learner = Learner::new(&mut second, &objective, optimizer, 0.01, 1.0, true).expect("a learner");
    train(&mut learner, 2..4);
    whole.read_back().expect("weights");
    second.read_back().expect("weights");
    assert_eq!(whole.parameters().flat(), second.parameters().flat());
}
