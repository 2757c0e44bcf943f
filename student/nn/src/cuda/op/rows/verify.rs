//! Rows moved, added, dropped from, rounded and widened.

use super::launch::{Cast, DropoutRows, GatherRows, ScatterAddRows, Widen};
use crate::Error;
use crate::cuda::operand::Vector;
use crate::cuda::verify::bench::{Bench, FLOATS, PRODUCTION_ROWS, ROUNDED, SHAPES, describe, factor_at, masks};

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (rows, width) in SHAPES {
        moves(bench, rows, width)?;
    }
    Ok(())
}

/// Over as many rows as training has.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    moves(bench, PRODUCTION_ROWS, 96)
}

fn moves(bench: &mut Bench<'_>, rows: usize, width: usize) -> Result<(), Error> {
    let shape = format!("rows {rows}, width {width}");
    let device = bench.device;
    let many = 3 * rows;
    let which: Vec<u32> = (0..rows as u32).map(|row| (row * 2 + 1) % many as u32).collect();
    let which_buffer = bench.words(&which)?;
    let place = |i: usize| which[i / width] as usize * width + i % width;

    let from = bench.activations("from", many * width)?;
    let to = bench.output(rows * width)?;
    let (table, which_words) = (from.matrix(width), which_buffer.words());
    GatherRows { from: table, which: which_words, to: to.matrix(width) }.launch(device)?;
    let expected: Vec<f64> = (0..rows * width).map(|i| from.values[place(i)]).collect();
    bench.compare("gather_rows", "to", &shape, &to, &expected, ROUNDED)?;

    let addend = bench.activations("addend", rows * width)?;
    ScatterAddRows { from: addend.matrix(width), which: which_words, to: table }.launch(device)?;
    let mut expected = from.values.clone();
    (0..rows * width).for_each(|i| expected[place(i)] += addend.values[i]);
    bench.compare("scatter_add_rows", "to", &shape, &from, &expected, ROUNDED)?;

    for mask in &masks(rows, width)[1..] {
        for row_tokens in [None, Some(which_words)] {
            let shape = format!("{shape}, {}, all {}", describe(*mask), row_tokens.is_none());
            let x = bench.activations("x", rows * width)?;
            DropoutRows { x: x.matrix(width), mask: *mask, row_tokens }.launch(device)?;
            let number = |i: usize| if row_tokens.is_some() { place(i) } else { i };
            let dropped = |(i, x): (usize, &f64)| x * factor_at(*mask, number(i), width);
            let expected: Vec<f64> = x.values.iter().enumerate().map(dropped).collect();
            bench.compare("dropout_rows", "x", &shape, &x, &expected, ROUNDED)?;
        }
    }

    let floats = bench.floats("floats", rows * width + 1, 1.0)?;
    let cast = bench.output(rows * width)?;
    // From an address that is not a multiple of 16.
    let from = Vector { at: floats.at(1), len: rows * width };
    Cast { from, to: cast.matrix(width) }.launch(device)?;
    bench.compare("cast", "to", &shape, &cast, &floats.values[1..], ROUNDED)?;

    let wide = bench.output_floats(rows * width)?;
    Widen { from: addend.matrix(width), to: wide.matrix(width) }.launch(device)?;
    bench.compare("widen", "to", &shape, &wide, &addend.values, FLOATS)
}
