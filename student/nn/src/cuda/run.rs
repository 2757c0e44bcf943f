//! The device memory of a running pass: values, gradients, weights and masks.
//!
//! Gradients of weights are accumulated, so micro-batches need no further work; the first product of a step for a
//! weight overwrites its gradient instead.

use super::batch::Batch;
use super::device::Device;
use super::op::call::Mask;
use super::op::norm::launch::NormWeights;
use super::op::rows::launch::ScatterAddRows;
use super::op::sums::launch::ReducePartials;
use super::operand::{Matrix, Number, Precision, Ptr, Vector, Words};
use super::weights::Weights;
use crate::op::{NormSlots, Op, Site};
use crate::program::Program;
use crate::program::places::Plan;
use crate::value::{Columns, Tap, Value, ValueId};
use crate::{DropoutRng, Error, Slot, Span};

/// What all launches of a pass share.
pub(super) struct Run<'a> {
    pub(super) device: &'a Device,
    pub(super) precision: Precision,
    pub(super) weights: &'a Weights,
    pub(super) plan: &'a Plan,
    /// Of each place of the plan, and behind them that of partial sums.
    pub(super) places: &'a [Ptr],
    pub(super) batch: &'a Batch,
    /// None outside training.
    pub(super) masks: Option<&'a DropoutRng>,
}

impl Run<'_> {
    fn rows(&self, value: ValueId) -> [usize; 2] {
        let Value { rows, width } = self.plan.program.values[value.0];
        [self.batch.count(rows), width]
    }

    fn matrix(&self, place: Option<usize>, value: ValueId, number: Number) -> Matrix {
        // The plan gives a place to all that an operation reads.
        Matrix::new(number, self.places[place.expect("a value with a place")], self.rows(value))
    }

    pub(super) fn value(&self, value: ValueId) -> Matrix {
        let number = if is_logits(&self.plan.program, value) { Number::F32 } else { self.precision.number() };
        self.matrix(self.plan.value(value), value, number)
    }

    pub(super) fn columns(&self, columns: Columns) -> Matrix {
        self.value(columns.value).columns(columns.first..columns.first + columns.width)
    }

    /// The gradient in a value. That in a tap has the columns of the whole value that it reads.
    pub(super) fn gradient(&self, value: ValueId) -> Matrix {
        let taps = &mut self.plan.program.taps();
        let shape = taps.find(|(_, op)| op.out == value).map_or(value, |(_, op)| op.inputs[0].value);
        self.matrix(self.plan.gradient(value), shape, self.precision.number())
    }

    pub(super) fn gradient_columns(&self, columns: Columns) -> Matrix {
        self.gradient(columns.value).columns(columns.first..columns.first + columns.width)
    }

    /// What an operation keeps besides values.
    pub(super) fn state(&self, op: usize, index: usize, shape: [usize; 2], number: Number) -> Matrix {
        Matrix::new(number, self.places[self.plan.state(op, index)], shape)
    }

    /// The same, one `f32` a row.
    pub(super) fn column(&self, op: usize, index: usize, rows: usize) -> Vector {
        Vector { at: self.places[self.plan.state(op, index)], len: rows }
    }

    pub(super) fn scratch(&self, op: usize, index: usize) -> Ptr {
        self.places[self.plan.scratch(op, index)]
    }

    pub(super) fn partials(&self, shape: [usize; 2]) -> Matrix {
        Matrix::new(Number::F32, self.places[self.plan.places.len()], shape)
    }

    /// Adds partial sums up, to the gradients from this parameter on.
    pub(super) fn reduce(&self, partials: Matrix, first: Slot) -> Result<(), Error> {
        let destination = Vector { at: self.weights.gradient(first), len: partials.width };
        ReducePartials { partials, destination }.launch(self.device)
    }

    /// Hands a gradient that stands in the place of an operation's output on to one of its inputs.
    pub(super) fn hand_on(&self, index: usize, op: &Op, input: usize) -> Result<(), Error> {
        let (from, to) = (self.gradient(op.out), self.gradient(op.inputs[input].value));
        if from.at == to.at {
            return Ok(());
        }
        self.zero_unless_added(index, input, to)?;
        ScatterAddRows { from, which: self.all(from), to }.launch(self.device)
    }

    /// Makes the gradient in an operation's input zero, unless something stands there that this one's is added to.
    pub(super) fn zero_unless_added(&self, index: usize, input: usize, to: Matrix) -> Result<(), Error> {
        let bytes = if self.plan.adds(index, input) { 0 } else { to.rows * to.width * to.number.bytes() };
        self.device.zero(to.at, bytes)
    }

    /// Every row of a matrix.
    pub(super) fn all(&self, x: Matrix) -> Words {
        Words { len: x.rows, ..self.batch.counting }
    }

    /// Biases or norms in `f32`.
    pub(super) fn master(&self, span: Span) -> Vector {
        Vector { at: self.weights.master(span.first), len: self.weights.layout.host.span(span).len() }
    }

    /// A bias as a product adds it to this output: made of what that is.
    pub(super) fn bias(&self, slot: Slot, out: Matrix) -> Ptr {
        if out.number == Number::F32 { self.weights.master(slot) } else { self.weights.operand(slot) }
    }

    pub(super) fn norm(&self, norm: &NormSlots) -> NormWeights {
        let [weight, bias] = [norm.weight, norm.bias].map(|slot| self.master(slot.into()));
        NormWeights { weight, bias, epsilon: norm.epsilon }
    }

    /// A mask over tokens.
    pub(super) fn mask(&self, site: Option<Site>) -> Mask {
        let site = site.zip(self.masks).and_then(|(site, masks)| masks.site(site.number, site.rate));
        Mask { site, first: self.masks.map_or(0, DropoutRng::first_token) }
    }

    /// Which token each row of a value is; none where row `r` is token `r`.
    pub(super) fn row_tokens(&self, value: ValueId) -> Option<Words> {
        self.batch.tokens_of(self.plan.program.values[value.0].rows)
    }
}

/// Whether a value is read as logits, which are few, and losses are sensitive to them: `f32` whatever the precision.
pub(super) fn is_logits(program: &Program, value: ValueId) -> bool {
    program.taps().any(|(tap, op)| tap == Tap::Logits && (op.out == value || op.inputs[0].value == value))
}
