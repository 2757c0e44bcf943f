//! Sums of columns through their partial sums. What other kernels leave as partial sums is checked with them.

use super::launch::{ColumnSum, ReducePartials, column_partials};
use crate::Error;
use crate::cuda::verify::bench::{Bench, FLOATS, PRODUCTION_ROWS, SHAPES, column_sums};

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (rows, width) in SHAPES {
        column_sum(bench, rows, width, 2 * width)?;
    }
    // Blocks of more than one tile of rows, the last one not full.
    column_sum(bench, 1500, 3072, 3080)?;
    // From a warp without a row to warps with more than eight.
    for (count, width) in [(1, 33), (5, 64), (40, 3), (250, 40), (256, 32), (1000, 100)] {
        reduce_partials(bench, count, width)?;
    }
    Ok(())
}

fn reduce_partials(bench: &mut Bench<'_>, count: usize, width: usize) -> Result<(), Error> {
    let partials = bench.floats("partials", count * width, 1.0)?;
    let destination = bench.floats("destination", width, 1.0)?;
    ReducePartials { partials: partials.matrix(width), destination: destination.vector() }.launch(bench.device)?;
    let sums = column_sums(&partials.values, width);
    let expected: Vec<f64> = destination.values.iter().zip(&sums).map(|(a, b)| a + b).collect();
    let shape = format!("{count} of width {width}");
    bench.compare("reduce_partials", "destination", &shape, &destination, &expected, FLOATS)
}

/// Over as many rows as training has.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    column_sum(bench, PRODUCTION_ROWS, 768, 2 * 768)
}

fn column_sum(bench: &mut Bench<'_>, rows: usize, width: usize, stride: usize) -> Result<(), Error> {
    let shape = format!("rows {rows}, width {width}, stride {stride}");
    let x = bench.activations("x", rows * stride)?;
    let partials = bench.output_floats(column_partials(rows, width) * width)?;
    let (right, partials) = (x.matrix(stride).columns(stride - width..stride), partials.matrix(width));
    ColumnSum { x: right, partials }.launch(bench.device)?;
    let sums = bench.floats("sums", width, 1.0)?;
    ReducePartials { partials, destination: sums.vector() }.launch(bench.device)?;
    let expected: Vec<f64> =
        sums.values.iter().zip(&column_sums(&x.values, stride)[stride - width..]).map(|(a, b)| a + b).collect();
    bench.compare("column_sum", "reduced partials", &shape, &sums, &expected, FLOATS)
}
