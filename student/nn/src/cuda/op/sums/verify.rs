//! Sums of columns through their partial sums. What other kernels leave as partial sums is checked with them.

use super::launch::{ColumnSum, ReducePartials, column_partials};
use crate::Error;
use crate::cuda::verify::bench::{Bench, FLOATS, PRODUCTION_ROWS, SHAPES, column_sums};

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (rows, width) in SHAPES {
        column_sum(bench, rows, width)?;
    }
    Ok(())
}

/// Over as many rows as training has.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    column_sum(bench, PRODUCTION_ROWS, 768)
}

fn column_sum(bench: &mut Bench<'_>, rows: usize, width: usize) -> Result<(), Error> {
    let stride = 2 * width;
    let shape = format!("rows {rows}, width {width}, stride {stride}");
    let x = bench.activations("x", rows * stride)?;
    let partials = bench.output_floats(column_partials(rows) * width)?;
    let (right, partials) = (x.matrix(stride).columns(width..stride), partials.matrix(width));
    ColumnSum { x: right, partials }.launch(bench.device)?;
    let sums = bench.floats("sums", width, 1.0)?;
    ReducePartials { partials, destination: sums.vector() }.launch(bench.device)?;
    let expected: Vec<f64> =
        sums.values.iter().zip(&column_sums(&x.values, stride)[width..]).map(|(a, b)| a + b).collect();
    bench.compare("column_sum", "reduced partials", &shape, &sums, &expected, FLOATS)
}
