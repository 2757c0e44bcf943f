//! The norm behind a residual connection and the norm alone, forward and backward, each with and without normalising.

use super::launch::{NormBackward, NormForward, NormWeights, ResidualNormBackward, ResidualNormForward, norm_partials};
use crate::Error;
use crate::cuda::op::call::Mask;
use crate::cuda::op::sums::launch::ReducePartials;
use crate::cuda::verify::bench::{
    Bench, FLOATS, PRODUCTION_ROWS, ROUNDED, SHAPES, column_sums, describe, factor_at, masks,
};

/// What is added to the variance; none where nothing is normalised.
pub(in crate::cuda) const EPSILONS: [Option<f32>; 2] = [Some(1e-5), None];

/// Rows and widths of whole vectors, for the kernels that keep rows in registers: each number of vectors a lane, the last
/// of them there for all lanes and for some.
pub(in crate::cuda) const WHOLE: [(usize, usize); 8] =
    [(3, 256), (2, 136), (21, 384), (9, 512), (35, 768), (1, 776), (5, 1024), (6, 1000)];

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    // Blocks of more than two tiles, the last one not full.
    residual_norm(bench, 13_000, 128, masks(13_000, 128)[3], EPSILONS[0])?;
    for epsilon in EPSILONS {
        for (rows, width) in SHAPES.into_iter().chain(WHOLE) {
            for mask in masks(rows, width) {
                residual_norm(bench, rows, width, mask, epsilon)?;
            }
            norm(bench, rows, width, epsilon)?;
        }
        residual_norm(bench, 300, 64, masks(300, 64)[3], epsilon)?;
        norm(bench, 300, 64, epsilon)?;
    }
    Ok(())
}

/// Over as many rows as training has.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    let (rows, width) = (PRODUCTION_ROWS, 768);
    residual_norm(bench, rows, width, masks(rows, width)[3], EPSILONS[0])?;
    norm(bench, rows, width, EPSILONS[0])
}

fn residual_norm(
    bench: &mut Bench<'_>,
    rows: usize,
    width: usize,
    mask: Mask,
    epsilon: Option<f32>,
) -> Result<(), Error> {
    let shape = format!("rows {rows}, width {width}, {}, epsilon {epsilon:?}", describe(mask));
    let count = rows * width;
    let branch = bench.activations("branch", count)?;
    let residual = bench.activations("residual", count)?;
    let branch_bias = bench.floats("bias", width, 0.5)?;
    let norm_weight = bench.floats("weight", width, 1.0)?;
    let norm_bias = bench.floats("norm bias", width, 0.5)?;
    let (mean, rstd, out) = (bench.output_floats(rows)?, bench.output_floats(rows)?, bench.output(count)?);
    // Rows that are every third token.
    let tokens: Vec<u32> = (0..rows as u32).map(|row| if mask.site.is_some() { 3 * row + 1 } else { row }).collect();
    let tokens_buffer = bench.words(&tokens)?;
    let row_tokens = mask.site.map(|_| tokens_buffer.words());
    let norm = NormWeights { weight: norm_weight.vector(), bias: norm_bias.vector(), epsilon };
    let forward = ResidualNormForward {
        branch: branch.matrix(width),
        branch_bias: branch_bias.vector(),
        residual: residual.matrix(width),
        keeps_sum: true,
        norm,
        mask,
        row_tokens,
        mean: mean.vector(),
        rstd: rstd.vector(),
        out: out.matrix(width),
    };
    let unkept = bench.output(count)?;
    ResidualNormForward { keeps_sum: false, out: unkept.matrix(width), ..forward }.launch(bench.device)?;
    bench.compare(
        "residual_norm_forward",
        "branch where the sum is not kept",
        &shape,
        &branch,
        &branch.values,
        ROUNDED,
    )?;
    forward.launch(bench.device)?;
    let factors: Vec<f64> =
        (0..count).map(|i| factor_at(mask, tokens[i / width] as usize * width + i % width, width)).collect();
    let sum: Vec<f64> = (0..count)
        .map(|i| (branch.values[i] + branch_bias.values[i % width]) * factors[i] + residual.values[i])
        .collect();
    bench.compare("residual_norm_forward", "sum", &shape, &branch, &sum, ROUNDED)?;
    // What follows is computed from the sum as it was stored.
    let (sum, _) = bench.read(&branch)?;
    let (means, rstds): (Vec<f64>, Vec<f64>) = sum.chunks_exact(width).map(|row| statistics(row, epsilon)).unzip();
    bench.compare("residual_norm_forward", "mean", &shape, &mean, &means, FLOATS)?;
    bench.compare("residual_norm_forward", "rstd", &shape, &rstd, &rstds, FLOATS)?;
    let expected = normed(&sum, &norm_weight.values, &norm_bias.values, epsilon);
    bench.compare("residual_norm_forward", "out", &shape, &out, &expected, ROUNDED)?;
    bench.compare("residual_norm_forward", "out where the sum is not kept", &shape, &unkept, &expected, ROUNDED)?;

    let d_out = bench.activations("d", count)?;
    let d_branch = bench.output(count)?;
    let partials = bench.output_floats(norm_partials(rows, width) * 3 * width)?;
    ResidualNormBackward {
        d_out: d_out.matrix(width),
        sum: branch.matrix(width),
        mean: mean.vector(),
        rstd: rstd.vector(),
        norm_weight: norm_weight.vector(),
        normalises: epsilon.is_some(),
        mask,
        row_tokens,
        d_sum: d_out.matrix(width),
        d_branch: d_branch.matrix(width),
        partials: partials.matrix(3 * width),
    }
    .launch(bench.device)?;
    let mut d_sum = Vec::new();
    let mut d_weight = Vec::new();
    for (sum, d) in sum.chunks_exact(width).zip(d_out.values.chunks_exact(width)) {
        let (d_row, weight_row) = norm_backward(sum, d, &norm_weight.values, epsilon);
        d_sum.extend(d_row);
        d_weight.extend(weight_row);
    }
    let d_branch_expected: Vec<f64> = d_sum.iter().zip(&factors).map(|(d, f)| d * f).collect();
    bench.compare("residual_norm_backward", "d_sum", &shape, &d_out, &d_sum, ROUNDED)?;
    bench.compare("residual_norm_backward", "d_branch", &shape, &d_branch, &d_branch_expected, ROUNDED)?;
    let destination = bench.floats("destination", 3 * width, 1.0)?;
    let (partials, sums) = (partials.matrix(3 * width), destination.vector());
    ReducePartials { partials, destination: sums }.launch(bench.device)?;
    let sums = [&d_weight, &d_out.values, &d_branch_expected].map(|rows| column_sums(rows, width)).concat();
    let expected: Vec<f64> = destination.values.iter().zip(&sums).map(|(a, b)| a + b).collect();
    bench.compare("residual_norm_backward", "reduced partials", &shape, &destination, &expected, FLOATS)
}

fn norm(bench: &mut Bench<'_>, rows: usize, width: usize, epsilon: Option<f32>) -> Result<(), Error> {
    let shape = format!("rows {rows}, width {width}, epsilon {epsilon:?}");
    let x = bench.activations("x", rows * width)?;
    let (weight, bias) = (bench.floats("weight", width, 1.0)?, bench.floats("norm bias", width, 0.5)?);
    let (mean, rstd, out) = (bench.output_floats(rows)?, bench.output_floats(rows)?, bench.output(rows * width)?);
    NormForward {
        x: x.matrix(width),
        norm: NormWeights { weight: weight.vector(), bias: bias.vector(), epsilon },
        mean: mean.vector(),
        rstd: rstd.vector(),
        out: out.matrix(width),
    }
    .launch(bench.device)?;
    let (means, rstds): (Vec<f64>, Vec<f64>) = x.values.chunks_exact(width).map(|row| statistics(row, epsilon)).unzip();
    bench.compare("norm_forward", "mean", &shape, &mean, &means, FLOATS)?;
    bench.compare("norm_forward", "rstd", &shape, &rstd, &rstds, FLOATS)?;
    let expected = normed(&x.values, &weight.values, &bias.values, epsilon);
    bench.compare("norm_forward", "out", &shape, &out, &expected, ROUNDED)?;

    let d = bench.activations("d", rows * width)?;
    let sums = bench.output_floats(norm_partials(rows, width) * 2 * width)?;
    let partials = sums.matrix(2 * width);
    NormBackward {
        d_out: d.matrix(width),
        x: x.matrix(width),
        mean: mean.vector(),
        rstd: rstd.vector(),
        norm_weight: weight.vector(),
        normalises: epsilon.is_some(),
        d_x: d.matrix(width),
        partials,
    }
    .launch(bench.device)?;
    let rows = x.values.chunks_exact(width).zip(d.values.chunks_exact(width));
    let (d_x, d_weight): (Vec<_>, Vec<_>) = rows.map(|(x, d)| norm_backward(x, d, &weight.values, epsilon)).unzip();
    bench.compare("norm_backward", "d_x", &shape, &d, &d_x.concat(), ROUNDED)?;
    let destination = bench.floats("destination", 2 * width, 1.0)?;
    ReducePartials { partials, destination: destination.vector() }.launch(bench.device)?;
    let sums = [column_sums(&d_weight.concat(), width), column_sums(&d.values, width)].concat();
    let expected: Vec<f64> = destination.values.iter().zip(&sums).map(|(a, b)| a + b).collect();
    bench.compare("norm_backward", "reduced partials", &shape, &destination, &expected, FLOATS)
}

/// Rows normalised, scaled and shifted.
pub(in crate::cuda) fn normed(rows: &[f64], weight: &[f64], bias: &[f64], epsilon: Option<f32>) -> Vec<f64> {
    let normed = rows.chunks_exact(weight.len()).flat_map(|row| {
        let (mean, rstd) = statistics(row, epsilon);
        row.iter().zip(weight).zip(bias).map(move |((x, weight), bias)| (x - mean) * rstd * weight + bias)
    });
    normed.collect()
}

/// Mean and reciprocal deviation of a row.
pub(in crate::cuda) fn statistics(row: &[f64], epsilon: Option<f32>) -> (f64, f64) {
    let Some(epsilon) = epsilon else { return (0.0, 1.0) };
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / (variance + f64::from(epsilon)).sqrt())
}

/// Gradient before a norm, and the rows that add up to the gradients of its weight.
pub(in crate::cuda) fn norm_backward(
    sum: &[f64],
    d: &[f64],
    weight: &[f64],
    epsilon: Option<f32>,
) -> (Vec<f64>, Vec<f64>) {
    let (mean, rstd) = statistics(sum, epsilon);
    let n = if epsilon.is_some() { sum.len() as f64 } else { f64::INFINITY };
    let normalized: Vec<f64> = sum.iter().map(|x| (x - mean) * rstd).collect();
    let scaled: Vec<f64> = d.iter().zip(weight).map(|(d, w)| d * w).collect();
    let along = scaled.iter().zip(&normalized).map(|(d, x)| d * x).sum::<f64>() / n;
    let level = scaled.iter().sum::<f64>() / n;
    let d_sum = scaled.iter().zip(&normalized).map(|(d, x)| rstd * (d - level - x * along)).collect();
    (d_sum, d.iter().zip(&normalized).map(|(d, x)| d * x).collect())
}
