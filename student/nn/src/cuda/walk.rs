//! Runs a pass's program forward and backward, and states the memory needs of its operations.

use std::ops::Range;

use super::op;
use super::op::attention::launch::SURVIVOR_WORDS;
use super::op::norm::launch::norm_partials;
use super::op::sums::launch::column_partials;
use super::operand::{Number, Precision};
use super::run::{Run, is_logits};
use crate::Error;
use crate::op::{Kind, Op};
use crate::program::Program;
use crate::program::places::{Gradient, Habits, Needs, Room};
use crate::value::{Rows, Tap, Value, ValueId};

pub(super) fn forward(run: &Run<'_>) -> Result<(), Error> {
    for (index, op) in run.plan.program.ops.iter().enumerate() {
        match &op.kind {
            Kind::Embed(embed) => op::embed::run::forward(run, index, op, embed)?,
            Kind::Linear(linear) => op::linear::run::forward(run, index, op, linear)?,
            Kind::Activate(activate) => op::activate::run::forward(run, op, activate)?,
            Kind::Attention(attention) => op::attention::run::forward(run, index, op, attention)?,
            Kind::ResidualNorm(norm) => op::norm::run::residual_forward(run, index, op, norm)?,
            Kind::Norm(norm) => op::norm::run::forward(run, index, op, norm)?,
            Kind::Dropout(site) => op::rows::run::dropout_forward(run, op, *site)?,
            Kind::Decode(decode) => op::decode::run::forward(run, op, decode)?,
            Kind::Trigram => op::trigram::run::forward(run, op)?,
            Kind::Select(_) => op::rows::run::select_forward(run, op)?,
            Kind::Tap(_) => {}
        }
    }
    Ok(())
}

/// A range of the list, from the gradients that stand at its taps. `entered` says of each tap whether there is one; those
/// of the range are taken off its end.
pub(super) fn backward(run: &Run<'_>, range: Range<usize>, entered: &mut Vec<bool>) -> Result<(), Error> {
    for (index, op) in range.clone().zip(&run.plan.program.ops[range]).rev() {
        match &op.kind {
            Kind::Embed(embed) => op::embed::run::backward(run, index, op, embed)?,
            Kind::Linear(linear) => op::linear::run::backward(run, index, op, linear)?,
            Kind::Activate(activate) => op::activate::run::backward(run, index, op, activate)?,
            Kind::Attention(attention) => op::attention::run::backward(run, index, op, attention)?,
            Kind::ResidualNorm(norm) => op::norm::run::residual_backward(run, index, op, norm)?,
            Kind::Norm(norm) => op::norm::run::backward(run, index, op, norm)?,
            Kind::Dropout(site) => op::rows::run::dropout_backward(run, index, op, *site)?,
            Kind::Decode(decode) => op::decode::run::backward(run, index, op, decode)?,
            Kind::Trigram => op::trigram::run::backward(run, index, op)?,
            Kind::Select(_) => op::rows::run::select_backward(run, index, op)?,
            Kind::Tap(_) if entered.pop() == Some(true) => run.hand_on(index, op, 0)?,
            Kind::Tap(_) => run.zero_unless_added(index, 0, run.gradient(op.inputs[0].value))?,
        }
    }
    Ok(())
}

/// What the operations keep on a GPU, and what they overwrite.
pub(crate) struct CudaHabits(pub(crate) Precision);

impl Habits for CudaHabits {
    fn needs(&self, program: &Program, op: &Op) -> Needs {
        let Value { rows, width } = program.values[op.out.0];
        let floats = |width| Room { rows, width, bytes: 4 };
        match &op.kind {
            // The tables' gradients are made of an `f32` one.
            Kind::Embed(embed) if embed.norm.is_none() => {
                let widened = self.0.number() != Number::F32;
                Needs { scratch: widened.then(|| floats(width)).into_iter().collect(), ..Needs::default() }
            }
            // What is normalised, its mean and its reciprocal deviation.
            Kind::Embed(_) => Needs {
                states: vec![Room { rows, width, bytes: self.0.number().bytes() }, floats(1), floats(1)],
                scratch: vec![floats(width)],
                ..Needs::default()
            },
            Kind::Linear(_) | Kind::Decode(_) => Needs { keeps: &[0], gradients: &[Gradient::Own], ..Needs::default() },
            // In place where no backward pass reads the input: each thread reads its elements before it writes them.
            Kind::Activate(_) => {
                Needs { keeps: &[0], in_place: true, gradients: &[Gradient::Takes], ..Needs::default() }
            }
            Kind::Attention(attention) => {
                // Log-sum-exps, and for the kernels on tensor cores what the mask leaves.
                let masked = self.0 == Precision::Bf16 && attention.site.is_some();
                let survivors = masked.then(|| floats(attention.heads * SURVIVOR_WORDS));
                Needs {
                    keeps: &[0, 1, 2],
                    keeps_output: true,
                    gradients: &[Gradient::Own; 3],
                    states: std::iter::once(floats(attention.heads)).chain(survivors).collect(),
                    ..Needs::default()
                }
            }
            Kind::Norm(_) => Needs {
                keeps: &[0],
                gradients: &[Gradient::Takes],
                states: vec![floats(1), floats(1)],
                ..Needs::default()
            },
            Kind::ResidualNorm(_) => Needs {
                keeps: &[0],
                overwrites: true,
                gradients: &[Gradient::Own, Gradient::Takes],
                states: vec![floats(1), floats(1)],
                ..Needs::default()
            },
            Kind::Dropout(_) => Needs { in_place: true, gradients: &[Gradient::Takes], ..Needs::default() },
            Kind::Select(_) | Kind::Trigram => Needs { gradients: &[Gradient::Own], ..Needs::default() },
            // The terms of a loss, where it is computed here.
            Kind::Tap(tap) => {
                let states = if *tap == Tap::Logits { vec![floats(2)] } else { Vec::new() };
                Needs { gradients: &[Gradient::Takes], states, ..Needs::default() }
            }
        }
    }

    fn value_bytes(&self, program: &Program, value: ValueId) -> usize {
        if is_logits(program, value) { 4 } else { self.0.number().bytes() }
    }

    fn gradient_bytes(&self) -> usize {
        self.0.number().bytes()
    }

    fn holds_taps(&self) -> bool {
        true
    }
}

/// Bytes of the largest partial sums that a backward pass makes.
pub(super) fn partial_bytes(program: &Program, count: impl Fn(Rows) -> usize) -> usize {
    let of_op = |op: &Op| {
        let Value { rows, width } = program.values[op.out.0];
        let (norms, columns) = (norm_partials(count(rows), width), column_partials(count(rows), width));
        match &op.kind {
            Kind::Embed(_) | Kind::Norm(_) => norms * 2 * width,
            Kind::ResidualNorm(_) => norms * 3 * width,
            Kind::Linear(_) | Kind::Decode(_) | Kind::Activate(_) => columns * width,
            Kind::Attention(_) => count(Rows::First) * 3 * width,
            _ => 0,
        }
    };
    program.ops.iter().map(of_op).max().unwrap_or(0) * 4
}
