//! The engine on the emulated device against the engine on the CPU.

use super::*;
use crate::cuda::device::take_launches;
use crate::cuda::emulation;
use crate::cuda::verify::engine::{Rows, weights};
use crate::{Activation, AdamW, Encoder, Family, Head, LayerSlot, Normal, Slot};

pub(crate) fn config(family: Family, hidden: usize, layers: usize) -> EncoderConfig {
    EncoderConfig {
        family,
        head: Head::Classification,
        vocab_size: 50,
        embedding_size: if family == Family::Electra { hidden / 2 + 4 } else { hidden },
        hidden_size: hidden,
        num_layers: layers,
        num_heads: 2,
        intermediate_size: hidden * 2 + 8,
        max_positions: 72,
        pad_token_id: 0,
        type_vocab_size: if family == Family::DistilBert { 0 } else { 2 },
        layer_norm_epsilon: 1e-12,
        activation: Activation::Gelu,
        hidden_dropout: 0.0,
        attention_dropout: 0.0,
        classifier_dropout: 0.0,
        num_labels: 5,
    }
}

#[test]
fn a_masked_language_model_is_refused() {
    let Some(device) = emulation::device() else { return };
    let config = EncoderConfig { head: Head::MaskedLm, num_labels: 0, ..config(Family::Bert, 64, 2) };
    let error = CudaEncoder::new(&device, &config, Precision::F32).err().expect("refused").to_string();
    assert_eq!(error, "masked-language models compute on the CPU so far; give --device cpu");
}

fn with_dropout(config: EncoderConfig) -> EncoderConfig {
    EncoderConfig { hidden_dropout: 0.2, attention_dropout: 0.1, classifier_dropout: 0.3, ..config }
}

impl Rows {
    fn len(&self) -> usize {
        self.input().starts.len() - 1
    }
}

/// Largest difference between two slices, as a share of the second's largest value.
fn largest_distance(a: &[f32], b: &[f32]) -> f32 {
    let scale = b.iter().fold(1e-6f32, |scale, value| scale.max(value.abs()));
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    // What is no number is larger than any.
    differences.fold(0.0, |worst: f32, d| if d <= worst { worst } else { d }) / scale
}

/// Euclidean distance as a share of the second's length: rounding moves single elements far where a ReLU switches.
fn mean_distance(a: &[f32], b: &[f32]) -> f32 {
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let difference = length(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (difference / length(&mut b.iter().copied()).max(1e-6)) as f32
}

/// What may differ from the CPU's engine: outputs, gradients, trained weights.
#[derive(Clone, Copy)]
struct Tolerance {
    distance: fn(&[f32], &[f32]) -> f32,
    output: f32,
    gradient: f32,
    trained: f32,
}

/// Measured: at most 6.2e-7, 7.0e-6 and 8.8e-7.
const F32: Tolerance = Tolerance { distance: largest_distance, output: 1.9e-6, gradient: 2.1e-5, trained: 2.7e-6 };
/// Measured: at most 0.011, 0.105 (behind a ReLU; 0.034 elsewhere) and 0.0048.
const BF16: Tolerance = Tolerance { distance: mean_distance, output: 0.033, gradient: 0.32, trained: 0.015 };

fn tolerance(precision: Precision) -> Tolerance {
    if precision == Precision::Bf16 { BF16 } else { F32 }
}

/// Says how far apart two slices are, if asked to by the environment, and refuses too much.
#[expect(clippy::print_stderr, reason = "where somebody asks")]
fn close(what: &str, ours: &[f32], theirs: &[f32], tolerance: Tolerance, limit: f32) {
    assert_eq!(ours.len(), theirs.len());
    let distance = (tolerance.distance)(ours, theirs);
    if std::env::var_os("DISTILL_SHOW_DISTANCES").is_some() {
        eprintln!("distance {distance:9.2e} of {limit:7.1e}: {what}");
    }
    assert!(distance <= limit, "{what}: {distance:e}, at most {limit:e} is expected");
}

fn compare_gradients(ours: &Gradients, theirs: &Gradients, tolerance: Tolerance) {
    for entry in theirs.layout().entries() {
        let (ours, theirs) = (ours.get(entry.slot), theirs.get(entry.slot));
        if matches!(entry.slot, Slot::Layer(_, LayerSlot::KeyBias)) {
            // Zero by the mathematics: only rounding is left.
            let largest = ours.iter().fold(0.0f32, |largest, g| largest.max(g.abs()));
            assert!(largest < tolerance.gradient * 10.0, "{}: {largest}", entry.name);
            continue;
        }
        close(&entry.name, ours, theirs, tolerance, tolerance.gradient);
    }
}

/// Logits, hidden states and gradients of both engines.
fn check(config: &EncoderConfig, lengths: &[u32], precision: Precision) {
    let Some(device) = emulation::device() else { return };
    let (parameters, rows, tolerance) = (weights(config), Rows::new(lengths, 0), tolerance(precision));
    let mut cpu = Encoder::new(config).expect("a valid configuration");
    let mut gpu = CudaEncoder::new(&device, config, precision).expect("an engine");
    gpu.upload(&parameters).expect("upload");

    let expected = cpu.forward(&parameters, rows.input(), Capture::HIDDEN_STATES, Mode::Eval).expect("forward");
    gpu.forward(rows.input(), Capture::HIDDEN_STATES, Mode::Eval).expect("forward");
    let output = gpu.output().expect("output");
    close("logits of all rows", &output.logits, &expected.logits, tolerance, tolerance.output);
    assert_eq!(output.hidden_states.len(), config.num_layers + 1);
    for (index, (ours, theirs)) in output.hidden_states.iter().zip(&expected.hidden_states).enumerate() {
        close(&format!("hidden state {index}"), ours, theirs, tolerance, tolerance.output);
    }
    gpu.forward(rows.input(), Capture::LOGITS, Mode::Eval).expect("forward");
    let output = gpu.output().expect("output");
    close("logits of first rows", &output.logits, &expected.logits, tolerance, tolerance.output);
    assert!(output.hidden_states.is_empty());

    let rng = DropoutRng::new(1, 2, 3);
    let mut d_logits = vec![0.0; rows.len() * config.num_labels];
    Normal::new(5, "d_logits", 1.0).fill(&mut d_logits);
    let expected = cpu.forward(&parameters, rows.input(), Capture::LOGITS, Mode::Train(&rng)).expect("forward");
    let mut gradients = Gradients::zeros(parameters.layout().clone());
    cpu.backward(&parameters, &d_logits, &mut gradients).expect("backward");
    for capture in [Capture::LOGITS, Capture::HIDDEN_STATES] {
        gpu.forward(rows.input(), capture, Mode::Train(&rng)).expect("forward");
        close(
            "logits in training",
            &gpu.output().expect("output").logits,
            &expected.logits,
            tolerance,
            tolerance.output,
        );
        gpu.set_d_logits(&d_logits).expect("d_logits");
        gpu.backward().expect("backward");
        compare_gradients(&gpu.gradients().expect("gradients"), &gradients, tolerance);
        gpu.clear_gradients().expect("clear");
    }
}

const LENGTHS: [u32; 5] = [3, 17, 1, 8, 33];

#[test]
fn f32_equals_the_cpu_in_every_family() {
    for family in [Family::Bert, Family::Roberta, Family::Electra, Family::DistilBert] {
        check(&config(family, 24, 3), &LENGTHS, Precision::F32);
    }
}

#[test]
fn f32_equals_the_cpu_with_dropout() {
    for family in [Family::Bert, Family::Roberta, Family::Electra, Family::DistilBert] {
        check(&with_dropout(config(family, 24, 3)), &LENGTHS, Precision::F32);
    }
}

#[test]
fn f32_equals_the_cpu_at_odd_sizes() {
    // Heads of 9 and 5; a single layer; one row; as long as the model takes.
    check(&with_dropout(config(Family::Bert, 18, 1)), &[5, 1, 72], Precision::F32);
    check(&with_dropout(config(Family::Electra, 10, 2)), &[7], Precision::F32);
    let other = EncoderConfig { activation: Activation::GeluNew, num_labels: 1, ..config(Family::Bert, 64, 2) };
    check(&other, &[9, 2], Precision::Tf32);
}

#[test]
fn bf16_is_near_the_cpu() {
    for family in [Family::Bert, Family::Roberta, Family::Electra, Family::DistilBert] {
        check(&config(family, 64, 3), &LENGTHS, Precision::Bf16);
        check(&with_dropout(config(family, 128, 2)), &LENGTHS, Precision::Bf16);
    }
    check(&with_dropout(config(Family::Bert, 18, 1)), &[5, 1, 72], Precision::Bf16);
}

/// The loss of `distill`'s objective, in the plainest form: its two sums, and its gradient in the logits.
fn plain_loss(student: &[f32], classes: usize, loss: &SoftHardLoss<'_>) -> ([f64; 2], Vec<f32>) {
    let log_softmax = |logits: &[f32], temperature: f64| -> Vec<f64> {
        let scaled: Vec<f64> = logits.iter().map(|&logit| f64::from(logit) / temperature).collect();
        let top = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = top + scaled.iter().map(|value| (value - top).exp()).sum::<f64>().ln();
        scaled.into_iter().map(|value| value - log_sum).collect()
    };
    let (mut sums, mut gradient) = ([0.0; 2], Vec::new());
    for (row, logits) in student.chunks_exact(classes).enumerate() {
        let mut d = vec![0.0; classes];
        if let Some(teacher) = loss.teacher_logits {
            let t = loss.temperature;
            let ours = log_softmax(logits, t);
            let theirs = log_softmax(&teacher[row * classes..(row + 1) * classes], t);
            for class in 0..classes {
                sums[0] += t * t * theirs[class].exp() * (theirs[class] - ours[class]);
                d[class] += loss.soft_weight * t * (ours[class].exp() - theirs[class].exp());
            }
        }
        if loss.labels[row] >= 0 {
            let ours = log_softmax(logits, 1.0);
            sums[1] -= ours[loss.labels[row] as usize];
            for class in 0..classes {
                let target = f64::from(u8::from(class == loss.labels[row] as usize));
                d[class] += loss.hard_weight * (ours[class].exp() - target);
            }
        }
        gradient.extend(d.into_iter().map(|d| d as f32));
    }
    (sums, gradient)
}

/// Steps over two micro-batches each, with all that belongs to one; both engines side by side.
fn train(precision: Precision, steps: u64) {
    let tolerance = tolerance(precision);
    let Some(device) = emulation::device() else { return };
    let config = with_dropout(config(Family::Bert, 24, 2));
    let classes = config.num_labels;
    let mut parameters = weights(&config);
    let mut cpu = Encoder::new(&config).expect("a valid configuration");
    let mut adamw = AdamW::new(parameters.layout().clone(), 0.01);
    let mut gradients = Gradients::zeros(parameters.layout().clone());
    let mut gpu = CudaEncoder::new(&device, &config, precision).expect("an engine");
    gpu.upload(&parameters).expect("upload");
    let rates = StepRates { learning_rate: 1e-3, weight_decay: 0.01, max_gradient_norm: 0.5 };
    let mut reports = Vec::new();
    let mut expected = Vec::new();
    for step in 0..steps {
        let mut sums = [0.0; 2];
        let micro_batches = [Rows::new(&[5, 9, 3], step as u32), Rows::new(&[2, 14, 1, 6, 20], 7 + step as u32)];
        let rows: usize = micro_batches.iter().map(Rows::len).sum();
        for (index, batch) in micro_batches.iter().enumerate() {
            let mut teacher = vec![0.0; batch.len() * classes];
            Normal::new(step + 10 * index as u64, "teacher", 2.0).fill(&mut teacher);
            let labels: Vec<i32> = (0..batch.len() as i32).map(|row| (row + step as i32) % 6 - 1).collect();
            let loss = SoftHardLoss {
                teacher_logits: Some(&teacher),
                labels: &labels,
                soft_weight: 0.5 / rows as f64,
                temperature: 2.0,
                hard_weight: 0.5 / 6.0,
            };
            let rng = DropoutRng::new(1, step, index as u64);
            adamw.look_up(&mut parameters, batch.input().input_ids);
            let output = cpu.forward(&parameters, batch.input(), Capture::LOGITS, Mode::Train(&rng)).expect("forward");
            let (sum, d_logits) = plain_loss(&output.logits, classes, &loss);
            sums = [sums[0] + sum[0], sums[1] + sum[1]];
            cpu.backward(&parameters, &d_logits, &mut gradients).expect("backward");
            gpu.forward(batch.input(), Capture::LOGITS, Mode::Train(&rng)).expect("forward");
            gpu.soft_hard_loss(loss).expect("loss");
            gpu.backward().expect("backward");
        }
        compare_gradients(&gpu.gradients().expect("gradients"), &gradients, tolerance);
        let norm = gradients.norm();
        let clip = (rates.max_gradient_norm / (norm + 1e-6)).min(1.0) as f32;
        adamw.step(&mut parameters, &mut gradients, rates.learning_rate, clip);
        expected.push((step, sums, norm));
        gpu.step(step, rates).expect("step");
        reports.extend(gpu.reports(1).expect("reports"));
        assert_eq!(reports.len() as u64, step, "the last step's report comes one step late");
    }
    adamw.settle(&mut parameters);
    reports.extend(gpu.reports(0).expect("reports"));
    for (report, (step, sums, norm)) in reports.iter().zip(&expected) {
        assert_eq!(report.step, *step);
        let ours = [report.losses[0] as f32, report.losses[1] as f32, report.gradient_norm as f32];
        for (index, theirs) in [sums[0], sums[1], *norm].into_iter().enumerate() {
            close(
                &format!("figure {index} of step {step}"),
                &ours[index..=index],
                &[theirs as f32],
                tolerance,
                tolerance.output,
            );
        }
    }
    let mut trained = parameters.clone();
    gpu.download(&mut trained).expect("download");
    for entry in parameters.layout().clone().entries() {
        // Adam divides by the gradient's size: a gradient of nothing but rounding makes whole steps of noise.
        if !matches!(entry.slot, Slot::Layer(_, LayerSlot::KeyBias)) {
            let (ours, theirs) = (trained.get(entry.slot), parameters.get(entry.slot));
            close(&format!("trained {}", entry.name), ours, theirs, tolerance, tolerance.trained);
        }
    }
}

#[test]
fn three_steps_in_f32_are_the_cpu_s() {
    train(Precision::F32, 3);
}

#[test]
fn three_steps_in_bf16_are_near_the_cpu_s() {
    train(Precision::Bf16, 3);
}

#[test]
fn a_gradient_that_is_no_number_changes_nothing_and_is_named() {
    let Some(device) = emulation::device() else { return };
    let config = config(Family::DistilBert, 24, 2);
    let parameters = weights(&config);
    let rows = Rows::new(&LENGTHS, 0);
    for precision in [Precision::F32, Precision::Bf16] {
        let mut gpu = CudaEncoder::new(&device, &config, precision).expect("an engine");
        gpu.upload(&parameters).expect("upload");
        let rates = StepRates { learning_rate: 1e-3, weight_decay: 0.01, max_gradient_norm: 1.0 };
        for (step, value) in [(0, f32::NAN), (1, f32::INFINITY)] {
            gpu.forward(rows.input(), Capture::LOGITS, Mode::Train(&DropoutRng::new(1, step, 0))).expect("forward");
            let mut d_logits = vec![0.1; rows.len() * config.num_labels];
            d_logits[3] = value;
            gpu.set_d_logits(&d_logits).expect("d_logits");
            gpu.backward().expect("backward");
            gpu.step(step, rates).expect("step");
        }
        let reports = gpu.reports(0).expect("reports");
        assert_eq!(reports.iter().map(|report| report.step).collect::<Vec<_>>(), [0, 1]);
        assert!(reports.iter().all(|report| !report.gradient_norm.is_finite()), "{reports:?}");
        let mut after = parameters.clone();
        gpu.download(&mut after).expect("download");
        assert_eq!(after.flat(), parameters.flat());
        assert!(gpu.gradients().expect("gradients").flat().iter().all(|&g| g == 0.0));
        let (_, first, second) = gpu.optimizer_state().expect("state");
        assert!(first.iter().chain(&second).all(|&moment| moment == 0.0));
    }
}

#[test]
fn a_training_goes_on_from_its_state_bit_for_bit() {
    let Some(device) = emulation::device() else { return };
    let config = with_dropout(config(Family::Roberta, 24, 2));
    let rates = StepRates { learning_rate: 1e-3, weight_decay: 0.01, max_gradient_norm: 1.0 };
    let step = |gpu: &mut CudaEncoder, step: u64| {
        let rows = Rows::new(&LENGTHS, step as u32);
        gpu.forward(rows.input(), Capture::LOGITS, Mode::Train(&DropoutRng::new(1, step, 0))).expect("forward");
        let d_logits: Vec<f32> = (0..rows.len() * config.num_labels).map(|i| (i % 7) as f32 * 0.1 - 0.3).collect();
        gpu.set_d_logits(&d_logits).expect("d_logits");
        gpu.backward().expect("backward");
        gpu.step(step, rates).expect("step");
    };
    for precision in [Precision::F32, Precision::Bf16] {
        let mut whole = CudaEncoder::new(&device, &config, precision).expect("an engine");
        let mut parameters = weights(&config);
        whole.upload(&parameters).expect("upload");
        (0..4).for_each(|number| step(&mut whole, number));
        let mut expected = parameters.clone();
        whole.download(&mut expected).expect("download");

        let mut first = CudaEncoder::new(&device, &config, precision).expect("an engine");
        first.upload(&parameters).expect("upload");
        (0..2).for_each(|number| step(&mut first, number));
        first.download(&mut parameters).expect("download");
        let (steps, moment, square) = first.optimizer_state().expect("state");
        let mut second = CudaEncoder::new(&device, &config, precision).expect("an engine");
        second.upload(&parameters).expect("upload");
        second.restore_optimizer(steps, &moment, &square).expect("restore");
        (2..4).for_each(|number| step(&mut second, number));
        second.download(&mut parameters).expect("download");
        assert_eq!(parameters.flat(), expected.flat());
    }
}

#[test]
fn malformed_batches_are_refused_as_on_the_cpu() {
    let Some(device) = emulation::device() else { return };
    let config = config(Family::Bert, 24, 1);
    let mut gpu = CudaEncoder::new(&device, &config, Precision::F32).expect("an engine");
    let mut rows = Rows::new(&[3, 4], 0);
    rows.ids[5] = 50;
    let error = gpu.forward(rows.input(), Capture::LOGITS, Mode::Eval).expect_err("an id beyond the table");
    assert!(error.to_string().contains("token id 50 at position 5"), "{error}");
    assert!(matches!(gpu.backward(), Err(Error::NoForward)));
    let rows = Rows::new(&[3, 4], 0);
    gpu.forward(rows.input(), Capture::LOGITS, Mode::Eval).expect("forward");
    assert!(matches!(gpu.set_d_logits(&[0.0; 10]), Err(Error::NoForward)));
    gpu.forward(rows.input(), Capture::LOGITS, Mode::Train(&DropoutRng::new(1, 1, 1))).expect("forward");
    assert!(matches!(gpu.backward(), Err(Error::NoForward)), "no gradient in the logits was set");
}

#[test]
fn a_step_allocates_nothing_after_the_first_and_has_few_launches() {
    let Some(device) = emulation::device() else { return };
    // Kernels and products; two uploads, a late read and a zeroed report come on top.
    for (layers, kernels, products) in [(3, 61, 45), (6, 100, 81)] {
        let config = with_dropout(config(Family::DistilBert, 64, layers));
        let mut gpu = CudaEncoder::new(&device, &config, Precision::Bf16).expect("an engine");
        gpu.upload(&weights(&config)).expect("upload");
        let rates = StepRates { learning_rate: 1e-3, weight_decay: 0.01, max_gradient_norm: 1.0 };
        let mut bytes = 0;
        for step in 0..2 {
            let rows = Rows::new(&LENGTHS, 0);
            take_launches();
            gpu.forward(rows.input(), Capture::LOGITS, Mode::Train(&DropoutRng::new(1, step, 0))).expect("forward");
            let labels = vec![0; rows.len()];
            let (soft_weight, temperature, hard_weight) = (0.0, 1.0, 1.0);
            let loss = SoftHardLoss { teacher_logits: None, labels: &labels, soft_weight, temperature, hard_weight };
            gpu.soft_hard_loss(loss).expect("loss");
            gpu.backward().expect("backward");
            gpu.step(step, rates).expect("step");
            let launches = take_launches();
            let count = launches.iter().filter(|&&launch| launch == "matmul").count();
            assert_eq!((launches.len() - count, count), (kernels, products), "{launches:?}");
            assert!(step == 0 || gpu.device_bytes() == bytes, "{bytes} bytes, then {}", gpu.device_bytes());
            bytes = gpu.device_bytes();
        }
    }
}

#[test]
fn submitted_batches_come_back_in_their_order() {
    let Some(device) = emulation::device() else { return };
    let config = config(Family::Roberta, 24, 2);
    let mut gpu = CudaEncoder::new(&device, &config, Precision::F32).expect("an engine");
    gpu.upload(&weights(&config)).expect("upload");
    let batches = [Rows::new(&[3, 4], 1), Rows::new(&LENGTHS, 2), Rows::new(&[20], 3)];
    let mut expected = Vec::new();
    for rows in &batches {
        gpu.forward(rows.input(), Capture::LOGITS, Mode::Eval).expect("forward");
        expected.push(gpu.output().expect("output").logits);
    }
    let mut found = Vec::new();
    for rows in &batches {
        gpu.submit(rows.input()).expect("submit");
        found.extend(gpu.collect(1).expect("collect"));
    }
    assert_eq!(found.len(), 2);
    found.extend(gpu.collect(0).expect("collect"));
    assert_eq!(found, expected);
    assert_eq!(gpu.collect(0).expect("collect"), None);
}
