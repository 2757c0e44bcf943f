//! Embeddings with the norm behind them, and the gradients of their tables.

use super::launch::{EmbedNormBackward, EmbedNormForward, Lookup, LookupGradient};
use crate::Error;
use crate::cuda::op::call::Mask;
use crate::cuda::op::norm::launch::{NormWeights, norm_partials};
use crate::cuda::op::norm::verify::{EPSILON, norm_backward, statistics};
use crate::cuda::op::sums::launch::ReducePartials;
use crate::cuda::verify::bench::{
    Bench, FLOATS, Operand, ROUNDED, SHAPES, WordOperand, column_sums, describe, factor_at, masks,
};

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (tokens, width) in SHAPES {
        for mask in masks(tokens, width) {
            embed_norm(bench, tokens, width, mask)?;
        }
    }
    Ok(())
}

fn embed_norm(bench: &mut Bench<'_>, tokens: usize, width: usize, mask: Mask) -> Result<(), Error> {
    let shape = format!("tokens {tokens}, width {width}, {}", describe(mask));
    let typed = mask.site.is_some();
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
    let lookup = |rows: &WordOperand, table: &Operand| Lookup { rows: rows.words(), table: table.matrix(width) };
    EmbedNormForward {
        word: lookup(&buffers[0], &word),
        position: lookup(&buffers[2], &position_table),
        types: typed.then(|| lookup(&buffers[1], &type_table)),
        norm: NormWeights { weight: norm_weight.vector(), bias: norm_bias.vector(), epsilon: EPSILON },
        mask,
        sum: sum.matrix(width),
        mean: mean.vector(),
        rstd: rstd.vector(),
        out: out.matrix(width),
    }
    .launch(bench.device)?;
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
            (normalized * norm_weight.values[i % width] + norm_bias.values[i % width]) * factor_at(mask, i, width)
        })
        .collect();
    bench.compare("embed_norm_forward", "out", &shape, &out, &expected, ROUNDED)?;

    let d_out = bench.activations("d", count)?;
    let d_sum = bench.output_floats(count)?;
    let partials = bench.output_floats(norm_partials(tokens) * 2 * width)?;
    EmbedNormBackward {
        d_out: d_out.matrix(width),
        sum: sum.matrix(width),
        mean: mean.vector(),
        rstd: rstd.vector(),
        norm_weight: norm_weight.vector(),
        mask,
        d_sum: d_sum.matrix(width),
        partials: partials.matrix(2 * width),
    }
    .launch(bench.device)?;
    let d: Vec<f64> = d_out.values.iter().enumerate().map(|(i, d)| d * factor_at(mask, i, width)).collect();
    let mut expected = Vec::new();
    let mut d_weight = Vec::new();
    for (sum, d) in stored.chunks_exact(width).zip(d.chunks_exact(width)) {
        let (d_row, weight_row) = norm_backward(sum, d, &norm_weight.values, EPSILON.into());
        expected.extend(d_row);
        d_weight.extend(weight_row);
    }
    bench.compare("embed_norm_backward", "d_sum", &shape, &d_sum, &expected, FLOATS)?;
    let destination = bench.floats("destination", 2 * width, 1.0)?;
    ReducePartials { partials: partials.matrix(2 * width), destination: destination.vector() }.launch(bench.device)?;
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
    LookupGradient {
        d: d.matrix(width),
        order: buffers[0].words(),
        segments: buffers[1].words(),
        table_rows: buffers[2].words(),
        gradient: gradient.matrix(width),
    }
    .launch(bench.device)?;
    let mut expected = gradient.values.clone();
    for (d, &id) in d.values.chunks_exact(width).zip(ids) {
        for (column, d) in d.iter().enumerate() {
            expected[id as usize * width + column] += d;
        }
    }
    bench.compare("lookup_gradient", "table_gradient", &shape, &gradient, &expected, FLOATS)
}
