//! Sums over rows: partial ones, which take many blocks, and what adds them up.

use crate::Error;
use crate::cuda::op::call::Call;
use crate::cuda::operand::{Matrix, Vector};

operation! {
    /// Partial sums of a matrix' columns.
    ColumnSum(typed!("column_sum")) over x as [rows, width] {
        /// Rows may have gaps.
        x: Matrix = strided[rows, width],
        /// `f32`
        partials: Matrix = floats[column_partials(rows), width],
    } sizes(rows, width, column_rows(rows)) launch_columns(rows, width)
}

operation! {
    /// `destination +=` the sum of the partial sums. All `f32`.
    ReducePartials(["reduce_partials"; 2]) over partials as [count, width] {
        partials: Matrix = floats[count, width],
        destination: Vector = vector[width],
    } sizes(count, width) launch([width.div_ceil(32), 1, 1], 256, 0)
}

operation! {
    /// `sums +=` the sum of the rows, for few columns. All `f32`.
    SumRows(["sum_rows"; 2]) over x as [rows, width] {
        x: Matrix = floats[rows, width],
        sums: Vector = vector[width],
    } sizes(rows, width) launch([1, 1, 1], 256, 0)
}

/// Partial sums of [`ColumnSum`] and of an activation's backward kernel.
pub(crate) fn column_partials(rows: usize) -> usize {
    rows.div_ceil(column_rows(rows))
}

/// Rows that share one partial sum.
pub(in crate::cuda::op) fn column_rows(rows: usize) -> usize {
    rows.div_ceil(128).max(16)
}

impl Call<'_> {
    /// A thread a vector of columns, rows cut into blocks.
    pub(in crate::cuda::op) fn launch_columns(&mut self, rows: usize, width: usize) -> Result<(), Error> {
        let vectors = width.div_ceil(self.lanes());
        let threads = vectors.next_multiple_of(32).clamp(32, 128);
        self.launch([vectors.div_ceil(threads), column_partials(rows), 1], threads, 0)
    }
}
