//! The largest of many logits.

use crate::cuda::operand::{Matrix, Vector, Words};

/// As many as the kernel has room to sort.
pub(crate) const MOST: usize = 256;

/// Whether the kernel selects so many of logits of this width.
pub(crate) fn selects_top(k: usize, width: usize) -> bool {
    (1..=MOST).contains(&k) && k < width
}

operation! {
    /// The largest logits of each row, falling, of equal ones the first first, and what the others add to the softmax. All
    /// `f32`.
    TopLogits(["top_k"; 2]) over values as [rows, k], logits as [_, width], temperatures as [count] {
        /// More than `k` and at most [`MOST`] are asked for.
        logits: Matrix = floats[rows, width],
        temperatures: Vector = vector[count],
        values: Matrix = floats[rows, k],
        /// Of the values.
        columns: Words = words[rows * k],
        /// The largest of the others, and at each temperature the sums of `e^x` and of `x e^x`,
        /// `x = (logit - that) / temperature`.
        rest: Matrix = floats[rows, 1 + 2 * count],
    } sizes(width, k, count) launch([rows, 1, 1], 256, 0)
}
