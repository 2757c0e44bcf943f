//! Each token's row with its neighbours'.

use crate::cuda::operand::{Matrix, Words};

operation! {
    /// `out = [next, own, before]`, with zeros where a text ends.
    TrigramForward(typed!("trigram_forward")) over x as [tokens, width] {
        x: Matrix = activations[tokens, width],
        /// They ascend within a text, and not from one to the next.
        positions: Words = words[tokens],
        out: Matrix = activations[tokens, 3 * width],
    } sizes(tokens, width) launch_matrix(3 * tokens, width)
}

operation! {
    /// Backward of [`TrigramForward`].
    TrigramBackward(typed!("trigram_backward")) over d_x as [tokens, width] {
        d_out: Matrix = activations[tokens, 3 * width],
        positions: Words = words[tokens],
        /// Whether the gradient is added to what stands in `d_x`.
        adds: bool = flag[],
        d_x: Matrix = activations[tokens, width],
    } sizes(tokens, width) launch_matrix(tokens, width)
}
