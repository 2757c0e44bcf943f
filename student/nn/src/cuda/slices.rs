//! The feed-forward part of a layer, evaluated some tokens at a time, so that its wide activations never leave a GPU's
//! L2 cache: the maps up and down with the activation between them, each slice in the place of the first one.
//!
//! Training keeps the wide activations for its backward pass and cannot.

use super::op::{activate, linear};
use super::operand::Matrix;
use super::run::Run;
use crate::Error;
use crate::op::{Activate, Kind, Linear, Op};

/// A map up, an activation and a map down that nobody else reads between.
pub(super) struct FeedForward<'a> {
    up: (&'a Op, &'a Linear),
    activate: &'a Activate,
    down: (&'a Op, &'a Linear),
    x: Matrix,
    wide: Matrix,
    out: Matrix,
}

impl<'a> FeedForward<'a> {
    /// Operations that one takes.
    pub(super) const OPS: usize = 3;

    /// One that begins with operation `index`, if a pass is to evaluate it in slices.
    pub(super) fn at(run: &Run<'a>, index: usize) -> Option<Self> {
        let ops = &run.plan.program.ops;
        let [up, between, down] = ops.get(index..index + Self::OPS)? else { return None };
        let (Kind::Linear(map_up), Kind::Activate(activate), Kind::Linear(map_down)) =
            (&up.kind, &between.kind, &down.kind)
        else {
            return None;
        };
        let read_by_next = |of: &Op, next: usize| {
            let mut readers = ops.iter().enumerate().filter(|(_, op)| op.inputs.iter().any(|i| i.value == of.out));
            readers.next().is_some_and(|(reader, _)| reader == next) && readers.next().is_none()
        };
        let alone = read_by_next(up, index + 1) && read_by_next(between, index + 2);
        let tokens = run.slice_tokens;
        let (x, wide, out) = (run.value(up.inputs[0].value), run.value(between.out), run.value(down.out));
        let sliced = run.masks.is_none() && tokens > 0 && x.rows > tokens;
        // Operation by operation, what is read for the last time makes room for what is written next.
        let apart = x.at != wide.at && x.at != out.at && wide.at != out.at;
        (alone && sliced && apart).then_some(Self { up: (up, map_up), activate, down: (down, map_down), x, wide, out })
    }

    pub(super) fn forward(&self, run: &Run<'_>, index: usize) -> Result<(), Error> {
        let (up, map_up) = self.up;
        let (down, map_down) = self.down;
        for first in (0..self.x.rows).step_by(run.slice_tokens) {
            let rows = first..(first + run.slice_tokens).min(self.x.rows);
            let wide = self.wide.some_rows(0..rows.len());
            linear::run::product(run, index, up, map_up, self.x.some_rows(rows.clone()), wide)?;
            activate::run::apply(run, self.activate, wide, wide)?;
            linear::run::product(run, index + 2, down, map_down, wide, self.out.some_rows(rows))?;
        }
        Ok(())
    }
}
