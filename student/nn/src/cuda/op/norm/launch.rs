//! Residual, dropout and norm over rows, and a norm alone.

use crate::Error;
use crate::cuda::op::call::{Call, EIGHT, Mask};
use crate::cuda::operand::{Matrix, Vector, Words};
use crate::cuda::variant;

/// The most elements of a row that kernels for whole rows keep in registers; `student/nn/cuda/whole_norm.cuh` knows it
/// too.
const WHOLE_WIDTH: usize = 1024;

operation! {
    /// `sum = dropout(branch + branch_bias) + residual`, `out = norm(sum)`.
    ResidualNormForward(typed!("residual_norm_forward")) over branch as [rows, width] {
        /// The branch in, the sum out where it is kept.
        branch: Matrix = activations[rows, width],
        branch_bias: Vector = vector[width],
        residual: Matrix = activations[rows, width],
        /// Whether a backward pass will want the sum.
        keeps_sum: bool = flag[],
        norm: NormWeights = norm[width],
        mask: Mask = mask[],
        /// Which token of the batch each row is; without, row `r` is token `r`.
        row_tokens: Option<Words> = words[rows],
        mean: Vector = vector[rows],
        rstd: Vector = vector[rows],
        out: Matrix = activations[rows, width],
    } sizes(rows, width) launch_norm(rows, width, by_vectors!("residual_norm_forward"))
}

operation! {
    /// Backward of [`ResidualNormForward`].
    ResidualNormBackward(typed!("residual_norm_backward")) over d_out as [rows, width] {
        d_out: Matrix = activations[rows, width],
        /// As forward left it; so are the next two.
        sum: Matrix = activations[rows, width],
        mean: Vector = vector[rows],
        rstd: Vector = vector[rows],
        norm_weight: Vector = vector[width],
        normalises: bool = flag[],
        mask: Mask = mask[],
        row_tokens: Option<Words> = words[rows],
        /// The gradient in the residual; may be `d_out`.
        d_sum: Matrix = activations[rows, width],
        d_branch: Matrix = activations[rows, width],
        /// Sums for the gradients of the norm's weight and bias and of the branch's bias; `f32`.
        partials: Matrix = floats[norm_partials(rows, width), 3 * width],
    } sizes(rows, width, norm_rows(rows, width))
        launch_norm_backward(rows, width, typed!("residual_norm_backward_whole"))
}

operation! {
    /// `out = norm(x)`
    NormForward(typed!("norm_forward")) over x as [rows, width] {
        x: Matrix = activations[rows, width],
        norm: NormWeights = norm[width],
        mean: Vector = vector[rows],
        rstd: Vector = vector[rows],
        out: Matrix = activations[rows, width],
    } sizes(rows, width) launch_norm(rows, width, by_vectors!("norm_forward"))
}

operation! {
    /// Backward of [`NormForward`].
    NormBackward(typed!("norm_backward")) over d_out as [rows, width] {
        d_out: Matrix = activations[rows, width],
        x: Matrix = activations[rows, width],
        /// As forward left it; so is the next one.
        mean: Vector = vector[rows],
        rstd: Vector = vector[rows],
        norm_weight: Vector = vector[width],
        normalises: bool = flag[],
        /// May be `d_out`.
        d_x: Matrix = activations[rows, width],
        /// Sums for the gradients of weight and bias; `f32`.
        partials: Matrix = floats[norm_partials(rows, width), 2 * width],
    } sizes(rows, width, norm_rows(rows, width)) launch_norm_backward(rows, width, typed!("norm_backward_whole"))
}

/// Scale and shift of a norm, `[W]` each, and what is added to the variance; nothing is normalised without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormWeights {
    pub(crate) weight: Vector,
    pub(crate) bias: Vector,
    pub(crate) epsilon: Option<f32>,
}

/// Partial sums of [`ResidualNormBackward`], [`NormBackward`] and the embeddings' norm.
pub(crate) fn norm_partials(rows: usize, width: usize) -> usize {
    rows.div_ceil(norm_rows(rows, width))
}

/// Rows that share one partial sum, of which a block has room for 64: as many blocks as an H100 (132 multiprocessors) has
/// at a time with 12 warps of each, or an A100 (108) with 15, and never few rows for the sums' sake. By shapes alone, so
/// that a GPU's size does not change a result.
pub(in crate::cuda::op) fn norm_rows(rows: usize, width: usize) -> usize {
    if variant::given("old-norm") {
        return rows.div_ceil(256).clamp(8, 64);
    }
    let warps = width.div_ceil(32 * EIGHT).max(1);
    let blocks = 132 * (variant::number("norm-warps").unwrap_or(12) / warps).max(1);
    rows.div_ceil(blocks).clamp(8, 64)
}

impl Call<'_> {
    pub(in crate::cuda::op) fn norm(self, _name: &str, norm: NormWeights, width: [usize; 1]) -> Self {
        let call = self.vector("norm.weight", norm.weight, width).vector("norm.bias", norm.bias, width);
        call.scalar("norm.epsilon", norm.epsilon.unwrap_or(-1.0), [])
    }

    /// A warp a row, which it keeps in registers where rows are `whole`, else as floats in shared memory.
    pub(in crate::cuda::op) fn launch_norm(
        &mut self,
        rows: usize,
        width: usize,
        whole: [[&'static str; 2]; 4],
    ) -> Result<(), Error> {
        if self.whole(width) && width <= WHOLE_WIDTH && !variant::given("old-norm") {
            self.kernel = self.of_type(whole[width.div_ceil(32 * EIGHT) - 1]);
            return self.launch([rows.div_ceil(4), 1, 1], 128, 0);
        }
        self.launch_row_warps(rows, 1, width.next_multiple_of(8) * 4)
    }

    /// As many threads as share the columns of a row without many of them idle.
    pub(in crate::cuda::op) fn launch_norm_backward(
        &mut self,
        rows: usize,
        width: usize,
        whole: [&'static str; 2],
    ) -> Result<(), Error> {
        let blocks = [norm_partials(rows, width), 1, 1];
        // In narrower rows too few threads had a vector.
        if self.whole(width) && (128..=WHOLE_WIDTH).contains(&width) && !variant::given("old-norm") {
            self.kernel = self.of_type(whole);
            return self.launch(blocks, (width / EIGHT).next_multiple_of(32), 0);
        }
        let vectors = width.div_ceil(self.lanes()).max(1);
        let threads = (vectors * (256 / vectors).max(1)).next_multiple_of(32).min(256);
        self.launch(blocks, threads, 0)
    }
}
