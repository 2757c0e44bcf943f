//! Activation functions, and their derivatives together with the gradient of the bias before them.

use crate::Activation;
use crate::cuda::op::call::Call;
use crate::cuda::op::sums::launch::{column_partials, column_rows};
use crate::cuda::operand::Matrix;

operation! {
    /// `out = activation(pre)`
    ActivationForward(typed!("activation_forward")) over pre as [rows, width] {
        activation: Activation = activation[],
        pre: Matrix = activations[rows, width],
        out: Matrix = activations[rows, width],
    } sizes(rows * width) launch_matrix(1, rows * width)
}

operation! {
    /// Turns the gradient behind an activation into that before it.
    ActivationBackward(typed!("activation_backward")) over pre as [rows, width] {
        activation: Activation = activation[],
        pre: Matrix = activations[rows, width],
        /// In and out.
        d: Matrix = activations[rows, width],
        /// Sums for the gradient of the bias; `f32`.
        partials: Matrix = floats[column_partials(rows), width],
    } sizes(rows, width, column_rows(rows)) launch_columns(rows, width)
}

impl Call<'_> {
    fn activation(self, _name: &str, activation: Activation, _shape: [usize; 0]) -> Self {
        self.sizes([activation as usize])
    }
}
