//! Checks the GPU engine against the CPU engine: logits, gradients and two optimiser steps of small encoders. What else a
//! training can ask of it is in `settings.rs`.

use std::ops::Range;
use std::sync::Arc;

use super::bench::{KernelCheck, go_on};
use crate::cuda::device::Device;
use crate::cuda::operand::Precision;
use crate::hf::HfConfig;
use crate::{
    AdamW, Blocks, Clip, Compute, DropoutRng, EncoderConfig, Error, Family, Head, LayerSlot, Layout, Mode, Model,
    Normal, PackedInput, Parameters, Slot, StepRates, Tap,
};

/// What may differ, as the Euclidean distance to the CPU's result over that one's length.
#[derive(Clone, Copy)]
pub(super) struct Distances {
    pub(super) logits: f64,
    pub(super) gradients: f64,
    /// Of what two steps changed.
    pub(super) steps: f64,
}

/// Measured: 7.6e-7, 1.3e-6 and 2.5e-6, with the CPU's products on both sides. A GPU's add up in another order, in each
/// layer anew: ten times as much.
const F32: Distances = Distances { logits: 7.6e-6, gradients: 1.3e-5, steps: 2.5e-5 };
/// Measured: 9.1e-3, 1.9e-2 and 6.9e-2 (in MobileBERT; 2.0e-2 elsewhere); three times as much.
const BF16: Distances = Distances { logits: 2.7e-2, gradients: 5.7e-2, steps: 0.21 };
/// Measured with the operands' mantissas cut off behind ten bits, as the driver's stand-in does and the emulation does
/// not: 2.7e-3, 1.2e-2 and 2.2e-2 (in MobileBERT; 2.0e-3, 5.2e-3 and 4.2e-3 elsewhere); three times as much.
const TF32: Distances = Distances { logits: 8.1e-3, gradients: 3.6e-2, steps: 6.6e-2 };

pub(super) const PRECISIONS: [(Precision, Distances); 3] =
    [(Precision::F32, F32), (Precision::Tf32, TF32), (Precision::Bf16, BF16)];

/// Tokens of the rows.
pub(super) const LENGTHS: [u32; 6] = [3, 17, 1, 130, 8, 33];
pub(super) const VOCABULARY: u32 = 50;
const LABELS: usize = 3;

/// Large, so that what a step changes is not lost in the rounding of weights.
const WEIGHT_DECAY: f64 = 0.01;
pub(super) const RATES: StepRates = StepRates { learning_rate: 0.1, clip: Clip::Norm(1.0) };
/// Steps that the optimiser's state says were taken.
const STEPS_BEFORE: u64 = 1000;

/// Runs models that have every operation between them over one batch a step, in every precision.
pub(super) fn verify(device: &Device, report: &mut dyn FnMut(KernelCheck)) -> Result<(), Error> {
    let masked = EncoderConfig { head: Head::MaskedLm, num_labels: 0, ..config(Family::BERT, 64) };
    let thin = EncoderConfig { head: Head::MaskedLm, num_labels: 0, ..config(Family::MOBILEBERT, 64) };
    for config in [config(Family::DISTILBERT, 64), config(Family::BERT, 128), masked, thin] {
        for (precision, limits) in PRECISIONS {
            let shape = format!("{:?}, {:?}, heads of {}", config.family, config.head, config.head_size());
            let result = engine(device, &config, precision, limits, &mut |kernel, worst, tolerance| {
                report(worst.check(kernel, precision, &shape, tolerance));
            });
            go_on(result, &format!("engine ({precision})"), &shape, report)?;
        }
    }
    Ok(())
}

/// Two layers, two heads, dropout everywhere.
pub(super) fn config(family: Family, hidden: usize) -> EncoderConfig {
    let small = family.small(hidden);
    EncoderConfig {
        vocab_size: VOCABULARY as usize,
        // A width that products in bf16 take without padding.
        embedding_size: if family == Family::MOBILEBERT { hidden / 2 } else { hidden },
        max_positions: 136,
        hidden_dropout: 0.2,
        attention_dropout: 0.1,
        classifier_dropout: 0.3,
        num_labels: LABELS,
        blocks: Blocks { feed_forwards: small.blocks.feed_forwards.min(2), ..small.blocks },
        ..small
    }
}

/// Two steps of both engines, side by side from the same state.
fn engine(
    device: &Device,
    config: &EncoderConfig,
    precision: Precision,
    limits: Distances,
    report: &mut dyn FnMut(&str, Worst, f64),
) -> Result<(), Error> {
    let start = weights(config);
    let layout = start.layout().clone();
    let optimizer = optimizer(&layout, &(0..0))?;
    let mut models = both(device, config, precision, &optimizer)?;
    for step in 0..2 {
        let rows = Rows::new(config, &LENGTHS, step);
        let (mut logits, mut gradients) = (Vec::new(), Vec::new());
        for model in &mut models {
            let [out] = &*pass(model, &rows, &[Tap::Logits], step)? else { return Err(Error::NoForward) };
            logits.push(out.clone());
            gradients.push(model.gradients()?);
        }
        // The second step begins from weights that are no longer the same; they are compared below.
        if step == 0 {
            let mut worst = Worst::new();
            worst.add("logits", &logits[1], &logits[0], length(&logits[0]));
            report("logits", worst, limits.logits);
            report("gradients", Worst::of(&layout, gradients[1].flat(), gradients[0].flat()), limits.gradients);
        }
        models.iter_mut().try_for_each(|model| model.step(u64::from(step), RATES))?;
    }
    let [theirs, ours] = changes(&mut models, &start)?;
    report("two steps", Worst::of(&layout, &ours, &theirs), limits.steps);
    Ok(())
}

/// AdamW with moments from a life before, so that no step divides a gradient by its own size, which makes whole steps of
/// rounding; without any for this range of the parameters.
pub(super) fn optimizer(layout: &Arc<Layout>, without: &Range<usize>) -> Result<AdamW, Error> {
    let (first, mut second) = (vec![0.0; layout.len()], vec![1e-5; layout.len()]);
    second[without.clone()].fill(0.0);
    let restored = AdamW::restore(layout.clone(), WEIGHT_DECAY, STEPS_BEFORE, first, second);
    restored.ok_or_else(|| Error::Batch("the moments do not fit the layout".to_string()))
}

/// The same model on the CPU and on the device, at the start of a training.
pub(super) fn both(
    device: &Device,
    config: &EncoderConfig,
    precision: Precision,
    optimizer: &AdamW,
) -> Result<[Model; 2], Error> {
    let on = |compute: Compute| -> Result<Model, Error> {
        let labels = Vec::new();
        let mut model = Model::on(&compute, HfConfig { encoder: config.clone(), labels }, weights(config))?;
        model.begin(optimizer.clone())?;
        Ok(model)
    };
    Ok([on(Compute::Cpu)?, on(Compute::Cuda { device: device.clone(), precision })?])
}

/// Forward in training, and backward from made-up gradients at these taps. Returns the values there.
pub(super) fn pass(model: &mut Model, rows: &Rows, taps: &[Tap], step: u32) -> Result<Vec<Vec<f32>>, Error> {
    let rng = DropoutRng::new(1, u64::from(step), 0);
    let mut pass = model.forward(rows.input(), taps, Mode::Train(&rng))?;
    let mut values = Vec::new();
    for &tap in taps {
        let value = model.read(&mut pass, tap)?;
        let mut gradient = vec![0.0; value.len()];
        Normal::new(u64::from(step), &format!("d_{tap}"), 1.0).fill(&mut gradient);
        pass.enter(tap, gradient)?;
        values.push(value);
    }
    model.backward(pass)?;
    Ok(values)
}

/// What training has added to the weights of each model.
pub(super) fn changes(models: &mut [Model; 2], start: &Parameters) -> Result<[Vec<f32>; 2], Error> {
    let mut change = |model: usize| -> Result<Vec<f32>, Error> {
        let after = models[model].settle()?.flat();
        Ok(after.iter().zip(start.flat()).map(|(after, before)| after - before).collect())
    };
    Ok([change(0)?, change(1)?])
}

/// Weights far from zero.
pub(in crate::cuda) fn weights(config: &EncoderConfig) -> Parameters {
    let layout = Layout::new(config);
    let mut parameters = Parameters::zeros(layout.clone());
    for entry in layout.entries() {
        let norm = entry.name.contains("orm.weight");
        let values = parameters.get_mut(entry.slot);
        let width = entry.shape.last().map_or(1.0, |&width| width as f64);
        let deviation = if entry.shape.len() > 1 { 1.0 / width.sqrt() } else { 0.1 };
        Normal::new(3, &entry.name, deviation).fill(values);
        values.iter_mut().for_each(|value| *value += if norm { 1.0 } else { 0.0 });
    }
    parameters
}

/// A batch of rows of these lengths.
pub(in crate::cuda) struct Rows {
    pub(in crate::cuda) ids: Vec<u32>,
    types: Vec<u32>,
    starts: Vec<u32>,
    /// Of a masked-language model.
    pub(in crate::cuda) asked: Option<Vec<u32>>,
}

impl Rows {
    pub(in crate::cuda) fn new(config: &EncoderConfig, lengths: &[u32], seed: u32) -> Self {
        let mut starts = vec![0];
        for length in lengths {
            starts.push(starts[starts.len() - 1] + length);
        }
        let tokens = 0..starts[starts.len() - 1];
        let ids = tokens.clone().map(|i| (i * 7 + i / 11 + seed * 13) % VOCABULARY).collect();
        // Two in three tokens: rows of one token with it or without.
        let asked = (config.head == Head::MaskedLm).then(|| tokens.clone().filter(|token| token % 3 != 2).collect());
        Self { ids, types: tokens.map(|i| i / 5 % 2).collect(), starts, asked }
    }

    pub(in crate::cuda) fn input(&self) -> PackedInput<'_> {
        let (input_ids, token_type_ids, starts) = (&self.ids, &self.types, &self.starts);
        PackedInput { input_ids, token_type_ids, starts, positions: self.asked.as_deref() }
    }

    /// Rows of logits.
    #[cfg(test)]
    pub(in crate::cuda) fn len(&self) -> usize {
        self.asked.as_ref().map_or(self.starts.len() - 1, Vec::len)
    }
}

/// The tensor that is farthest from the CPU's.
pub(super) struct Worst {
    name: String,
    distance: f64,
    /// Where in the tensor the largest difference is.
    element: usize,
}

impl Worst {
    pub(super) fn new() -> Self {
        Self { name: String::new(), distance: -1.0, element: 0 }
    }

    /// Of all parameters, in flat buffers.
    pub(super) fn of(layout: &Layout, found: &[f32], expected: &[f32]) -> Self {
        let mut worst = Self::new();
        for entry in layout.entries() {
            // The gradient of the keys' bias is zero by the mathematics and only rounding here: it is held against that
            // of its neighbour, which is as long as its own parts were before they cancelled.
            let scale = match entry.slot {
                Slot::Layer(layer, LayerSlot::KeyBias) => layout.entry(Slot::Layer(layer, LayerSlot::ValueBias)),
                _ => None,
            };
            let scale = length(&expected[scale.unwrap_or(entry).range.clone()]);
            worst.add(&entry.name, &found[entry.range.clone()], &expected[entry.range.clone()], scale);
        }
        worst
    }

    pub(super) fn check(self, kernel: &str, precision: Precision, shape: &str, tolerance: f64) -> KernelCheck {
        KernelCheck {
            kernel: format!("engine {kernel} ({precision})"),
            shape: format!("{shape}: {}", self.name),
            worst: self.distance,
            tolerance,
            element: self.element,
            passed: self.distance <= tolerance,
            fault: None,
        }
    }

    /// Takes note of a tensor if none was farther away.
    pub(super) fn add(&mut self, name: &str, found: &[f32], expected: &[f32], scale: f64) {
        let differences: Vec<f32> = found.iter().zip(expected).map(|(found, expected)| found - expected).collect();
        let distance = length(&differences) / scale.max(1e-30);
        // Not a number: neither engine's may be.
        let distance = if distance.is_nan() || found.len() != expected.len() { f64::INFINITY } else { distance };
        if distance > self.distance {
            let largest = differences.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
            let element = largest.map_or(0, |(index, _)| index);
            *self = Self { name: name.to_string(), distance, element };
        }
    }
}

pub(super) fn length(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}
