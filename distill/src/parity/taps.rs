//! Tests of parity at taps, with dropout on: the value at every tap, and every gradient of losses at one or several
//! taps, against `transformers` with our dropout masks (`tests/fixtures/make_golden_taps.py`).

use std::fs;

use nn::cuda::Precision;
use nn::{Compute, DropoutRng, Gradients, Head, Mode, Model, PackedInput, Pass, Tap};
use serde_json::Value;

use super::golden::{Golden, GoldenBatch, difference, fixture, load_for};
use super::{MASKED, is_key_bias};
use crate::emulated::emulated_gpu;
use crate::inference::packed;

#[test]
fn bert_matches_transformers_at_every_tap() {
    parity("tiny-bert", Head::Classification, &Compute::Cpu);
}

#[test]
fn distilbert_matches_transformers_at_every_tap() {
    parity("tiny-distilbert", Head::Classification, &Compute::Cpu);
}

#[test]
fn roberta_matches_transformers_at_every_tap() {
    parity("tiny-roberta", Head::Classification, &Compute::Cpu);
}

#[test]
fn electra_matches_transformers_at_every_tap() {
    parity("tiny-electra", Head::Classification, &Compute::Cpu);
}

#[test]
fn mobilebert_matches_transformers_at_every_tap() {
    parity("tiny-mobilebert", Head::Classification, &Compute::Cpu);
    parity("tiny-mobilebert-norm", Head::Classification, &Compute::Cpu);
    parity("tiny-mobilebert-plain", Head::Classification, &Compute::Cpu);
}

#[test]
fn masked_language_models_match_transformers_at_every_tap() {
    for name in MASKED {
        parity(name, Head::MaskedLm, &Compute::Cpu);
    }
}

#[test]
fn models_on_a_gpu_match_transformers_at_every_tap() {
    let Some(device) = emulated_gpu() else { return };
    let compute = Compute::Cuda { device, precision: Precision::F32 };
    let thin = ["tiny-mobilebert", "tiny-mobilebert-norm"];
    for name in ["tiny-bert", "tiny-distilbert", "tiny-roberta", "tiny-electra"].into_iter().chain(thin) {
        parity(name, Head::Classification, &compute);
    }
    for name in MASKED {
        parity(name, Head::MaskedLm, &compute);
    }
}

/// Largest absolute differences; of gradients, over the largest element of the same gradient.
#[derive(Debug, Default)]
struct Differences {
    values: f64,
    gradients: f64,
    /// Where the true gradient is zero and rounding is left: the largest element itself.
    key_bias_gradients: f64,
}

fn within_tolerance(name: &str, found: &Differences) {
    // Tolerance, and the largest difference measured over all models, on the CPU and on a GPU.
    for (what, found, tolerance) in [
        ("values at the taps", found.values, 1.8e-5),                // 6.1e-6
        ("gradients", found.gradients, 2.4e-5),                      // 7.8e-6; on the CPU 4.6e-6
        ("gradients of key biases", found.key_bias_gradients, 4e-5), // 1.3e-5; on the CPU 7.8e-6, in PyTorch 6.0e-6
    ] {
        assert!(found <= tolerance, "{name}: {what} differ by {found:e}, tolerance {tolerance:e}");
    }
}

/// Compares everything that a golden file of taps holds.
#[expect(clippy::print_stderr, reason = "the differences measured, for --nocapture")]
fn parity(name: &str, head: Head, compute: &Compute) {
    let mut case = Case::load(name, head, compute);
    let mut found = Differences::default();
    let mut pass = case.forward(&case.taps.clone());
    for tap in case.taps.clone() {
        let value = case.model.read(&mut pass, tap).expect("asked for");
        found.values = found.values.max(difference(&value, &case.at_tap("value", tap)));
    }
    let mut compared = 0;
    for (loss, taps) in case.losses(name) {
        // The pass is asked for nothing else, so that it leaves out what these taps do not need.
        let mut pass = case.forward(&taps);
        for &tap in &taps {
            pass.enter(tap, case.at_tap("d", tap)).expect("as many as values");
        }
        case.model.backward(pass).expect("backward");
        let gradients = case.model.gradients().expect("gradients");
        case.model.clear_gradients().expect("zeros");
        compared += case.compare(&loss, &gradients, &mut found);
    }
    let is_gradient = |name: &String| name.starts_with("alone.") || name.starts_with("together.");
    assert_eq!(compared, case.golden.names().iter().filter(|name| is_gradient(name)).count(), "{name}: gradients");
    eprintln!("{name} on {}: {found:?}", compute.kind());
    within_tolerance(name, &found);
}

/// A model with the dropout of its configuration, and the batch of its golden file.
struct Case {
    golden: Golden,
    batch: GoldenBatch,
    /// Of a masked-language model the tokens with a label.
    positions: Option<Vec<u32>>,
    /// All taps of the model.
    taps: Vec<Tap>,
    model: Model,
    dropout: DropoutRng,
}

impl Case {
    fn load(name: &str, head: Head, compute: &Compute) -> Self {
        let loaded = load_for(&fixture(name), head).expect("loads");
        let encoder = &loaded.config.encoder;
        assert!(encoder.hidden_dropout > 0.0 && encoder.attention_dropout > 0.0 && encoder.classifier_dropout > 0.0);
        let golden = Golden::read_file(&fixture(name), "golden_taps.safetensors");
        let batch = golden.batch();
        let positions = (head == Head::MaskedLm).then(|| {
            let labels = golden.integers("labels");
            (0..).zip(&batch.attended).filter(|&(_, &index)| labels[index] >= 0).map(|(token, _)| token).collect()
        });
        let layers = encoder.num_layers;
        let projections = (0..layers).flat_map(|layer| [Tap::Query(layer), Tap::Key(layer), Tap::Value(layer)]);
        let pooled = golden.has("value.pooled").then_some(Tap::Pooled);
        let taps: Vec<Tap> = Tap::hidden_states(layers).chain(projections).chain(pooled).chain([Tap::Logits]).collect();
        assert_eq!(golden.names().iter().filter(|name| name.starts_with("value.")).count(), taps.len(), "{name}");
        let model = Model::on(compute, loaded.config, loaded.parameters).expect("a model");
        Self { golden, batch, positions, taps, model, dropout: DropoutRng::new(11, 5, 0) }
    }

    fn forward(&mut self, taps: &[Tap]) -> Pass {
        let input = PackedInput { positions: self.positions.as_deref(), ..packed(&self.batch.tokens) };
        self.model.forward(input, taps, Mode::Train(&self.dropout)).expect("forward")
    }

    /// The value at a tap, or the gradient that enters there, without padding.
    fn at_tap(&self, what: &str, tap: Tap) -> Vec<f32> {
        let encoder = &self.model.config().encoder;
        let values = self.golden.floats(&format!("{what}.{}", dotted(tap)));
        match tap {
            Tap::Pooled | Tap::Logits => values,
            Tap::Query(_) | Tap::Key(_) | Tap::Value(_) => self.batch.pack(&values, encoder.inner_size()),
            Tap::Hidden(_) => self.batch.pack(&values, encoder.hidden_size),
        }
    }

    /// The losses whose gradients the file has: their names, and at which taps they stand.
    fn losses(&self, name: &str) -> Vec<(String, Vec<Tap>)> {
        let names = self.golden.names();
        let alone = self.taps.iter().map(|&tap| (format!("alone.{}", dotted(tap)), vec![tap]));
        let alone = alone.filter(|(loss, _)| names.iter().any(|name| name.starts_with(&format!("{loss}."))));
        let about = fs::read(fixture(name).join("golden_taps.json")).expect("golden_taps.json");
        let about: Value = serde_json::from_slice(&about).expect("JSON");
        let together = about["together"].as_array().expect("a list").iter().map(|dotted_name| {
            let tap = self.taps.iter().find(|&&tap| *dotted_name == *dotted(tap));
            *tap.expect("a tap of the model")
        });
        alone.chain([("together".to_string(), together.collect())]).collect()
    }

    /// Compares the gradients of a loss in all parameters, and returns how many the file has. One that is not there is
    /// zero: no gradient reaches it, or in a bias of keys, rounding is all that there is.
    fn compare(&self, loss: &str, gradients: &Gradients, found: &mut Differences) -> usize {
        let mut compared = 0;
        for entry in gradients.layout().entries() {
            let (ours, name) = (gradients.get(entry.slot), format!("{loss}.{}", entry.name));
            if self.golden.has(&name) {
                let expected = self.golden.floats(&name);
                let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(f64::from(value.abs())));
                found.gradients = found.gradients.max(difference(ours, &expected) / largest);
                compared += 1;
            } else if is_key_bias(entry.slot) {
                found.key_bias_gradients = found.key_bias_gradients.max(difference(ours, &vec![0.0; ours.len()]));
            } else {
                assert!(ours.iter().all(|&value| value == 0.0), "{name} is not zero");
            }
        }
        compared
    }
}

/// A tap's name in the file.
fn dotted(tap: Tap) -> String {
    tap.to_string().replace(' ', ".")
}
