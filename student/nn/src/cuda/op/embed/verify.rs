//! Embeddings with the norm behind them and without, and the gradients of their tables.

use super::launch::{EmbedNormBackward, EmbedNormForward, EmbedSum, Lookup, LookupGradient};
use crate::Error;
use crate::cuda::op::call::Mask;
use crate::cuda::op::norm::launch::{NormWeights, norm_partials};
use crate::cuda::op::norm::verify::{EPSILONS, WHOLE, norm_backward, normed, statistics};
use crate::cuda::op::sums::launch::ReducePartials;
use crate::cuda::verify::bench::{
    Bench, FLOATS, Operand, PRODUCTION_ROWS, ROUNDED, SHAPES, WordOperand, column_sums, describe, factor_at, masks,
};

/// Rows of the table of words, which is looked up first.
const VOCABULARY: usize = 11;

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (tokens, width) in SHAPES {
        for tables in 1..=3 {
            embed_sum(bench, &Looked::new(bench, tokens, width, tables)?)?;
        }
        for epsilon in EPSILONS {
            for mask in masks(tokens, width) {
                let tables = if mask.site.is_some() { 3 } else { 2 };
                embed_norm(bench, &Looked::new(bench, tokens, width, tables)?, mask, epsilon)?;
            }
        }
        lookup_gradient(bench, &words(tokens), VOCABULARY, width)?;
    }
    for (tokens, width) in WHOLE {
        for (tables, epsilon) in [(1, EPSILONS[0]), (2, EPSILONS[1]), (3, EPSILONS[0])] {
            let mask = masks(tokens, width)[tables - 1];
            embed_norm(bench, &Looked::new(bench, tokens, width, tables)?, mask, epsilon)?;
        }
    }
    Ok(())
}

/// Over as many tokens as training has.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    let (tokens, width) = (PRODUCTION_ROWS, 768);
    let looked = Looked::new(bench, tokens, width, 3)?;
    embed_sum(bench, &looked)?;
    embed_norm(bench, &looked, masks(tokens, width)[3], EPSILONS[0])?;
    lookup_gradient(bench, &words(tokens), VOCABULARY, width)
}

/// The rows that tokens look up in the table of words.
fn words(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|token| token * 7 % 5 * 2).collect()
}

/// What tokens look up, in some of three tables, and its sum.
struct Looked {
    tokens: usize,
    width: usize,
    tables: Vec<(WordOperand, Operand)>,
    sum: Vec<f64>,
}

impl Looked {
    fn new(bench: &Bench<'_>, tokens: usize, width: usize, tables: usize) -> Result<Self, Error> {
        let positions: Vec<u32> = (0..tokens as u32).map(|token| token % 61 + 2).collect();
        let types: Vec<u32> = (0..tokens as u32).map(|token| token / 3 % 2).collect();
        let all = [("word", VOCABULARY, words(tokens)), ("position", 64, positions), ("type", 2, types)];
        let mut looked = Self { tokens, width, tables: Vec::new(), sum: vec![0.0; tokens * width] };
        for (name, table_rows, rows) in &all[..tables] {
            let table = bench.floats(name, table_rows * width, 1.0)?;
            for (sum, &row) in looked.sum.chunks_exact_mut(width).zip(rows) {
                let row = &table.values[row as usize * width..];
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            looked.tables.push((bench.words(rows)?, table));
        }
        Ok(looked)
    }

    fn lookups(&self) -> [Option<Lookup>; 3] {
        let lookup =
            |(rows, table): &(WordOperand, Operand)| Lookup { rows: rows.words(), table: table.matrix(self.width) };
        std::array::from_fn(|index| self.tables.get(index).map(lookup))
    }
}

fn embed_sum(bench: &mut Bench<'_>, looked: &Looked) -> Result<(), Error> {
    let &Looked { tokens, width, .. } = looked;
    let shape = format!("tokens {tokens}, width {width}, tables {}", looked.tables.len());
    let out = bench.output(tokens * width)?;
    EmbedSum { lookups: looked.lookups(), out: out.matrix(width) }.launch(bench.device)?;
    bench.compare("embed_sum", "out", &shape, &out, &looked.sum, ROUNDED)
}

fn embed_norm(bench: &mut Bench<'_>, looked: &Looked, mask: Mask, epsilon: Option<f32>) -> Result<(), Error> {
    let &Looked { tokens, width, .. } = looked;
    let shape = format!("tokens {tokens}, width {width}, {}, epsilon {epsilon:?}", describe(mask));
    let norm_weight = bench.floats("weight", width, 1.0)?;
    let norm_bias = bench.floats("norm bias", width, 0.5)?;
    let count = tokens * width;
    let (sum, out) = (bench.output(count)?, bench.output(count)?);
    let (mean, rstd) = (bench.output_floats(tokens)?, bench.output_floats(tokens)?);
    let forward = EmbedNormForward {
        lookups: looked.lookups(),
        norm: NormWeights { weight: norm_weight.vector(), bias: norm_bias.vector(), epsilon },
        mask,
        keeps_sum: true,
        sum: sum.matrix(width),
        mean: mean.vector(),
        rstd: rstd.vector(),
        out: out.matrix(width),
    };
    forward.launch(bench.device)?;
    bench.compare("embed_norm_forward", "sum", &shape, &sum, &looked.sum, ROUNDED)?;
    let (stored, _) = bench.read(&sum)?;
    let (means, rstds): (Vec<f64>, Vec<f64>) = stored.chunks_exact(width).map(|row| statistics(row, epsilon)).unzip();
    bench.compare("embed_norm_forward", "mean", &shape, &mean, &means, FLOATS)?;
    bench.compare("embed_norm_forward", "rstd", &shape, &rstd, &rstds, FLOATS)?;
    let mut expected = normed(&stored, &norm_weight.values, &norm_bias.values, epsilon);
    expected.iter_mut().enumerate().for_each(|(i, x)| *x *= factor_at(mask, i, width));
    bench.compare("embed_norm_forward", "out", &shape, &out, &expected, ROUNDED)?;
    let elsewhere = bench.activations("untouched", count)?;
    EmbedNormForward { keeps_sum: false, sum: elsewhere.matrix(width), ..forward }.launch(bench.device)?;
    let untouched = &elsewhere.values;
    bench.compare("embed_norm_forward", "sum where it is not kept", &shape, &elsewhere, untouched, ROUNDED)?;
    bench.compare("embed_norm_forward", "out where the sum is not kept", &shape, &out, &expected, ROUNDED)?;

    let d_out = bench.activations("d", count)?;
    let d_sum = bench.output_floats(count)?;
    let partials = bench.output_floats(norm_partials(tokens, width) * 2 * width)?;
    EmbedNormBackward {
        d_out: d_out.matrix(width),
        sum: sum.matrix(width),
        mean: mean.vector(),
        rstd: rstd.vector(),
        norm_weight: norm_weight.vector(),
        normalises: epsilon.is_some(),
        mask,
        d_sum: d_sum.matrix(width),
        partials: partials.matrix(2 * width),
    }
    .launch(bench.device)?;
    let d: Vec<f64> = d_out.values.iter().enumerate().map(|(i, d)| d * factor_at(mask, i, width)).collect();
    let mut expected = Vec::new();
    let mut d_weight = Vec::new();
    for (sum, d) in stored.chunks_exact(width).zip(d.chunks_exact(width)) {
        let (d_row, weight_row) = norm_backward(sum, d, &norm_weight.values, epsilon);
        expected.extend(d_row);
        d_weight.extend(weight_row);
    }
    bench.compare("embed_norm_backward", "d_sum", &shape, &d_sum, &expected, FLOATS)?;
    let destination = bench.floats("destination", 2 * width, 1.0)?;
    ReducePartials { partials: partials.matrix(2 * width), destination: destination.vector() }.launch(bench.device)?;
    let sums = [column_sums(&d_weight, width), column_sums(&d, width)].concat();
    let reduced: Vec<f64> = destination.values.iter().zip(&sums).map(|(a, b)| a + b).collect();
    bench.compare("embed_norm_backward", "reduced partials", &shape, &destination, &reduced, FLOATS)
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
