//! The gradient's norm, clipping and AdamW.

use crate::cuda::operand::{Matrix, Vector, Words};

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
    /// The same over the rows that have a mark.
    SumOfSquaresMarked(["sum_of_squares_marked"; 2]) over x as [rows, width] {
        x: Matrix = floats[rows, width],
        marks: Words = words[rows],
        partials: Vector = vector[SUM_PARTIALS],
    } sizes(rows, width) launch([SUM_PARTIALS, 1, 1], 256, 0)
}

operation! {
    /// What gradients are multiplied with, so that their norm is at most `max_norm`.
    GradientScale(["gradient_scale"; 2]) over partials as [count] {
        partials: Vector = vector[count],
        max_norm: f32 = scalar[],
        /// The norm, the factor, 1 where the norm is not finite, 0.
        control: Vector = vector[4],
        /// What the step multiplies parameters with that have no gradient: `decay`, or 1 where it is left out.
        put_off: Option<Matrix> = floats[1, 1],
        decay: f32 = scalar[],
    } sizes(count) launch([1, 1, 1], 32, 0)
}

operation! {
    /// A step of AdamW.
    AdamWStep(["adamw"; 2]) over parameters as [count] {
        parameters: Vector = vector[count],
        gradients: Vector = vector[count],
        first_moment: Vector = vector[count],
        second_moment: Vector = vector[count],
        /// A copy of the parameters in `bf16`.
        shadow: Option<Matrix> = halves[1, count],
        /// A moving average of the parameters.
        average: Option<Matrix> = floats[1, count],
        /// Of [`GradientScale`].
        control: Vector = vector[4],
        /// The most that a scaled gradient may be, in either direction.
        limit: f32 = scalar[],
        /// The learning rate, corrected for the first moment.
        step: f32 = scalar[],
        /// What parameters are multiplied with.
        decay: f32 = scalar[],
        /// What the root of the second moment is multiplied with.
        root_correction: f32 = scalar[],
        /// How far the average moves towards the parameters.
        follow: f32 = scalar[],
        /// Whether the gradients are set to zero.
        clears: bool = flag[],
    } sizes(count) launch([count.div_ceil(4 * 256), 1, 1], 256, 0)
}

operation! {
    /// The same step over the rows that have a mark, whose gradients are set to zero.
    AdamWStepMarked(["adamw_marked"; 2]) over parameters as [rows, width] {
        parameters: Matrix = floats[rows, width],
        gradients: Matrix = floats[rows, width],
        first_moment: Matrix = floats[rows, width],
        second_moment: Matrix = floats[rows, width],
        average: Option<Matrix> = floats[rows, width],
        marks: Words = words[rows],
        control: Vector = vector[4],
        limit: f32 = scalar[],
        step: f32 = scalar[],
        decay: f32 = scalar[],
        root_correction: f32 = scalar[],
        follow: f32 = scalar[],
    } sizes(rows, width) launch([rows.div_ceil(8), 1, 1], 256, 0)
}

operation! {
    /// Multiplies rows by factors, one after another, and marks them.
    CatchUpAndMark(["catch_up_and_mark"; 2]) over x as [rows, width], which as [named], factors as [count] {
        x: Matrix = floats[rows, width],
        /// None of them twice.
        which: Words = words[named],
        marks: Words = words[rows],
        factors: Vector = vector[count],
    } sizes(count, width) launch([named, 1, 1], 256, 0)
}

operation! {
    /// The same with the rows that have no mark, which they do not get.
    CatchUpUnmarked(["catch_up_unmarked"; 2]) over x as [rows, width], factors as [count] {
        x: Matrix = floats[rows, width],
        marks: Words = words[rows],
        factors: Vector = vector[count],
    } sizes(count, width) launch([rows, 1, 1], 256, 0)
}
