//! Forward and backward of each operation on the CPU, one file each.
//!
//! Gradients of the outputs of linear maps overwrite values that are no longer needed; gradients of biases and norms
//! are summed within the chunk.

mod activate;
mod attention;
mod decode;
mod dropout;
mod embed;
mod linear;
mod norm;
mod residual_norm;
mod select;
mod tap;
mod trigram;

use std::ops::Range;

use super::chunk::Run;
use crate::op::{Kind, Op};
use crate::program::Program;
use crate::program::places::{Gradient, Habits, Needs, Room};
use crate::value::ValueId;

impl Run<'_> {
    /// Runs the list forward and copies out the values at taps, if there is room for them.
    pub(super) fn forward(mut self, taps: &mut dyn Iterator<Item = &mut [f32]>) {
        let plan = self.context.plan;
        self.grow();
        self.load_given();
        for (index, op) in plan.program.ops.iter().enumerate() {
            match &op.kind {
                Kind::Embed(embed) => embed::forward(&mut self, index, op, embed),
                Kind::Linear(linear) => linear::forward(&mut self, op, linear),
                Kind::Activate(activate) => activate::forward(&mut self, op, activate),
                Kind::Attention(attention) => attention::forward(&mut self, op, attention),
                Kind::ResidualNorm(norm) => residual_norm::forward(&mut self, index, op, norm),
                Kind::Norm(norm) => norm::forward(&mut self, index, op, norm),
                Kind::Dropout(site) => dropout::forward(&mut self, op, *site),
                Kind::Decode(decode) => decode::forward(&mut self, op, decode),
                Kind::Trigram => trigram::forward(&mut self, op),
                Kind::Select(_) => select::forward(&mut self, op),
                Kind::Tap(_) => tap::forward(&self, op, taps.next()),
            }
        }
        self.keep_handed();
    }

    /// Runs a range of the list backward. Takes the gradients at its taps from the end of `taps`. Leaves the gradients
    /// of all outputs of linear maps and of the embeddings in place, for the gradients of the weights.
    pub(super) fn backward(mut self, range: Range<usize>, taps: &mut Vec<Option<&[f32]>>) {
        let plan = self.context.plan;
        self.grow();
        self.chunk.vectors.clear();
        self.chunk.vectors.resize(self.context.vectors.vector_len(), 0.0);
        if range.end == plan.program.ops.len() {
            self.enter_handed();
        }
        for (index, op) in range.clone().zip(&plan.program.ops[range]).rev() {
            match &op.kind {
                Kind::Embed(embed) => embed::backward(&mut self, index, op, embed),
                Kind::Linear(linear) => linear::backward(&mut self, index, op, linear),
                Kind::Activate(activate) => activate::backward(&mut self, op, activate),
                Kind::Attention(attention) => attention::backward(&mut self, op, attention),
                Kind::ResidualNorm(norm) => residual_norm::backward(&mut self, index, op, norm),
                Kind::Norm(norm) => norm::backward(&mut self, index, op, norm),
                Kind::Dropout(site) => dropout::backward(&mut self, index, op, *site),
                Kind::Decode(decode) => decode::backward(&mut self, index, op, decode),
                Kind::Trigram => trigram::backward(&mut self, index, op),
                Kind::Select(_) => select::backward(&mut self, index, op),
                Kind::Tap(_) => tap::backward(&mut self, index, op, taps.pop().flatten()),
            }
        }
    }
}

/// What the operations below save, and what they overwrite.
pub(crate) struct CpuHabits;

impl Habits for CpuHabits {
    fn needs(&self, program: &Program, op: &Op) -> Needs {
        let rows = program.values[op.out.0].rows;
        let scale = || vec![Room { rows, width: 1, bytes: 4 }];
        match &op.kind {
            // What is normalised, and by how much.
            Kind::Embed(embed) if embed.norm.is_none() => Needs { weights_last: true, ..Needs::default() },
            Kind::Embed(_) => {
                let normalized = Room { rows, width: program.values[op.out.0].width, bytes: 4 };
                Needs { states: [vec![normalized], scale()].concat(), weights_last: true, ..Needs::default() }
            }
            Kind::Linear(_) | Kind::Decode(_) => {
                Needs { keeps: &[0], gradients: &[Gradient::Own], weights_last: true, ..Needs::default() }
            }
            Kind::Activate(_) => {
                Needs { keeps: &[0], overwrites: true, gradients: &[Gradient::Replaces], ..Needs::default() }
            }
            Kind::Attention(_) => Needs { keeps: &[0, 1, 2], gradients: &[Gradient::Replaces; 3], ..Needs::default() },
            // The branch is normalised where it stands.
            Kind::ResidualNorm(_) => Needs {
                keeps: &[0],
                overwrites: true,
                gradients: &[Gradient::Replaces, Gradient::Takes],
                states: scale(),
                ..Needs::default()
            },
            Kind::Norm(_) => Needs {
                keeps: &[0],
                overwrites: true,
                gradients: &[Gradient::Takes],
                states: scale(),
                ..Needs::default()
            },
            Kind::Dropout(_) => Needs { in_place: true, gradients: &[Gradient::Takes], ..Needs::default() },
            Kind::Select(_) | Kind::Trigram => Needs { gradients: &[Gradient::Own], ..Needs::default() },
            Kind::Tap(_) => Needs { gradients: &[Gradient::Replaces], ..Needs::default() },
        }
    }

    fn value_bytes(&self, _: &Program, _: ValueId) -> usize {
        4
    }

    fn gradient_bytes(&self) -> usize {
        4
    }

    fn holds_taps(&self) -> bool {
        false
    }
}
