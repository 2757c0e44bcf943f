//! Sums over rows: partial ones, which take many blocks, and what adds them up.

use crate::Error;
use crate::cuda::op::call::{Call, EIGHT};
use crate::cuda::operand::{Matrix, Vector};
use crate::cuda::variant;

operation! {
    /// Partial sums of a matrix' columns.
    ColumnSum(typed!("column_sum")) over x as [rows, width] {
        /// Rows may have gaps.
        x: Matrix = strided[rows, width],
        /// `f32`
        partials: Matrix = floats[column_partials(rows, width), width],
    } sizes(rows, width, column_rows(rows, width))
        launch_columns(rows, width, typed!("column_sum_whole"), "old-column-sum")
}

operation! {
    /// `destination +=` the sum of the partial sums. All `f32`.
    ReducePartials(["reduce_partials"; 2]) over partials as [count, width] {
        partials: Matrix = floats[count, width],
        destination: Vector = vector[width],
    } sizes(count, width) launch_reduce(count, width)
}

operation! {
    /// `sums +=` the sum of the rows, for few columns. All `f32`.
    SumRows(["sum_rows"; 2]) over x as [rows, width] {
        x: Matrix = floats[rows, width],
        sums: Vector = vector[width],
    } sizes(rows, width) launch([1, 1, 1], 256, 0)
}

/// Partial sums of [`ColumnSum`] and of an activation's backward kernel.
pub(crate) fn column_partials(rows: usize, width: usize) -> usize {
    rows.div_ceil(column_rows(rows, width))
}

/// Rows that share one partial sum: blocks for 16 warps on each multiprocessor of an H100, by shapes alone as
/// [`norm_rows`](crate::cuda::op::norm::launch::norm_rows).
pub(in crate::cuda::op) fn column_rows(rows: usize, width: usize) -> usize {
    if variant::given("old-columns") {
        return rows.div_ceil(128).max(16);
    }
    let [tiles, threads] = whole_tiles(width);
    let resident = (32 * variant::number("column-warps").unwrap_or(16) / threads).max(1);
    rows.div_ceil((132 * resident / tiles).max(1)).max(8)
}

/// How many blocks share the vectors of a whole row, and the threads of each: as even as they can.
fn whole_tiles(width: usize) -> [usize; 2] {
    let vectors = width.div_ceil(EIGHT).max(1);
    let tiles = vectors.div_ceil(128);
    [tiles, vectors.div_ceil(tiles).next_multiple_of(32)]
}

impl Call<'_> {
    /// A thread a vector of columns, rows cut into blocks. `whole`: the kernel for whole rows; `old` forgoes it.
    pub(in crate::cuda::op) fn launch_columns(
        &mut self,
        rows: usize,
        width: usize,
        whole: [&'static str; 2],
        old: &str,
    ) -> Result<(), Error> {
        let partials = column_partials(rows, width);
        if self.whole(width) && !variant::given(old) && !variant::given("old-columns") {
            self.kernel = self.of_type(whole);
            let [tiles, threads] = whole_tiles(width);
            return self.launch([tiles, partials, 1], threads, 0);
        }
        let vectors = width.div_ceil(self.lanes());
        let threads = vectors.next_multiple_of(32).clamp(32, 128);
        self.launch([vectors.div_ceil(threads), partials, 1], threads, 0)
    }

    /// A block 32 columns; a warp for every four rows, within limits.
    fn launch_reduce(&mut self, count: usize, width: usize) -> Result<(), Error> {
        let grid = [width.div_ceil(32), 1, 1];
        if variant::given("old-reduce") {
            return self.launch(grid, 256, 0);
        }
        self.kernel = "reduce_partials_wide";
        self.launch(grid, 32 * count.div_ceil(4).next_power_of_two().clamp(4, 32), 0)
    }
}
