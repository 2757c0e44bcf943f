//! The largest logits of rows, in any order and with equal ones, and the sums over the others.

use super::launch::{MOST, TopLogits};
use crate::Error;
use crate::cuda::operand::{Number, Words};
use crate::cuda::verify::bench::{Bench, FLOATS, normal};

const TEMPERATURES: [f32; 6] = [1.0, 2.0, 4.0, 0.7, 3.0, 10.0];

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (rows, width, k, temperatures) in [
        (1, 2, 1, 1),
        (3, 30, 7, 3),
        (9, 257, MOST, 4),
        (2, 1025, 64, 3),
        (5, 1500, 1, 6),
        (2, 5003, 64, 2),
        (2, 30_522, 64, 3),
    ] {
        for kind in KINDS {
            check(bench, kind, rows, width, k, temperatures)?;
        }
    }
    Ok(())
}

/// As many tokens as a masked-language model is asked about at once.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    check(bench, "spread", 512, 30_522, 64, 3)
}

/// What rows look like: nothing twice; a handful of values; one value alone; most of them masked; falling and rising along
/// the row; the largest far above the others; not all of them numbers.
const KINDS: [&str; 7] = ["spread", "few values", "equal", "masked", "sorted", "far above", "not finite"];

fn row(kind: &str, row: usize, width: usize) -> Vec<f32> {
    let mut values = normal(&format!("logits {row}"), width, 3.0);
    match kind {
        "few values" => values.iter_mut().for_each(|value| *value = value.round() * 0.5),
        "equal" => values.fill(-1.5),
        "masked" => values[..width / 2].fill(f32::MIN),
        "sorted" => {
            values.sort_unstable_by(f32::total_cmp);
            if row % 2 == 1 {
                values.reverse();
            }
        }
        "far above" => values[width / 2] = 1e30,
        "not finite" => values[width - 1] = if row % 2 == 1 { f32::NAN } else { f32::NEG_INFINITY },
        _ => {}
    }
    values
}

fn check(
    bench: &mut Bench<'_>,
    kind: &str,
    rows: usize,
    width: usize,
    k: usize,
    temperatures: usize,
) -> Result<(), Error> {
    // Logits are in f32 whatever the rest is in.
    if bench.number() == Number::Bf16 {
        return Ok(());
    }
    let shape = format!("rows {rows}, width {width}, k {k}, temperatures {temperatures}, {kind}");
    let logits: Vec<f32> = (0..rows).flat_map(|number| row(kind, number, width)).collect();
    let temperatures = &TEMPERATURES[..temperatures];
    let sides = 1 + 2 * temperatures.len();
    let (given, at) = (bench.operand(&logits, Number::F32)?, bench.operand(temperatures, Number::F32)?);
    let [values, columns, rest] = [k, k, sides].map(|side| bench.output_floats(rows * side));
    let (values, columns, rest) = (values?, columns?, rest?);
    TopLogits {
        logits: given.matrix(width),
        temperatures: at.vector(),
        values: values.matrix(k),
        columns: Words { at: columns.at(0), len: rows * k },
        rest: rest.matrix(sides),
    }
    .launch(bench.device)?;

    let (mut expected_values, mut expected_columns, mut expected_rest) = (Vec::new(), Vec::new(), Vec::new());
    for logits in logits.chunks_exact(width) {
        let mut order: Vec<usize> = (0..width).collect();
        let rank = |index: usize| (!logits[index].is_finite(), logits[index]);
        order.sort_by(|&a, &b| {
            let (a, b) = (rank(a), rank(b));
            b.0.cmp(&a.0).then(if a.0 && b.0 { std::cmp::Ordering::Equal } else { b.1.total_cmp(&a.1) })
        });
        expected_values.extend(order[..k].iter().map(|&index| logits[index]));
        expected_columns.extend(order[..k].iter().map(|&index| f32::from_bits(index as u32)));
        let top = f64::from(logits[order[k]]);
        expected_rest.push(top);
        for &temperature in temperatures {
            let scaled = || order[k..].iter().map(|&index| (f64::from(logits[index]) - top) / f64::from(temperature));
            expected_rest.push(scaled().map(f64::exp).sum());
            expected_rest.push(scaled().map(|x| x.exp() * x).sum());
        }
    }
    let expected_values = bench.operand(&expected_values, Number::F32)?;
    let expected_columns = bench.operand(&expected_columns, Number::F32)?;
    bench.same("top_k", "values", &shape, [&values, &expected_values])?;
    bench.same("top_k", "columns", &shape, [&columns, &expected_columns])?;
    bench.compare("top_k", "rest", &shape, &rest, &expected_rest, FLOATS)?;
    // As a cache stores them: beside large masses small ones would not count. The 1 is for tails of 0.
    let tails = |rest: &[f64]| -> Vec<f64> {
        rest.chunks_exact(sides).flat_map(|rest| rest[1..].chunks_exact(2).map(|sums| 1.0 + sums[0].ln())).collect()
    };
    let found = tails(&bench.read(&rest)?.0);
    let found: Vec<f32> = found.into_iter().map(|tail| tail as f32).collect();
    let found = bench.operand(&found, Number::F32)?;
    bench.compare("top_k", "tails", &shape, &found, &tails(&expected_rest), FLOATS)
}
