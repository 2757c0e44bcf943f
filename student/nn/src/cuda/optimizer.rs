//! The end of a step: gradient norm, clipping and AdamW without host involvement, and the report that the host reads
//! later.

use super::device::{Buffer, Device};
use super::op::optimizer::launch::{
    AdamWStep, AdamWStepMarked, GradientScale, SUM_PARTIALS, SumOfSquares, SumOfSquaresMarked,
};
use super::operand::{Matrix, Number, Ptr, Vector};
use super::put_off::PutOff;
use super::transfer::LateReads;
use super::weights::Weights;
use crate::{Error, StepRates, StepReport};

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
            partials: Buffer::zeroed(device, 2 * SUM_PARTIALS * 4)?,
            reads: LateReads::new(device),
        })
    }

    /// Where the step's losses are added up.
    pub(super) fn losses(&self) -> Ptr {
        self.report.ptr()
    }

    /// Takes a step, behind which gradients begin anew. `number` is what its report will be known by.
    pub(super) fn step(
        &mut self,
        weights: &Weights,
        put_off: &mut PutOff,
        number: u64,
        rates: StepRates,
        weight_decay: f64,
    ) -> Result<(), Error> {
        self.steps += 1;
        let exponent = self.steps.min(i32::MAX as u64) as i32;
        let step = (rates.learning_rate / (1.0 - BETA_1.powi(exponent))) as f32;
        let root_correction = (1.0 / (1.0 - BETA_2.powi(exponent)).sqrt()) as f32;
        let decay = (1.0 - rates.learning_rate * weight_decay) as f32;
        let layout = &weights.layout;
        let control = Vector { at: self.report.ptr().offset_bytes(CONTROL * 4), len: CONTROL };
        let partials =
            |index: usize| Vector { at: self.partials.ptr().offset_bytes(index * SUM_PARTIALS * 4), len: SUM_PARTIALS };
        let words = put_off.words(weights)?;
        let table = layout.words.len();
        let [_, gradients, ..] = weights.flat(table);
        weights.finish_gradients()?;
        SumOfSquares { x: Vector { at: gradients, len: layout.len - table }, partials: partials(0) }
            .launch(&self.device)?;
        let mut sums = partials(0);
        if let Some(words) = &words {
            SumOfSquaresMarked { x: words.gradients, marks: words.marks, partials: partials(1) }
                .launch(&self.device)?;
            sums.len = 2 * SUM_PARTIALS;
        }
        let next_factor = put_off.next_factor(weights, decay)?;
        GradientScale {
            partials: sums,
            max_norm: rates.max_gradient_norm as f32,
            control,
            put_off: next_factor,
            decay,
        }
        .launch(&self.device)?;
        if let Some(words) = words {
            AdamWStepMarked {
                parameters: words.parameters,
                gradients: words.gradients,
                first_moment: words.moments[0],
                second_moment: words.moments[1],
                marks: words.marks,
                control,
                step,
                decay,
                root_correction,
            }
            .launch(&self.device)?;
        }
        let matrices = layout.matrices.clone();
        for (range, decay, clears) in [
            (table..matrices.start, decay, true),
            (matrices.clone(), decay, false),
            (matrices.end..layout.len, 1.0, true),
        ] {
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
                control,
                step,
                decay,
                root_correction,
                clears,
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
