//! The end of a step: norm, clip and AdamW without a word from the host, and what the host learns of it later.

use super::super::device::{Buffer, Device, LateReads, Ptr};
use super::super::kernels;
use super::weights::Weights;
use crate::Error;

/// What a step's optimiser does.
#[derive(Clone, Copy, Debug)]
pub struct StepRates {
    /// Of this step.
    pub learning_rate: f64,
    /// Rate at which matrices and tables shrink; biases and norms do not.
    pub weight_decay: f64,
    /// Gradients longer than this are shortened to it.
    pub max_gradient_norm: f64,
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The step's number, as given.
    pub step: u64,
    /// Sums over the step's rows of the soft and of the hard term, not weighted.
    pub losses: [f64; 2],
    /// The gradient's norm before clipping; where it is not finite, the step changed nothing.
    pub gradient_norm: f64,
}

/// Scalars in the report: two losses, two spare ones, and the four that `gradient_scale` writes.
const REPORT: usize = 8;
const CONTROL: usize = 4;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;

/// The optimiser's own memory.
pub(super) struct Optimizer {
    device: Device,
    /// Steps taken.
    pub(super) steps: u64,
    report: Buffer,
    partials: Buffer,
    reads: LateReads,
}

impl Optimizer {
    pub(super) fn new(device: &Device) -> Result<Self, Error> {
        Ok(Self {
            device: device.clone(),
            steps: 0,
            report: Buffer::zeroed(device, REPORT * 4)?,
            partials: Buffer::zeroed(device, kernels::SUM_PARTIALS * 4)?,
            reads: LateReads::new(device),
        })
    }

    /// Where the step's losses are added up.
    pub(super) fn losses(&self) -> Ptr {
        self.report.ptr()
    }

    /// Takes a step and sets the gradients to zero. `number` is what its report will be known by.
    pub(super) fn step(&mut self, weights: &Weights, number: u64, rates: StepRates) -> Result<(), Error> {
        self.steps += 1;
        let exponent = self.steps.min(i32::MAX as u64) as i32;
        let step = (rates.learning_rate / (1.0 - BETA_1.powi(exponent))) as f32;
        let root_correction = (1.0 / (1.0 - BETA_2.powi(exponent)).sqrt()) as f32;
        let layout = &weights.layout;
        let control = self.report.ptr().offset_bytes(CONTROL * 4);
        let [_, gradients, ..] = weights.flat(0);
        kernels::sum_of_squares(&self.device, gradients, layout.len, self.partials.ptr())?;
        kernels::gradient_scale(&self.device, self.partials.ptr(), rates.max_gradient_norm as f32, control)?;
        let decay = (1.0 - rates.learning_rate * rates.weight_decay) as f32;
        for (range, decay) in [(0..layout.decaying, decay), (layout.decaying..layout.len, 1.0)] {
            let [p, g, m, v, shadow] = weights.flat(range.start);
            let count = range.len();
            kernels::adamw(&self.device, p, g, m, v, shadow, count, control, step, decay, root_correction)?;
        }
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
