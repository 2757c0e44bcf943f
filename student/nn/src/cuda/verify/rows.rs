//! Kernels that go over rows: norms, embeddings, activations, sums, moves and the loss.

use super::{Bench, Tolerance, column_sums, factor, mask};
use crate::cuda::device::Ptr;
use crate::cuda::kernels;
use crate::random::DropoutSite;
use crate::{Activation, Error};

/// Activations that a kernel rounds once, from `f32` arithmetic. Measured: 4.5e-7 and 3.1e-3.
const ROUNDED: Tolerance = Tolerance { f32: 1.4e-6, bf16: 9.3e-3 };
/// Outputs in `f32`. Measured: 3.5e-7 and 3.1e-7.
const FLOATS: Tolerance = Tolerance { f32: 1.1e-6, bf16: 9.3e-7 };
/// Gradients of the loss. Measured: 1.9e-6, where a probability is close to one, and 2.8e-3.
const LOSS_GRADIENT: Tolerance = Tolerance { f32: 5.7e-6, bf16: 8.4e-3 };
/// The loss itself. Measured: 1.7e-6.
const LOSS: Tolerance = Tolerance { f32: 5.1e-6, bf16: 5.1e-6 };

pub(super) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (rows, width) in [(1, 64), (3, 30), (17, 96), (5, 768), (67, 33), (2, 1025), (9, 2056)] {
        for dropout in [false, true] {
            residual_norm(bench, rows, width, mask(dropout))?;
            embed_norm(bench, rows, width, mask(dropout))?;
        }
        activation(bench, rows, width)?;
        column_sum(bench, rows, width)?;
        moves(bench, rows, width)?;
    }
    residual_norm(bench, 300, 64, mask(true))?;
    activation(bench, 130, 40)?;
    for (rows, classes) in [(1, 2), (5, 3), (9, 70)] {
        loss(bench, rows, classes)?;
    }
    Ok(())
}

/// Mean and reciprocal deviation of a row.
fn statistics(row: &[f64], epsilon: f64) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// Gradient before a norm, and the rows that add up to the gradients of its weight.
fn norm_backward(sum: &[f64], d: &[f64], weight: &[f64], epsilon: f64) -> (Vec<f64>, Vec<f64>) {
    let (mean, rstd) = statistics(sum, epsilon);
    let n = sum.len() as f64;
    let normalized: Vec<f64> = sum.iter().map(|x| (x - mean) * rstd).collect();
    let scaled: Vec<f64> = d.iter().zip(weight).map(|(d, w)| d * w).collect();
    let along = scaled.iter().zip(&normalized).map(|(d, x)| d * x).sum::<f64>() / n;
    let level = scaled.iter().sum::<f64>() / n;
    let d_sum = scaled.iter().zip(&normalized).map(|(d, x)| rstd * (d - level - x * along)).collect();
    (d_sum, d.iter().zip(&normalized).map(|(d, x)| d * x).collect())
}

const EPSILON: f32 = 1e-5;

fn residual_norm(bench: &mut Bench<'_>, rows: usize, width: usize, dropout: Option<DropoutSite>) -> Result<(), Error> {
    let shape = format!("rows {rows}, width {width}, dropout {}", dropout.is_some());
    let count = rows * width;
    let branch = bench.activations("branch", count)?;
    let residual = bench.activations("residual", count)?;
    let branch_bias = bench.floats("bias", width, 0.5)?;
    let norm_weight = bench.floats("weight", width, 1.0)?;
    let norm_bias = bench.floats("norm bias", width, 0.5)?;
    let (mean, rstd, out) = (bench.output_floats(rows)?, bench.output_floats(rows)?, bench.output(count)?);
    // Rows that are every third token.
    let tokens: Vec<u32> = (0..rows as u32).map(|row| if dropout.is_some() { 3 * row + 1 } else { row }).collect();
    let tokens_buffer = bench.words(&tokens)?;
    let row_tokens = if dropout.is_some() { tokens_buffer.ptr() } else { Ptr::NULL };
    kernels::residual_norm_forward(
        bench.device,
        bench.precision,
        branch.ptr(),
        branch_bias.ptr(),
        residual.ptr(),
        norm_weight.ptr(),
        norm_bias.ptr(),
        EPSILON,
        dropout,
        row_tokens,
        rows,
        width,
        mean.ptr(),
        rstd.ptr(),
        out.ptr(),
    )?;
    let factors: Vec<f64> =
        (0..count).map(|i| factor(dropout, tokens[i / width] as usize * width + i % width)).collect();
    let sum: Vec<f64> = (0..count)
        .map(|i| (branch.values[i] + branch_bias.values[i % width]) * factors[i] + residual.values[i])
        .collect();
    bench.compare("residual_norm_forward", "sum", &shape, &branch, &sum, ROUNDED)?;
    // What follows is computed from the sum as it was stored.
    let (sum, _) = bench.read(&branch)?;
    let statistics: Vec<(f64, f64)> = sum.chunks_exact(width).map(|row| statistics(row, EPSILON.into())).collect();
    let (means, rstds): (Vec<f64>, Vec<f64>) = statistics.iter().copied().unzip();
    bench.compare("residual_norm_forward", "mean", &shape, &mean, &means, FLOATS)?;
    bench.compare("residual_norm_forward", "rstd", &shape, &rstd, &rstds, FLOATS)?;
    let expected: Vec<f64> = (0..count)
        .map(|i| {
            (sum[i] - means[i / width]) * rstds[i / width] * norm_weight.values[i % width] + norm_bias.values[i % width]
        })
        .collect();
    bench.compare("residual_norm_forward", "out", &shape, &out, &expected, ROUNDED)?;

    let d_out = bench.activations("d", count)?;
    let d_branch = bench.output(count)?;
    let blocks = kernels::norm_partials(rows);
    let partials = bench.output_floats(blocks * 3 * width)?;
    kernels::residual_norm_backward(
        bench.device,
        bench.precision,
        d_out.ptr(),
        branch.ptr(),
        mean.ptr(),
        rstd.ptr(),
        norm_weight.ptr(),
        dropout,
        row_tokens,
        rows,
        width,
        d_out.ptr(),
        d_branch.ptr(),
        partials.ptr(),
    )?;
    let mut d_sum = Vec::new();
    let mut d_weight = Vec::new();
    for (sum, d) in sum.chunks_exact(width).zip(d_out.values.chunks_exact(width)) {
        let (d_row, weight_row) = norm_backward(sum, d, &norm_weight.values, EPSILON.into());
        d_sum.extend(d_row);
        d_weight.extend(weight_row);
    }
    let d_branch_expected: Vec<f64> = d_sum.iter().zip(&factors).map(|(d, f)| d * f).collect();
    bench.compare("residual_norm_backward", "d_sum", &shape, &d_out, &d_sum, ROUNDED)?;
    bench.compare("residual_norm_backward", "d_branch", &shape, &d_branch, &d_branch_expected, ROUNDED)?;
    let destination = bench.floats("destination", 3 * width, 1.0)?;
    kernels::reduce_partials(bench.device, partials.ptr(), blocks, 3 * width, destination.ptr())?;
    let sums = [&d_weight, &d_out.values, &d_branch_expected].map(|rows| column_sums(rows, width)).concat();
    let expected: Vec<f64> = destination.values.iter().zip(&sums).map(|(a, b)| a + b).collect();
    bench.compare("residual_norm_backward", "reduced partials", &shape, &destination, &expected, FLOATS)
}

fn embed_norm(bench: &mut Bench<'_>, tokens: usize, width: usize, dropout: Option<DropoutSite>) -> Result<(), Error> {
    let shape = format!("tokens {tokens}, width {width}, dropout {}", dropout.is_some());
    let typed = dropout.is_some();
    let vocabulary = 11;
    let word = bench.floats("word", vocabulary * width, 1.0)?;
    let position_table = bench.floats("position", 64 * width, 1.0)?;
    let type_table = bench.floats("type", 2 * width, 1.0)?;
    let ids: Vec<u32> = (0..tokens as u32).map(|token| token * 7 % 5 * 2).collect();
    let positions: Vec<u32> = (0..tokens as u32).map(|token| token % 61 + 2).collect();
    let types: Vec<u32> = (0..tokens as u32).map(|token| token / 3 % 2).collect();
    let buffers = [bench.words(&ids)?, bench.words(&types)?, bench.words(&positions)?];
    let norm_weight = bench.floats("weight", width, 1.0)?;
    let norm_bias = bench.floats("norm bias", width, 0.5)?;
    let count = tokens * width;
    let (sum, out) = (bench.output(count)?, bench.output(count)?);
    let (mean, rstd) = (bench.output_floats(tokens)?, bench.output_floats(tokens)?);
    kernels::embed_norm_forward(
        bench.device,
        bench.precision,
        buffers[0].ptr(),
        if typed { buffers[1].ptr() } else { Ptr::NULL },
        buffers[2].ptr(),
        word.ptr(),
        if typed { type_table.ptr() } else { Ptr::NULL },
        position_table.ptr(),
        norm_weight.ptr(),
        norm_bias.ptr(),
        EPSILON,
        dropout,
        tokens,
        width,
        sum.ptr(),
        mean.ptr(),
        rstd.ptr(),
        out.ptr(),
    )?;
    let looked_up = |token: usize, column: usize| {
        let of_type = if typed { type_table.values[types[token] as usize * width + column] } else { 0.0 };
        word.values[ids[token] as usize * width + column]
            + position_table.values[positions[token] as usize * width + column]
            + of_type
    };
    let expected: Vec<f64> = (0..count).map(|i| looked_up(i / width, i % width)).collect();
    bench.compare("embed_norm_forward", "sum", &shape, &sum, &expected, ROUNDED)?;
    let (stored, _) = bench.read(&sum)?;
    let statistics: Vec<(f64, f64)> = stored.chunks_exact(width).map(|row| statistics(row, EPSILON.into())).collect();
    let (means, rstds): (Vec<f64>, Vec<f64>) = statistics.iter().copied().unzip();
    bench.compare("embed_norm_forward", "mean", &shape, &mean, &means, FLOATS)?;
    bench.compare("embed_norm_forward", "rstd", &shape, &rstd, &rstds, FLOATS)?;
    let expected: Vec<f64> = (0..count)
        .map(|i| {
            let normalized = (stored[i] - means[i / width]) * rstds[i / width];
            (normalized * norm_weight.values[i % width] + norm_bias.values[i % width]) * factor(dropout, i)
        })
        .collect();
    bench.compare("embed_norm_forward", "out", &shape, &out, &expected, ROUNDED)?;

    let d_out = bench.activations("d", count)?;
    let d_sum = bench.output_floats(count)?;
    let blocks = kernels::norm_partials(tokens);
    let partials = bench.output_floats(blocks * 2 * width)?;
    kernels::embed_norm_backward(
        bench.device,
        bench.precision,
        d_out.ptr(),
        sum.ptr(),
        mean.ptr(),
        rstd.ptr(),
        norm_weight.ptr(),
        dropout,
        tokens,
        width,
        d_sum.ptr(),
        partials.ptr(),
    )?;
    let d: Vec<f64> = d_out.values.iter().enumerate().map(|(i, d)| d * factor(dropout, i)).collect();
    let mut expected = Vec::new();
    let mut d_weight = Vec::new();
    for (sum, d) in stored.chunks_exact(width).zip(d.chunks_exact(width)) {
        let (d_row, weight_row) = norm_backward(sum, d, &norm_weight.values, EPSILON.into());
        expected.extend(d_row);
        d_weight.extend(weight_row);
    }
    bench.compare("embed_norm_backward", "d_sum", &shape, &d_sum, &expected, FLOATS)?;
    let destination = bench.floats("destination", 2 * width, 1.0)?;
    kernels::reduce_partials(bench.device, partials.ptr(), blocks, 2 * width, destination.ptr())?;
    let sums = [column_sums(&d_weight, width), column_sums(&d, width)].concat();
    let reduced: Vec<f64> = destination.values.iter().zip(&sums).map(|(a, b)| a + b).collect();
    bench.compare("embed_norm_backward", "reduced partials", &shape, &destination, &reduced, FLOATS)?;
    lookup_gradient(bench, &ids, vocabulary, width)
}

fn lookup_gradient(bench: &mut Bench<'_>, ids: &[u32], table_rows: usize, width: usize) -> Result<(), Error> {
    let shape = format!("tokens {}, width {width}", ids.len());
    let d = bench.floats("d", ids.len() * width, 1.0)?;
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&token| ids[token as usize]);
    let mut segments = Vec::new();
    let mut rows = Vec::new();
    for (place, &token) in order.iter().enumerate() {
        if rows.last() != Some(&ids[token as usize]) {
            rows.push(ids[token as usize]);
            segments.push(place as u32);
        }
    }
    segments.push(ids.len() as u32);
    let buffers = [bench.words(&order)?, bench.words(&segments)?, bench.words(&rows)?];
    let gradient = bench.floats("gradient", table_rows * width, 1.0)?;
    kernels::lookup_gradient(
        bench.device,
        d.ptr(),
        buffers[0].ptr(),
        buffers[1].ptr(),
        buffers[2].ptr(),
        ids.len(),
        rows.len(),
        width,
        gradient.ptr(),
    )?;
    let mut expected = gradient.values.clone();
    for (d, &id) in d.values.chunks_exact(width).zip(ids) {
        for (column, d) in d.iter().enumerate() {
            expected[id as usize * width + column] += d;
        }
    }
    bench.compare("lookup_gradient", "table_gradient", &shape, &gradient, &expected, FLOATS)
}

fn activation(bench: &mut Bench<'_>, rows: usize, width: usize) -> Result<(), Error> {
    for kind in [Activation::Gelu, Activation::GeluNew, Activation::Relu, Activation::Tanh] {
        let shape = format!("{kind:?}, rows {rows}, width {width}");
        let pre = bench.activations("pre", rows * width)?;
        let out = bench.output(rows * width)?;
        kernels::activation_forward(bench.device, bench.precision, kind, pre.ptr(), rows, width, out.ptr())?;
        let expected: Vec<f64> = pre.values.iter().map(|&x| value(kind, x)).collect();
        bench.compare("activation_forward", "out", &shape, &out, &expected, ROUNDED)?;

        let d = bench.activations("d", rows * width)?;
        let blocks = kernels::column_partials(rows);
        let partials = bench.output_floats(blocks * width)?;
        let arguments = (pre.ptr(), d.ptr(), partials.ptr());
        let (device, precision) = (bench.device, bench.precision);
        kernels::activation_backward(device, precision, kind, arguments.0, arguments.1, rows, width, arguments.2)?;
        // The derivative as a difference quotient; exact where the function is straight.
        let slope = |x: f64| (value(kind, x + 1e-5) - value(kind, x - 1e-5)) / 2e-5;
        let expected: Vec<f64> = pre.values.iter().zip(&d.values).map(|(&x, d)| d * slope(x)).collect();
        bench.compare("activation_backward", "d_pre", &shape, &d, &expected, ROUNDED)?;
        let destination = bench.floats("destination", width, 1.0)?;
        kernels::reduce_partials(bench.device, partials.ptr(), blocks, width, destination.ptr())?;
        let sums = column_sums(&expected, width);
        let reduced: Vec<f64> = destination.values.iter().zip(&sums).map(|(a, b)| a + b).collect();
        bench.compare("activation_backward", "reduced partials", &shape, &destination, &reduced, FLOATS)?;
    }
    Ok(())
}

fn value(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluNew => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
    }
}

/// The error function by its series, exact enough on what random activations reach.
fn erf(x: f64) -> f64 {
    let (mut term, mut total) = (x, x);
    for n in 1..100 {
        term *= -x * x / f64::from(n);
        total += term / f64::from(2 * n + 1);
    }
    total * 2.0 / std::f64::consts::PI.sqrt()
}

fn column_sum(bench: &mut Bench<'_>, rows: usize, width: usize) -> Result<(), Error> {
    let stride = 2 * width;
    let shape = format!("rows {rows}, width {width}, stride {stride}");
    let x = bench.activations("x", rows * stride)?;
    let blocks = kernels::column_partials(rows);
    let partials = bench.output_floats(blocks * width)?;
    kernels::column_sum(bench.device, bench.precision, x.at(width), stride, rows, width, partials.ptr())?;
    let sums = bench.floats("sums", width, 1.0)?;
    kernels::reduce_partials(bench.device, partials.ptr(), blocks, width, sums.ptr())?;
    let expected: Vec<f64> =
        sums.values.iter().zip(&column_sums(&x.values, stride)[width..]).map(|(a, b)| a + b).collect();
    bench.compare("column_sum", "reduced partials", &shape, &sums, &expected, FLOATS)
}

fn moves(bench: &mut Bench<'_>, rows: usize, width: usize) -> Result<(), Error> {
    let shape = format!("rows {rows}, width {width}");
    let (device, precision) = (bench.device, bench.precision);
    let many = 3 * rows;
    let which: Vec<u32> = (0..rows as u32).map(|row| (row * 2 + 1) % many as u32).collect();
    let which_buffer = bench.words(&which)?;
    let place = |i: usize| which[i / width] as usize * width + i % width;

    let from = bench.activations("from", many * width)?;
    let to = bench.output(rows * width)?;
    kernels::gather_rows(device, precision, from.ptr(), which_buffer.ptr(), rows, width, to.ptr())?;
    let expected: Vec<f64> = (0..rows * width).map(|i| from.values[place(i)]).collect();
    bench.compare("gather_rows", "to", &shape, &to, &expected, ROUNDED)?;

    let addend = bench.activations("addend", rows * width)?;
    kernels::scatter_add_rows(device, precision, addend.ptr(), which_buffer.ptr(), rows, width, from.ptr())?;
    let mut expected = from.values.clone();
    (0..rows * width).for_each(|i| expected[place(i)] += addend.values[i]);
    bench.compare("scatter_add_rows", "to", &shape, &from, &expected, ROUNDED)?;

    let x = bench.activations("x", rows * width)?;
    kernels::dropout_rows(device, precision, x.ptr(), mask(true), rows, width)?;
    let expected: Vec<f64> = x.values.iter().enumerate().map(|(i, x)| x * factor(mask(true), i)).collect();
    bench.compare("dropout_rows", "x", &shape, &x, &expected, ROUNDED)?;

    let x = bench.activations("x", rows * width)?;
    let bias = bench.floats("bias", width, 1.0)?;
    kernels::add_bias(device, precision, x.ptr(), bias.ptr(), rows, width)?;
    let expected: Vec<f64> = x.values.iter().enumerate().map(|(i, x)| x + bias.values[i % width]).collect();
    bench.compare("add_bias", "x", &shape, &x, &expected, ROUNDED)?;

    let floats = bench.floats("floats", rows * width + 1, 1.0)?;
    let cast = bench.output(rows * width)?;
    // From an address that is not a multiple of 16.
    kernels::cast(device, precision, floats.at(1), rows * width, cast.ptr())?;
    bench.compare("cast", "to", &shape, &cast, &floats.values[1..], ROUNDED)
}

fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = logits.iter().map(|x| ((x - largest) / temperature).exp()).sum::<f64>().ln();
    logits.iter().map(|x| (x - largest) / temperature - log_sum).collect()
}

fn loss(bench: &mut Bench<'_>, rows: usize, classes: usize) -> Result<(), Error> {
    for (with_teacher, with_labels) in [(true, true), (false, true), (true, false)] {
        let shape = format!("rows {rows}, classes {classes}, teacher {with_teacher}, labels {with_labels}");
        let student = bench.floats("student", rows * classes, 3.0)?;
        let teacher = bench.floats("teacher", rows * classes, 3.0)?;
        // The second row has no label.
        let labels: Vec<u32> =
            (0..rows).map(|row| if row == 1 { u32::MAX } else { (row * 5 % classes) as u32 }).collect();
        let labels_buffer = bench.words(&labels)?;
        let (soft_weight, temperature, hard_weight) = (0.3f32, 2.5f32, 0.7f32);
        let d_logits = bench.output(rows * classes)?;
        let row_losses = bench.output_floats(rows * 2)?;
        kernels::soft_hard_loss(
            bench.device,
            bench.precision,
            student.ptr(),
            if with_teacher { teacher.ptr() } else { Ptr::NULL },
            if with_labels { labels_buffer.ptr() } else { Ptr::NULL },
            soft_weight,
            temperature,
            hard_weight,
            rows,
            classes,
            d_logits.ptr(),
            row_losses.ptr(),
        )?;
        let (soft_weight, temperature, hard_weight) =
            (f64::from(soft_weight), f64::from(temperature), f64::from(hard_weight));
        let mut gradients = vec![0.0; rows * classes];
        let mut losses = vec![0.0; rows * 2];
        for row in 0..rows {
            let span = row * classes..(row + 1) * classes;
            let gradient = &mut gradients[span.clone()];
            if with_teacher {
                let softened = log_softmax(&student.values[span.clone()], temperature);
                let goal = log_softmax(&teacher.values[span.clone()], temperature);
                for ((student, teacher), gradient) in softened.iter().zip(&goal).zip(&mut *gradient) {
                    losses[2 * row] += temperature * temperature * teacher.exp() * (teacher - student);
                    *gradient += soft_weight * temperature * (student.exp() - teacher.exp());
                }
            }
            if with_labels && labels[row] != u32::MAX {
                let log_probabilities = log_softmax(&student.values[span], 1.0);
                let label = labels[row] as usize;
                losses[2 * row + 1] -= log_probabilities[label];
                for (class, (log, gradient)) in log_probabilities.iter().zip(gradient).enumerate() {
                    *gradient += hard_weight * (log.exp() - if class == label { 1.0 } else { 0.0 });
                }
            }
        }
        bench.compare("soft_hard_loss", "d_logits", &shape, &d_logits, &gradients, LOSS_GRADIENT)?;
        bench.compare("soft_hard_loss", "row_losses", &shape, &row_losses, &losses, LOSS)?;
        let sums = bench.floats("sums", 2, 1.0)?;
        kernels::sum_rows(bench.device, row_losses.ptr(), rows, 2, sums.ptr())?;
        let expected: Vec<f64> = sums.values.iter().zip(column_sums(&losses, 2)).map(|(a, b)| a + b).collect();
        bench.compare("sum_rows", "sums", &shape, &sums, &expected, FLOATS)?;
    }
    Ok(())
}
