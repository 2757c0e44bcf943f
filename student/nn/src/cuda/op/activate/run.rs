//! [`Activate`] on a GPU. The bias is added by the product before.

use super::launch::{ActivationBackward, ActivationForward};
use crate::Error;
use crate::cuda::op::sums::launch::column_partials;
use crate::cuda::operand::Matrix;
use crate::cuda::run::Run;
use crate::op::{Activate, Op};

pub(in crate::cuda) fn forward(run: &Run<'_>, op: &Op, activate: &Activate) -> Result<(), Error> {
    apply(run, activate, run.value(op.inputs[0].value), run.value(op.out))
}

/// The same for these rows; `out` may be `pre`.
pub(in crate::cuda) fn apply(run: &Run<'_>, activate: &Activate, pre: Matrix, out: Matrix) -> Result<(), Error> {
    ActivationForward { activation: activate.activation, pre, out }.launch(run.device)
}

pub(in crate::cuda) fn backward(run: &Run<'_>, index: usize, op: &Op, activate: &Activate) -> Result<(), Error> {
    let (pre, d) = (run.value(op.inputs[0].value), run.gradient(op.out));
    let partials = run.partials([column_partials(d.rows, d.width), d.width]);
    ActivationBackward { activation: activate.activation, pre, d, partials }.launch(run.device)?;
    run.reduce(partials, activate.bias)?;
    run.hand_on(index, op, 0)
}
