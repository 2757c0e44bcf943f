//! Activation functions, and their derivatives together with the gradient of the bias before them.

use crate::cuda::op::call::{Call, EIGHT};
use crate::cuda::op::sums::launch::{column_partials, column_rows};
use crate::cuda::operand::Matrix;
use crate::cuda::variant;
use crate::{Activation, Error};

operation! {
    /// `out = activation(pre)`
    ActivationForward(typed!("activation_forward")) over pre as [rows, width] {
        activation: Activation = activation[],
        pre: Matrix = activations[rows, width],
        out: Matrix = activations[rows, width],
    } sizes(rows * width) launch_activation(rows * width)
}

operation! {
    /// Turns the gradient behind an activation into that before it.
    ActivationBackward(typed!("activation_backward")) over pre as [rows, width] {
        activation: Activation = activation[],
        pre: Matrix = activations[rows, width],
        /// In and out.
        d: Matrix = activations[rows, width],
        /// Sums for the gradient of the bias; `f32`.
        partials: Matrix = floats[column_partials(rows, width), width],
    } sizes(rows, width, column_rows(rows, width))
        launch_columns(rows, width, typed!("activation_backward_whole"), "old-activation")
}

impl Call<'_> {
    fn activation(self, _name: &str, activation: Activation, _shape: [usize; 0]) -> Self {
        self.sizes([activation as usize])
    }

    /// Two vectors a thread where all are whole.
    fn launch_activation(&mut self, count: usize) -> Result<(), Error> {
        if self.whole(count) && !variant::given("old-activation") {
            self.kernel = self.of_type(typed!("activation_forward_whole"));
            return self.launch([count.div_ceil(512 * EIGHT), 1, 1], 256, 0);
        }
        self.launch_matrix(1, count)
    }
}
