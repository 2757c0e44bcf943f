//! Softmax cross-entropy at the logits, against a mixture of targets.

use crate::cuda::operand::{Matrix, Words};

operation! {
    /// Soft-target and hard-label loss of each row, and the gradient of their weighted sum.
    SoftHardLoss(typed!("soft_hard_loss")) over d_logits as [rows, classes] {
        /// `f32`
        student: Matrix = floats[rows, classes],
        /// `f32`; without, there is no soft term.
        teacher: Option<Matrix> = floats[rows, classes],
        /// Negative as `i32` for none; without, there is no hard term.
        labels: Option<Words> = words[rows],
        soft_weight: f32 = scalar[],
        temperature: f32 = scalar[],
        hard_weight: f32 = scalar[],
        d_logits: Matrix = activations[rows, classes],
        /// Both terms, unweighted; `f32`.
        row_losses: Matrix = floats[rows, 2],
    } sizes(rows, classes) launch([rows.div_ceil(4), 1, 1], 128, 0)
}
