//! Tests of parity with Hugging Face `transformers`: forward pass, loss, every gradient and ten optimiser steps of a
//! tiny random model of each family, against golden files written by `tests/fixtures/make_golden.py`.
//!
//! The tolerances are all in [`within_tolerance`]: about three times the largest difference measured, which is due to
//! f32 rounding (golden.json has the difference between PyTorch's own f32 and f64).

mod golden;
mod real;
mod taps;

use nn::hf::HfConfig;
use nn::{
    AdamW, Clip, DropoutRng, Family, Head, LayerSlot, Mode, Model, PackedInput, Parameters, Slot, StepRates, Tap,
};

use crate::inference::packed;
use crate::objective::{LossReport, LossTermRecipe, Objective, ObjectiveRows};
use crate::recipe::FitRecipe;
use crate::signal::TeacherSignal;
use crate::training::schedule::{Plateau, Schedule};
use golden::{Golden, GoldenBatch, difference, fixture, load, load_for};

#[test]
fn bert_matches_transformers() {
    parity("tiny-bert", Head::Classification);
}

#[test]
fn bert_with_tanh_gelu_matches_transformers() {
    parity("tiny-bert-gelu-new", Head::Classification);
}

#[test]
fn distilbert_matches_transformers() {
    parity("tiny-distilbert", Head::Classification);
}

#[test]
fn roberta_matches_transformers() {
    parity("tiny-roberta", Head::Classification);
}

#[test]
fn electra_matches_transformers() {
    parity("tiny-electra", Head::Classification);
}

#[test]
fn mobilebert_matches_transformers() {
    parity("tiny-mobilebert", Head::Classification);
}

#[test]
fn mobilebert_in_other_forms_matches_transformers() {
    parity("tiny-mobilebert-norm", Head::Classification);
    parity("tiny-mobilebert-plain", Head::Classification);
    parity("tiny-mobilebert-hidden", Head::Classification);
}

#[test]
fn masked_language_models_match_transformers() {
    for name in MASKED {
        parity(name, Head::MaskedLm);
    }
}

const CLASSIFIERS: [&str; 9] = [
    "tiny-bert",
    "tiny-bert-gelu-new",
    "tiny-distilbert",
    "tiny-roberta",
    "tiny-electra",
    "tiny-mobilebert",
    "tiny-mobilebert-norm",
    "tiny-mobilebert-plain",
    "tiny-mobilebert-hidden",
];

const MASKED: [&str; 4] = ["tiny-bert-mlm", "tiny-distilbert-mlm", "tiny-roberta-mlm", "tiny-mobilebert-mlm"];

/// Largest absolute differences; of gradients, over the largest element of the same gradient.
#[derive(Debug, Default)]
struct Differences {
    hidden_states: f64,
    logits: f64,
    losses: f64,
    gradients: f64,
    /// The largest element itself: the true gradient is zero.
    key_bias_gradients: f64,
    losses_of_steps: f64,
    norms_of_steps: f64,
    parameters_after_steps: f64,
}

fn within_tolerance(name: &str, found: &Differences) {
    // Tolerance, and the largest difference measured over all models.
    for (what, found, tolerance) in [
        ("hidden states", found.hidden_states, 1.3e-5),              // 4.3e-6
        ("logits", found.logits, 1.6e-5),                            // 5.2e-6
        ("losses", found.losses, 1.5e-6),                            // 4.8e-7
        ("gradients", found.gradients, 5e-5),                        // 1.6e-5
        ("gradients of key biases", found.key_bias_gradients, 1e-7), // 3.2e-8
        ("losses of the steps", found.losses_of_steps, 3e-6),        // 1.1e-6
        ("gradient norms of the steps", found.norms_of_steps, 4e-5), // 1.3e-5, of norms up to 7.6
        ("parameters after the steps", found.parameters_after_steps, 7e-6), // 2.3e-6, of a way of 4e-3
    ] {
        assert!(found <= tolerance, "{name}: {what} differ by {found:e}, tolerance {tolerance:e}");
    }
}

/// Compares everything that a golden file holds.
#[expect(clippy::print_stderr, reason = "the differences measured, for --nocapture")]
fn parity(name: &str, head: Head) {
    let mut case = Case::load(name, head);
    let mut found = Differences::default();

    let every_token: Vec<u32> = (0..case.batch.attended.len() as u32).collect();
    let positions = (head == Head::MaskedLm).then_some(every_token.as_slice());
    let input = PackedInput { positions, ..packed(&case.batch.tokens) };
    let encoder = case.model.config().encoder.clone();
    let taps: Vec<Tap> = Tap::hidden_states(encoder.num_layers).chain([Tap::Logits]).collect();
    let mut pass = case.model.forward(input, &taps, Mode::Eval).expect("forward");
    for layer in 0..=encoder.num_layers {
        let state = case.model.read(&mut pass, Tap::Hidden(layer)).expect("asked for");
        let padded = case.golden.floats(&format!("hidden_states.{layer}"));
        found.hidden_states =
            found.hidden_states.max(difference(&state, &case.batch.pack(&padded, encoder.hidden_size)));
    }
    let logits = case.logits(&every_token);
    found.logits = difference(&case.model.read(&mut pass, Tap::Logits).expect("asked for"), &logits);

    let Found { loss, logits: in_training } = case.forward_and_backward();
    let gradients = case.model.gradients().expect("gradients");
    found.logits = found.logits.max(difference(&in_training, &case.logits(&case.positions)));
    let terms: Vec<f32> = loss.terms.iter().map(|term| term.loss.mean() as f32).chain([loss.total() as f32]).collect();
    let names = match head {
        Head::Classification => ["loss_soft", "loss_hard", "loss"].as_slice(),
        // The one term is the loss.
        Head::MaskedLm => &["loss", "loss"],
    };
    let expected: Vec<f32> = names.iter().flat_map(|name| case.golden.floats(name)).collect();
    found.losses = difference(&terms, &expected);
    for entry in gradients.layout().entries() {
        let expected = case.golden.floats(&format!("grad.{}", entry.name));
        let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(f64::from(value.abs())));
        let apart = difference(gradients.get(entry.slot), &expected);
        match is_key_bias(entry.slot) {
            true => found.key_bias_gradients = found.key_bias_gradients.max(apart),
            false => found.gradients = found.gradients.max(apart / largest),
        }
    }
    let (losses, norms) = case.ten_steps();
    found.losses_of_steps = difference(&losses, &case.golden.floats("losses"));
    found.norms_of_steps = difference(&norms, &case.golden.floats("grad_norms"));
    let parameters = case.model.parameters();
    for entry in parameters.layout().entries().iter().filter(|entry| !is_key_bias(entry.slot)) {
        let expected = case.golden.floats(&format!("step10.{}", entry.name));
        found.parameters_after_steps =
            found.parameters_after_steps.max(difference(parameters.get(entry.slot), &expected));
    }
    eprintln!("{name}: {found:?}");
    within_tolerance(name, &found);
}

/// A model with the batch and the objective of its golden file, and no dropout.
struct Case {
    golden: Golden,
    batch: GoldenBatch,
    /// Of a masked-language model the tokens to predict; else the rows.
    positions: Vec<u32>,
    labels: Vec<Option<u32>>,
    objective: Objective,
    model: Model,
    dropout: DropoutRng,
}

/// One forward and backward pass.
struct Found {
    loss: LossReport,
    logits: Vec<f32>,
}

impl Case {
    fn load(name: &str, head: Head) -> Self {
        let loaded = load_for(&fixture(name), head).expect("loads");
        assert!(loaded.missing_head.is_empty() && loaded.unused.is_empty());
        let mut config = loaded.config;
        config.encoder.hidden_dropout = 0.0;
        config.encoder.attention_dropout = 0.0;
        config.encoder.classifier_dropout = 0.0;
        Self::new(Golden::read(&fixture(name)), config, loaded.parameters)
    }

    fn new(golden: Golden, config: HfConfig, parameters: Parameters) -> Self {
        let batch = golden.batch();
        let labels: Vec<Option<u32>> =
            golden.integers("labels").into_iter().map(|label| u32::try_from(label).ok()).collect();
        let (terms, positions, labels) = match config.encoder.head {
            Head::Classification => {
                let soft = LossTermRecipe::soft_target(0.5, 2.0);
                let terms = vec![soft, LossTermRecipe::hard_label(0.5)];
                (terms, (0..labels.len() as u32).collect(), labels)
            }
            Head::MaskedLm => {
                let of_tokens = (0..).zip(batch.attended.iter().map(|&index| labels[index]));
                let (positions, labels) = of_tokens.filter(|(_, label)| label.is_some()).unzip();
                (vec![LossTermRecipe::hard_label(1.0)], positions, labels)
            }
        };
        Self {
            batch,
            positions,
            labels,
            golden,
            objective: Objective::new(&terms, &[], &[]).expect("an objective"),
            model: Model::new(config, parameters).expect("a model"),
            dropout: DropoutRng::new(7, 0, 0),
        }
    }

    fn forward_and_backward(&mut self) -> Found {
        let mode = Mode::Train(&self.dropout);
        let masked = self.model.config().encoder.head == Head::MaskedLm;
        let positions = masked.then_some(self.positions.as_slice());
        let input = PackedInput { positions, ..packed(&self.batch.tokens) };
        let mut pass = self.model.forward(input, &[Tap::Logits], mode).expect("forward");
        let logits = self.model.read(&mut pass, Tap::Logits).expect("asked for");
        let teacher = (!masked).then(|| TeacherSignal::Dense(self.golden.floats("teacher_logits").to_vec()));
        let rows = ObjectiveRows {
            first_row: 0,
            classes: self.model.config().encoder.outputs(),
            student_logits: &logits,
            teacher: teacher.as_ref(),
            labels: &self.labels,
        };
        let mut d_logits = vec![0.0; logits.len()];
        let loss =
            self.objective.evaluate(&rows, &self.objective.counts(self.labels.iter()), &mut d_logits).expect("a loss");
        pass.enter(Tap::Logits, d_logits).expect("as many as logits");
        self.model.backward(pass).expect("backward");
        Found { loss, logits }
    }

    /// What `transformers` says, of a masked-language model at these tokens.
    fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        let encoder = &self.model.config().encoder;
        let logits = self.golden.floats("logits");
        match encoder.head {
            Head::Classification => logits,
            Head::MaskedLm => {
                let packed = self.batch.pack(&logits, encoder.vocab_size);
                let row = |&token: &u32| &packed[token as usize * encoder.vocab_size..][..encoder.vocab_size];
                tokens.iter().flat_map(row).copied().collect()
            }
        }
    }

    /// Ten steps as `Fit` takes them: losses before each step and norms before clipping.
    fn ten_steps(&mut self) -> (Vec<f32>, Vec<f32>) {
        let schedule = Schedule::new(FitRecipe::DEFAULT.schedule(), 1e-3, 0.2, 10);
        let (weight_decay, max_gradient_norm) = (0.01, 1.0);
        let optimizer = AdamW::new(self.model.parameters().layout().clone(), weight_decay);
        self.model.begin(optimizer).expect("an optimiser of the model's layout");
        let mut losses = Vec::new();
        for step in 0..10 {
            losses.push(self.forward_and_backward().loss.total() as f32);
            let learning_rate = schedule.learning_rate(step, &Plateau::default());
            self.model
                .step(step as u64, StepRates { learning_rate, clip: Clip::Norm(max_gradient_norm) })
                .expect("a step");
        }
        self.model.settle().expect("weights");
        let reports = self.model.reports(0).expect("reports");
        (losses, reports.iter().map(|report| report.gradient_norm as f32).collect())
    }
}

/// Whether the loss does not depend on this parameter: it adds the same to every score of a query.
fn is_key_bias(slot: Slot) -> bool {
    matches!(slot, Slot::Layer(_, LayerSlot::KeyBias))
}

#[test]
fn every_parameter_learns() {
    for name in CLASSIFIERS {
        // With the dropout of their configurations.
        let loaded = load(&fixture(name)).expect("loads");
        learns(name, Case::new(Golden::read(&fixture(name)), loaded.config, loaded.parameters));
    }
    for name in MASKED {
        let loaded = load_for(&fixture(name), Head::MaskedLm).expect("loads");
        learns(name, Case::new(Golden::read(&fixture(name)), loaded.config, loaded.parameters));
    }
}

/// After one backward pass every parameter's gradient is finite and not zero; of a table, that of every row that was
/// looked up, and of no other, unless it is an output matrix too: then that of every row.
fn learns(name: &str, mut case: Case) {
    case.forward_and_backward();
    let gradients = case.model.gradients().expect("gradients");
    let encoder = &case.model.config().encoder;
    let tokens = &case.batch.tokens;
    let positions: Vec<u32> = {
        let offset = encoder.position_offset() as u32;
        tokens.starts.windows(2).flat_map(|pair| offset..offset + pair[1] - pair[0]).collect()
    };
    for entry in gradients.layout().entries().iter().filter(|entry| !is_key_bias(entry.slot)) {
        let gradient = gradients.get(entry.slot);
        assert!(gradient.iter().all(|value| value.is_finite()), "{name}: {}", entry.name);
        let looked_up = match entry.slot {
            Slot::WordEmbeddings if encoder.head == Head::MaskedLm => &(0..encoder.vocab_size as u32).collect(),
            Slot::WordEmbeddings => &tokens.input_ids,
            Slot::TypeEmbeddings => &tokens.token_type_ids,
            Slot::PositionEmbeddings => &positions,
            _ => {
                assert!(gradient.iter().any(|&value| value != 0.0), "{name}: {} does not learn", entry.name);
                continue;
            }
        };
        for (row, gradient) in (0..).zip(gradient.chunks_exact(entry.shape[1])) {
            let moves = gradient.iter().any(|&value| value != 0.0);
            assert_eq!(moves, looked_up.contains(&row), "{name}: {}, row {row}", entry.name);
        }
    }
}

#[test]
fn every_form_of_a_checkpoint_gives_the_same_parameters() {
    let expected = load(&fixture("tiny-bert")).expect("loads");
    for name in ["tiny-bert-bin", "tiny-bert-sharded"] {
        let found = load(&fixture(name)).expect(name);
        assert_eq!(found.config, expected.config, "{name}");
        assert_eq!(found.parameters.flat(), expected.parameters.flat(), "{name}");
        assert!(found.missing_head.is_empty(), "{name}");
    }
}

#[test]
fn a_body_with_old_names_loads_and_its_missing_head_is_reported() {
    let expected = load(&fixture("tiny-bert")).expect("loads");
    let found = load(&fixture("tiny-bert-legacy")).expect("loads");
    assert_eq!(found.config.encoder.family, Family::BERT);
    // The pooler belongs to BERT's body.
    assert_eq!(found.missing_head, [Slot::HeadOutputWeight, Slot::HeadOutputBias]);
    for entry in found.parameters.layout().entries().iter().filter(|entry| !found.missing_head.contains(&entry.slot)) {
        assert_eq!(found.parameters.get(entry.slot), expected.parameters.get(entry.slot), "{}", entry.name);
    }
}

#[test]
fn the_old_form_of_a_pickle_is_refused_by_name() {
    let error = load(&fixture("tiny-bert-oldbin")).expect_err("refused").to_string();
    assert!(error.contains("pytorch_model.bin: weights in the old format of torch.save"), "{error}");
}
