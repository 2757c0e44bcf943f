//! A student on an emulated GPU takes the steps of one on the CPU.

use datasets::Sampler;
use nn::cuda::Precision;
use nn::hf::HfConfig;
use nn::{AdamW, Clip, Compute, EncoderConfig, Family, LayerSlot, Layout, Normal, Parameters, Slot};

use datasets::TokenBatch;

use super::*;
use crate::emulated::emulated_gpu;
use crate::objective::{ClassWeights, HardLabel, LossTermRecipe, RDrop};

fn student(compute: &Compute) -> Model {
    let encoder = EncoderConfig {
        num_labels: 3,
        num_heads: 3,
        intermediate_size: 40,
        hidden_dropout: 0.1,
        attention_dropout: 0.1,
        classifier_dropout: 0.1,
        ..Family::BERT.small(24)
    };
    let mut parameters = Parameters::random(Layout::new(&encoder), 0, 1);
    parameters.flat_mut().iter_mut().for_each(|value| *value *= 3.0);
    let labels = ["a", "b", "c"].map(str::to_string).to_vec();
    Model::on(compute, HfConfig { encoder, labels }, parameters).expect("a student")
}

/// One with more layers and other weights.
fn teacher(compute: &Compute) -> Model {
    let encoder =
        EncoderConfig { num_labels: 3, num_layers: 4, num_heads: 3, intermediate_size: 40, ..Family::BERT.small(24) };
    let mut parameters = Parameters::random(Layout::new(&encoder), 0, 9);
    parameters.flat_mut().iter_mut().for_each(|value| *value *= 3.0);
    let labels = ["a", "b", "c"].map(str::to_string).to_vec();
    Model::on(compute, HfConfig { encoder, labels }, parameters).expect("a teacher")
}

/// A term of each kind on tokens.
fn on_tokens() -> Vec<LossTermRecipe> {
    let terms = [
        "hidden_mse,weight=0.3",
        "hidden_cosine,weight=0.2",
        // Both models' norms leave the same variance, so that the sign of its difference would be that of rounding.
        "feature_map,weight=0.2,mean=0.5,variance=0",
        "pkd,weight=5",
        "attention_scores_mse,weight=0.1",
        "attention_kl,weight=0.4",
        "value_relation,weight=0.3",
        "qkv_relations,weight=0.5,heads=4",
    ];
    terms.iter().map(|text| text.parse().expect("a term")).collect()
}

/// Steps of two micro-batches each; the outcomes, and the number of them known after each step.
fn train(learner: &mut Learner<'_>, steps: std::ops::Range<usize>) -> (Vec<Outcome>, Vec<usize>) {
    let (mut outcomes, mut known) = (Vec::new(), Vec::new());
    for step in steps.clone() {
        let labels = [vec![Some(0), None, Some(2)], vec![Some(1), Some(1), None]];
        let micro_batches = labels.into_iter().enumerate().map(|(index, labels)| {
            let batch = TokenBatch {
                input_ids: (0..18).map(|token| (token * 7 + step as u32 * 3 + index as u32) % 40).collect(),
                token_type_ids: (0..18).map(|token| token % 2).collect(),
                starts: vec![0, 5, 6, 18],
                rows: vec![0, 1, 2],
            };
            let mut teacher_logits = vec![0.0; 9];
            Normal::new((2 * step + index) as u64, "teacher", 1.5).fill(&mut teacher_logits);
            let read_by_teacher = learner.teacher.is_some().then(|| batch.clone());
            let questions = Questions { batch, positions: None, answers: labels };
            Prepared {
                questions,
                teacher: Some(TeacherSignal::Dense(teacher_logits)),
                read_by_teacher,
                hidden_states: BTreeMap::new(),
            }
        });
        let micro_batches: Vec<Prepared> = micro_batches.collect();
        assert_eq!(learner.take_step(step, &micro_batches, 1, 1e-3).expect("a step"), 6);
        outcomes.extend(learner.outcomes(step + 1 == steps.end).expect("outcomes"));
        known.push(outcomes.len());
    }
    (outcomes, known)
}

fn check(terms: Vec<LossTermRecipe>, fused: bool) {
    let Some(device) = emulated_gpu() else { return };
    let objective = Objective::new(&terms, &[], &[]).expect("an objective");
    assert_eq!(objective.fused().is_some(), fused);
    let gpu = Compute::Cuda { device, precision: Precision::F32 };
    let (mut on_cpu, mut on_gpu) = (student(&Compute::Cpu), student(&gpu));
    let (mut beside_cpu, mut beside_gpu) = (teacher(&Compute::Cpu), teacher(&gpu));
    let beside = |teacher| Some(teacher).filter(|_| objective.compares_tokens().is_some());
    let objective = objective
        .clone()
        .between(&on_cpu.config().encoder, &beside_cpu.config().encoder)
        .expect("a student and its teacher");
    let optimizer = || AdamW::new(student(&Compute::Cpu).parameters().layout().clone(), 0.01);
    let cpu = Learner::new(&mut on_cpu, &objective, optimizer(), Clip::Norm(1.0), true).expect("a learner");
    let gpu = Learner::new(&mut on_gpu, &objective, optimizer(), Clip::Norm(1.0), true).expect("a learner");
    let (mut cpu, mut gpu) = (cpu.beside(beside(&mut beside_cpu)), gpu.beside(beside(&mut beside_gpu)));
    let (expected, known) = train(&mut cpu, 0..4);
    assert_eq!(known, [1, 2, 3, 4]);
    let (found, known) = train(&mut gpu, 0..4);
    assert_eq!(known, [0, 1, 2, 4]);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.step, expected.step);
        // Measured: at most 4.4e-7.
        let near = |a: f64, b: f64| (a - b).abs() <= 1.3e-6 * b.abs().max(1.0);
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
    let (ours, optimizer) = gpu.model.state().expect("the state");
    assert_eq!(optimizer.state().0, 4);
    let theirs = cpu.model.settle().expect("weights");
    for entry in ours.layout().entries() {
        if matches!(entry.slot, Slot::Layer(_, LayerSlot::KeyBias)) {
            // Its gradient is nothing but rounding, of which Adam makes whole steps.
            continue;
        }
        for (ours, theirs) in ours.get(entry.slot).iter().zip(theirs.get(entry.slot)) {
            // Measured: at most 1e-6, where the first step's gradient is 6e-8 and Adam makes a whole step of it, its
            // rounding included; 4e-7 elsewhere.
            assert!((ours - theirs).abs() < 5e-6, "{}: {ours} {theirs}", entry.name);
        }
    }
}

const SOFT: LossTermRecipe = LossTermRecipe::soft_target(0.7, 2.0);
const HARD: LossTermRecipe = LossTermRecipe::hard_label(0.4);

#[test]
fn a_gpu_takes_the_steps_of_the_cpu() {
    check(vec![SOFT, HARD], true);
    check(vec![HARD], true);
}

#[test]
fn an_objective_that_no_kernel_has_is_computed_on_the_host() {
    check(vec![SOFT, HARD, LossTermRecipe::soft_target(0.2, 1.0)], false);
}

#[test]
fn a_teacher_beside_a_gpu_s_student_says_what_it_says_on_the_cpu() {
    check([&[SOFT, HARD], &on_tokens()[..]].concat(), false);
}

#[test]
fn a_learner_on_a_gpu_goes_on_from_its_optimizer_bit_for_bit() {
    let Some(device) = emulated_gpu() else { return };
    let objective = Objective::new(&[SOFT, HARD], &[], &[]).expect("an objective");
    let compute = Compute::Cuda { device, precision: Precision::Bf16 };
    let optimizer = AdamW::new(student(&Compute::Cpu).parameters().layout().clone(), 0.01);
    let (mut whole, mut first, mut second) = (student(&compute), student(&compute), student(&compute));
    let mut learner =
        Learner::new(&mut whole, &objective, optimizer.clone(), Clip::Norm(1.0), true).expect("a learner");
    train(&mut learner, 0..4);

    let mut learner = Learner::new(&mut first, &objective, optimizer, Clip::Norm(1.0), true).expect("a learner");
    train(&mut learner, 0..2);
    let optimizer = learner.model.state().expect("the state").1.into_owned();
    second.set_parameters(first.parameters().flat()).expect("weights");
    let mut learner = Learner::new(&mut second, &objective, optimizer, Clip::Norm(1.0), true).expect("a learner");
    train(&mut learner, 2..4);
    let whole = whole.settle().expect("weights");
    assert_eq!(whole.flat(), second.settle().expect("weights").flat());
}

/// Gradients and loss of a step with dropout whose micro-batches are cut at 14 tokens or at one row, against those of the
/// step in one piece: the largest difference over the largest element of the same tensor.
fn cut(compute: &Compute, terms: &[LossTermRecipe]) -> f64 {
    let rows: Vec<Vec<u32>> =
        (0..11).map(|row| (0..1 + row * 5 % 13).map(|token| (row * 17 + token * 7) % 40).collect()).collect();
    let encodings = Encodings::of_ids(&rows);
    let labels: Vec<Option<u32>> = (0..11).map(|row| (row % 4 != 3).then_some(row % 3)).collect();
    let said = |rows: &[u32], _: &Questions| {
        let logits = rows.iter().flat_map(|&row| {
            let mut logits = [0.0; 3];
            Normal::new(u64::from(row), "teacher", 1.5).fill(&mut logits);
            logits
        });
        Ok(TeacherSignal::Dense(logits.collect()))
    };
    let classes = ["a", "b", "c"].map(str::to_string);
    let objective = Objective::new(terms, &classes, &labels).expect("an objective");
    let views = objective.views();
    let beside = objective.compares_tokens().is_some();
    let (ours, theirs) = (student(&Compute::Cpu), teacher(&Compute::Cpu));
    let objective = objective.between(&ours.config().encoder, &theirs.config().encoder).expect("comparable models");
    let read_by_teacher = ReadByTeacher::Rows(encodings.clone());
    let examples = Examples {
        encodings: &encodings,
        labels: &labels,
        teacher: Some(&said),
        targets: &Targets::Labels,
        read_by_teacher: beside.then_some(&read_by_teacher),
        hidden_states: None,
        views,
    };
    let mut losses = Vec::new();
    let mut gradients = |batch_tokens, pieces| {
        let sampler = Sampler::new(encodings.lengths(), 3, 11, batch_tokens).expect("a sampler");
        let micro_batches = examples.prepare(0, &sampler.epoch(0).step(0)).expect("rows");
        assert_eq!(micro_batches.len(), pieces);
        let mut model = student(compute);
        let optimizer = AdamW::new(model.parameters().layout().clone(), 0.01);
        let learner = Learner::new(&mut model, &objective, optimizer, Clip::Norm(1.0), true).expect("a learner");
        let mut frozen = teacher(compute);
        let mut learner = learner.beside(Some(&mut frozen).filter(|_| beside));
        let (counts, rows) = learner.add_up(2, &micro_batches, 5, None).expect("the gradient of a step");
        assert_eq!((counts.rows, counts.labelled, rows), (11, 9, 11));
        losses.push(learner.loss.total());
        model.gradients().expect("gradients")
    };
    let whole = gradients(1000, 1);
    let pieces = [gradients(14, 8), gradients(1, 11)];
    let mut largest = 0.0f64;
    for loss in &losses {
        largest = largest.max((loss / losses[0] - 1.0).abs());
    }
    for in_pieces in pieces {
        for entry in whole.layout().entries() {
            let (found, expected) = (in_pieces.get(entry.slot), whole.get(entry.slot));
            let of = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let apart = found.iter().zip(expected).fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
            assert!(apart.is_finite() && of > 0.0, "{}", entry.name);
            if !matches!(entry.slot, Slot::Layer(_, LayerSlot::KeyBias)) {
                largest = largest.max(f64::from(apart / of));
            }
        }
    }
    largest
}

#[test]
fn a_step_in_smaller_micro_batches_has_the_gradient_of_the_step_in_one_piece() {
    // The sums have another order. Measured: 4.9e-7.
    let apart = cut(&Compute::Cpu, &[SOFT, HARD]);
    assert!(apart <= 1e-6, "{apart:e}");
    let Some(device) = emulated_gpu() else { return };
    // Measured: 5.6e-7.
    let apart = cut(&Compute::Cuda { device, precision: Precision::F32 }, &[SOFT, HARD]);
    assert!(apart <= 1e-6, "{apart:e}");
}

/// Class weights are divided by their sum over the step, and both views of a row keep their dropout masks.
#[test]
fn that_holds_with_class_weights_focal_loss_and_two_views() {
    let weights = Some(ClassWeights::Listed(vec![0.2, 1.0, 3.0]));
    let hard = LossTermRecipe::HardLabel(HardLabel {
        weight: 0.4,
        final_weight: None,
        class_weights: weights,
        focal_gamma: 2.0,
        label_smoothing: 0.0,
    });
    let terms = [SOFT, hard, LossTermRecipe::RDrop(RDrop { weight: 0.7 })];
    let apart = cut(&Compute::Cpu, &terms);
    assert!(apart <= 1e-6, "{apart:e}");
    let Some(device) = emulated_gpu() else { return };
    let apart = cut(&Compute::Cuda { device, precision: Precision::F32 }, &terms);
    assert!(apart <= 1e-6, "{apart:e}");
}

#[test]
fn that_holds_with_a_teacher_beside_the_student() {
    let terms = [&[SOFT, HARD], &on_tokens()[..]].concat();
    // Measured: 5.5e-7.
    let apart = cut(&Compute::Cpu, &terms);
    assert!(apart <= 2e-6, "{apart:e}");
    let Some(device) = emulated_gpu() else { return };
    let apart = cut(&Compute::Cuda { device, precision: Precision::F32 }, &terms);
    assert!(apart <= 2e-6, "{apart:e}");
}

/// Measured apart and added up, the terms' gradients are that of the loss.
#[test]
fn the_shares_of_the_terms_leave_a_step_as_it_is() {
    let rkd = "rkd,weight=0.2".parse().expect("a term");
    let terms = [&[SOFT, HARD, rkd], &on_tokens()[..]].concat();
    let (ours, theirs) = (student(&Compute::Cpu), teacher(&Compute::Cpu));
    let objective = Objective::new(&terms, &[], &[]).expect("an objective");
    let objective = objective.between(&ours.config().encoder, &theirs.config().encoder).expect("comparable models");
    let rows: Vec<Vec<u32>> =
        (0..4).map(|row| (0..3 + row).map(|token| (row * 17 + token * 7) % 40).collect()).collect();
    let encodings = Encodings::of_ids(&rows);
    let labels = [Some(0), None, Some(2), Some(1)];
    let said = |rows: &[u32], _: &Questions| {
        Ok(TeacherSignal::Dense(rows.iter().flat_map(|&row| [row as f32, 1.0, 0.5]).collect()))
    };
    let read_by_teacher = ReadByTeacher::Rows(encodings.clone());
    let examples = Examples {
        encodings: &encodings,
        labels: &labels,
        teacher: Some(&said),
        targets: &Targets::Labels,
        read_by_teacher: Some(&read_by_teacher),
        hidden_states: None,
        views: 1,
    };
    let prepared = examples.prepare(0, &[vec![0, 1, 2, 3]]).expect("rows");
    let stepped = |measured: bool| {
        let (mut model, mut frozen) = (student(&Compute::Cpu), teacher(&Compute::Cpu));
        let optimizer = AdamW::new(model.parameters().layout().clone(), 0.01);
        let learner = Learner::new(&mut model, &objective, optimizer, Clip::Norm(1.0), true).expect("a learner");
        let mut learner = learner.beside(Some(&mut frozen));
        let shares = if measured { learner.shares(0, &prepared, 5).expect("shares") } else { Vec::new() };
        learner.take_step(0, &prepared, 5, 1e-3).expect("a step");
        let losses = learner.outcomes(true).expect("an outcome").remove(0).loss;
        (shares, losses, learner.model.settle().expect("weights").flat().to_vec())
    };
    let ((shares, losses, measured), (_, plain_losses, plain)) = (stepped(true), stepped(false));
    assert!(measured == plain && losses == plain_losses);
    let names: Vec<&str> = shares.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, losses.terms.iter().map(|term| term.name).collect::<Vec<_>>());
    assert!(shares.iter().all(|(_, share)| *share > 0.0), "{shares:?}");
    assert!((shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-12);
}
