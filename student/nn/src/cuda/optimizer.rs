//! The end of a step: gradient norm, clipping and AdamW without host involvement, and the report that the host reads
//! later.

use std::sync::Arc;

use super::device::{Buffer, Device};
use super::op::optimizer::launch::{
    AdamWStep, AdamWStepMarked, GradientScale, SUM_PARTIALS, SumOfSquares, SumOfSquaresMarked,
};
use super::operand::{Matrix, Number, Ptr, Vector};
use super::put_off::PutOff;
use super::transfer::LateReads;
use super::weights::{Segment, Weights};
use crate::cpu::adamw::average_follow;
use crate::{AdamW, Error, Layout, StepRates, StepReport};

/// Scalars in the report: two losses, two spare ones, and the four that `gradient_scale` writes.
const REPORT: usize = 8;
const CONTROL: usize = 4;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;

/// The optimiser's own memory.
pub(super) struct Optimizer {
    device: Device,
    settings: Settings,
    /// Steps taken.
    pub(super) steps: u64,
    report: Buffer,
    partials: Buffer,
    reads: LateReads,
}

/// What stays the same from step to step.
struct Settings {
    weight_decay: f64,
    /// Of each entry of the host's layout.
    rate_factors: Vec<f64>,
    /// Of the moving average.
    average_decay: Option<f64>,
    segments: Vec<Segment>,
    /// Of the word table, where it stands apart.
    words_factor: f64,
}

impl Optimizer {
    /// With the settings and the step count of this optimiser; its moments and average are the caller's to upload.
    pub(super) fn new(device: &Device, weights: &Weights, optimizer: &AdamW) -> Result<Self, Error> {
        let rate_factors = optimizer.rate_factors().to_vec();
        let settings = Settings {
            weight_decay: optimizer.weight_decay(),
            average_decay: optimizer.average_decay(),
            segments: weights.segments(&rate_factors),
            words_factor: weights.words_factor(&rate_factors),
            rate_factors,
        };
        Ok(Self {
            device: device.clone(),
            settings,
            steps: optimizer.state().0,
            report: Buffer::zeroed(device, REPORT * 4)?,
            partials: Buffer::zeroed(device, 2 * SUM_PARTIALS * 4)?,
            reads: LateReads::new(device),
        })
    }

    /// Where the step's losses are added up.
    pub(super) fn losses(&self) -> Ptr {
        self.report.ptr()
    }

    pub(super) fn rate_factors(&self) -> &[f64] {
        &self.settings.rate_factors
    }

    /// The optimiser in this state, for a checkpoint.
    pub(super) fn restore(
        &self,
        layout: Arc<Layout>,
        moments: [Vec<f32>; 2],
        average: Option<Vec<f32>>,
    ) -> Option<AdamW> {
        let Settings { weight_decay, rate_factors, average_decay, .. } = &self.settings;
        let [first, second] = moments;
        let optimizer = AdamW::restore(layout, *weight_decay, self.steps, first, second)?;
        let optimizer = optimizer.with_rate_factors(rate_factors.clone());
        Some(match average_decay.zip(average) {
            Some((decay, average)) => optimizer.with_average(decay, average),
            None => optimizer,
        })
    }

    /// Takes a step, behind which gradients begin anew. `number` is what its report will be known by.
    pub(super) fn step(
        &mut self,
        weights: &Weights,
        put_off: &mut PutOff,
        number: u64,
        rates: StepRates,
    ) -> Result<(), Error> {
        self.steps += 1;
        let Settings { weight_decay, average_decay, segments, words_factor, .. } = &self.settings;
        let exponent = self.steps.min(i32::MAX as u64) as i32;
        let correction = 1.0 - BETA_1.powi(exponent);
        let root_correction = (1.0 / (1.0 - BETA_2.powi(exponent)).sqrt()) as f32;
        let step_of = |factor: f64| (rates.learning_rate * factor / correction) as f32;
        let decay_of = |factor: f64| (1.0 - rates.learning_rate * factor * weight_decay) as f32;
        let limit = rates.clip.limit();
        let follow = average_decay.map_or(0.0, |decay| average_follow(decay, self.steps));
        let layout = &weights.layout;
        let control = Vector { at: self.report.ptr().offset_bytes(CONTROL * 4), len: CONTROL };
        let partials =
            |index: usize| Vector { at: self.partials.ptr().offset_bytes(index * SUM_PARTIALS * 4), len: SUM_PARTIALS };
        let words = put_off.words(weights)?;
        let table = layout.words.len();
        let [_, gradients, ..] = weights.flat(table);
        weights.finish_gradients()?;
        // The gradients of frozen parameters do not count.
        if *words_factor == 0.0 && table > 0 {
            self.device.zero(weights.flat(0)[1], table * 4)?;
        }
        for Segment { range, .. } in segments.iter().filter(|segment| segment.rate_factor == 0.0) {
            self.device.zero(weights.flat(range.start)[1], range.len() * 4)?;
        }
        SumOfSquares { x: Vector { at: gradients, len: layout.len - table }, partials: partials(0) }
            .launch(&self.device)?;
        let mut sums = partials(0);
        if let Some(words) = &words {
            SumOfSquaresMarked { x: words.gradients, marks: words.marks, partials: partials(1) }
                .launch(&self.device)?;
            sums.len = 2 * SUM_PARTIALS;
        }
        let decay = decay_of(*words_factor);
        let next_factor = put_off.next_factor(weights, decay)?;
        let max_norm = rates.clip.norm();
        GradientScale { partials: sums, max_norm, control, put_off: next_factor, decay }.launch(&self.device)?;
        if let Some(words) = words.filter(|_| *words_factor != 0.0) {
            AdamWStepMarked {
                parameters: words.parameters,
                gradients: words.gradients,
                first_moment: words.moments[0],
                second_moment: words.moments[1],
                average: weights.average(0, words.parameters.shape()),
                marks: words.marks,
                control,
                limit,
                step: step_of(*words_factor),
                decay,
                root_correction,
                follow,
            }
            .launch(&self.device)?;
        }
        for Segment { range, rate_factor, decays, clears } in segments.iter().filter(|one| one.rate_factor != 0.0) {
            let [p, g, m, v, shadow] = weights.flat(range.start);
            let count = range.len();
            let [parameters, gradients, first_moment, second_moment] = [p, g, m, v].map(|at| Vector { at, len: count });
            let shadow = (shadow != Ptr::NULL).then(|| Matrix::new(Number::Bf16, shadow, [1, count]));
            AdamWStep {
                parameters,
                gradients,
                first_moment,
                second_moment,
                shadow,
                average: weights.average(range.start, [1, count]),
                control,
                limit,
                step: step_of(*rate_factor),
                decay: if *decays { decay_of(*rate_factor) } else { 1.0 },
                root_correction,
                follow,
                clears: *clears,
            }
            .launch(&self.device)?;
        }
        weights.begin_gradients();
        self.reads.request(number, self.report.ptr(), REPORT)?;
        self.device.zero(self.report.ptr(), REPORT * 4)
    }

    /// The reports of all steps but the last `behind`, in their order.
    pub(super) fn reports(&mut self, behind: usize) -> Result<Vec<StepReport>, Error> {
        let mut reports = Vec::new();
        while let Some((step, words)) = self.reads.take(behind)? {
            let value = |index: usize| f64::from(f32::from_bits(words[index]));
            reports.push(StepReport { step, losses: [value(0), value(1)], gradient_norm: value(CONTROL) });
        }
        Ok(reports)
    }
}
