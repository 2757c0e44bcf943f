//! The gradient's norm, clipping and AdamW.

use crate::cuda::operand::{Matrix, Vector};

/// Partial sums of [`SumOfSquares`].
pub(crate) const SUM_PARTIALS: usize = 1024;

operation! {
    /// Partial sums of the squares of all elements.
    SumOfSquares(["sum_of_squares"; 2]) over x as [count] {
        x: Vector = vector[count],
        partials: Vector = vector[SUM_PARTIALS],
    } sizes(count) launch([SUM_PARTIALS, 1, 1], 256, 0)
}

operation! {
    /// What gradients are multiplied with, so that their norm is at most `max_norm`.
    GradientScale(["gradient_scale"; 2]) over partials as [count] {
        partials: Vector = vector[SUM_PARTIALS],
        max_norm: f32 = scalar[],
        /// The norm, the factor, 1 where the norm is not finite, 0.
        control: Vector = vector[4],
    } sizes(count) launch([1, 1, 1], 32, 0)
}

operation! {
    /// A step of AdamW, which sets the gradients to zero.
    AdamWStep(["adamw"; 2]) over parameters as [count] {
        parameters: Vector = vector[count],
        gradients: Vector = vector[count],
        first_moment: Vector = vector[count],
        second_moment: Vector = vector[count],
        /// A copy of the parameters in `bf16`.
        shadow: Option<Matrix> = halves[1, count],
        /// Of [`GradientScale`].
        control: Vector = vector[4],
        /// The learning rate, corrected for the first moment.
        step: f32 = scalar[],
        /// What parameters are multiplied with.
        decay: f32 = scalar[],
        /// What the root of the second moment is multiplied with.
        root_correction: f32 = scalar[],
    } sizes(count) launch([count.div_ceil(4 * 256), 1, 1], 256, 0)
}
