//! Moving whole rows, dropping from them, adding to them, rounding and the reverse of it.

use crate::cuda::op::call::Mask;
use crate::cuda::operand::{Matrix, Vector, Words};

operation! {
    /// `to[r] = from[which[r]]`
    GatherRows(typed!("gather_rows")) over to as [rows, width], from as [all, _] {
        from: Matrix = activations[all, width],
        which: Words = words[rows],
        to: Matrix = activations[rows, width],
    } sizes(rows, width) launch_matrix(rows, width)
}

operation! {
    /// `to[which[r]] += from[r]`
    ScatterAddRows(typed!("scatter_add_rows")) over from as [rows, width], to as [all, _] {
        from: Matrix = activations[rows, width],
        /// None of them twice.
        which: Words = words[rows],
        to: Matrix = activations[all, width],
    } sizes(rows, width) launch_matrix(rows, width)
}

operation! {
    /// `x *= mask`. Launches nothing where nothing is dropped.
    DropoutRows(typed!("dropout_rows")) over x as [rows, width] {
        x: Matrix = activations[rows, width],
        mask: Mask = mask_alone[],
        /// Which token of the batch each row is; without, row `r` is number `r`.
        row_tokens: Option<Words> = words[rows],
    } sizes(rows, width) launch_matrix(rows, width)
}

operation! {
    /// `to = from`, rounded to what `to` is made of.
    Cast(typed!("cast")) over to as [rows, width] {
        from: Vector = vector[rows * width],
        to: Matrix = activations[rows, width],
    } sizes(rows * width) launch_matrix(1, rows * width)
}

operation! {
    /// `to = from`, in `f32`.
    Widen(typed!("widen")) over from as [rows, width] {
        from: Matrix = activations[rows, width],
        to: Matrix = floats[rows, width],
    } sizes(rows * width) launch_matrix(1, rows * width)
}
