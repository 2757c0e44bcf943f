//! Attention, forward and backward, over packed sequences.

use super::launch::{Attention, AttentionBackward, AttentionForward, Queries, SURVIVOR_WORDS};
use crate::Error;
use crate::cuda::operand::Matrix;
use crate::cuda::verify::bench::{Bench, Operand, Tolerance, describe, factor, masks, normal};

/// Measured: 3.1e-6 over 512 keys, and 8.1e-3.
const CONTEXT: Tolerance = Tolerance { f32: 9.3e-6, bf16: 2.4e-2 };
/// Measured: 9.1e-8 and 6.8e-8.
const LSE: Tolerance = Tolerance { f32: 2.7e-7, bf16: 2.1e-7 };
/// Probabilities and their gradients are rounded to `bf16` before the last products. Measured: 1.2e-5
/// and 1.1e-2.
const GRADIENT: Tolerance = Tolerance { f32: 3.5e-5, bf16: 3.4e-2 };

/// Far below zero, scores lose digits, and gradients along nearly parallel keys cancel. Measured: 1.2e-3 and 7.4e-2.
const OPPOSED: Tolerance = Tolerance { f32: 3.5e-3, bf16: 0.22 };

/// Sums of gradients over rows, which kernels for `bf16` alone make. Measured: 7.9e-3.
const TOTALS: Tolerance = Tolerance { f32: 0.0, bf16: 2.4e-2 };

/// Lengths of the sequences, heads, their size.
struct Shape {
    lengths: &'static [usize],
    heads: usize,
    head_size: usize,
    /// Which of [`masks`].
    mask: usize,
    asked: Asked,
    layout: Layout,
    /// Queries and keys point away from each other: all scores far below zero.
    opposed: bool,
}

/// Which tokens are queries.
#[derive(Clone, Copy, Debug)]
enum Asked {
    All,
    /// The first one of each sequence.
    First,
    /// None of the first sequence; of the others none, all or some.
    Some,
}

/// Where queries, keys and values stand, and their gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    /// Side by side in one buffer.
    Fused,
    /// Keys and values side by side, queries elsewhere.
    Pairs,
    /// Each in a buffer of its own, rows with gaps.
    Apart,
    /// The same, rows of values at any address.
    OddValues,
    /// The same, rows of the values' gradients at any address.
    OddGradients,
}

/// `[rows, H]` within rows of `stride`, from `column` on.
#[derive(Clone, Copy)]
struct Place {
    buffer: usize,
    column: usize,
    stride: usize,
}

impl Layout {
    /// Queries, keys and values, or their gradients, and what to call the buffers that they are in.
    fn places(self, hidden: usize, gradients: bool) -> ([Place; 3], &'static [&'static str]) {
        let place = |buffer, column, stride| Place { buffer, column, stride };
        let odd = if gradients { Self::OddGradients } else { Self::OddValues };
        match self {
            Self::Fused => ([0, 1, 2].map(|i| place(0, i * hidden, 3 * hidden)), &["d_query_key_value"]),
            Self::Pairs => {
                let places = [place(0, 0, hidden), place(1, 0, 2 * hidden), place(1, hidden, 2 * hidden)];
                (places, &["d_query", "d_key_value"])
            }
            Self::Apart | Self::OddValues | Self::OddGradients => {
                let (column, gap) = if self == odd { (1, 3) } else { (16, 24) };
                let gap_of_keys = if gradients { 8 } else { 16 };
                let places =
                    [place(0, 8, hidden + 8), place(1, 0, hidden + gap_of_keys), place(2, column, hidden + gap)];
                (places, &["d_query", "d_key", "d_value"])
            }
        }
    }
}

impl Place {
    fn matrix(self, buffers: &[Operand], hidden: usize) -> Matrix {
        buffers[self.buffer].matrix(self.stride).columns(self.column..self.column + hidden)
    }

    /// Where element `column` of row `row` is.
    fn index(self, row: usize, column: usize) -> usize {
        row * self.stride + self.column + column
    }
}

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for head_size in [32, 64, 128, 20, 33] {
        for (mask, asked, layout) in [
            (0, Asked::All, Layout::Pairs),
            (1, Asked::All, Layout::Fused),
            (1, Asked::First, Layout::Pairs),
            (0, Asked::First, Layout::Pairs),
            (2, Asked::All, Layout::Fused),
            (3, Asked::All, Layout::Apart),
            (3, Asked::First, Layout::Apart),
            (4, Asked::All, Layout::OddValues),
            (4, Asked::First, Layout::OddGradients),
            (0, Asked::Some, Layout::Pairs),
            (3, Asked::Some, Layout::Pairs),
            (4, Asked::Some, Layout::OddValues),
        ] {
            let lengths = &[1, 7, 16, 17, 40, 64, 3];
            attention(bench, &Shape { lengths, heads: 2, head_size, mask, asked, layout, opposed: false })?;
        }
    }
    // What one block holds as a whole, of a short sequence with several heads, and what it no longer does.
    let whole: [(&[usize], usize); 4] =
        [(&[1, 15, 16, 17, 63, 64, 65, 127, 128], 3), (&[70, 3, 33, 20], 5), (&[16, 1, 9], 5), (&[129, 17, 128], 2)];
    for (head_size, (lengths, heads)) in [32, 64].into_iter().flat_map(|size| whole.map(|shape| (size, shape))) {
        for (mask, asked, layout) in
            [(0, Asked::All, Layout::Fused), (3, Asked::All, Layout::Fused), (4, Asked::Some, Layout::Pairs)]
        {
            attention(bench, &Shape { lengths, heads, head_size, mask, asked, layout, opposed: false })?;
        }
    }
    let long: [(&[usize], usize); 4] = [(&[65, 100, 128], 64), (&[130, 200], 32), (&[512], 64), (&[257], 128)];
    for (lengths, head_size) in long {
        attention(
            bench,
            &Shape { lengths, heads: 1, head_size, mask: 3, asked: Asked::All, layout: Layout::Fused, opposed: false },
        )?;
    }
    attention(
        bench,
        &Shape {
            lengths: &[300, 140],
            heads: 3,
            head_size: 64,
            mask: 3,
            asked: Asked::First,
            layout: Layout::Pairs,
            opposed: false,
        },
    )?;
    let (lengths, layout) = (&[300, 2, 140], Layout::Pairs);
    let shape = Shape { lengths, heads: 2, head_size: 64, mask: 3, asked: Asked::Some, layout, opposed: false };
    attention(bench, &shape)?;
    // About the longest sequence that there is on every GPU: what a block keeps of it must fit in its shared memory.
    for head_size in [64, 20] {
        let lengths = &[12_500, 3];
        let shape =
            Shape { lengths, heads: 1, head_size, mask: 4, asked: Asked::First, layout: Layout::Pairs, opposed: false };
        attention(bench, &shape)?;
    }
    for head_size in [64, 20] {
        let lengths = &[5, 37];
        let shape =
            Shape { lengths, heads: 2, head_size, mask: 0, asked: Asked::All, layout: Layout::Pairs, opposed: true };
        attention(bench, &shape)?;
    }
    Ok(())
}

/// Over as many sequences as training has, of as many heads.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    let layout = Layout::Fused;
    let shape =
        Shape { lengths: &[128; 24], heads: 12, head_size: 64, mask: 3, asked: Asked::All, layout, opposed: false };
    attention(bench, &shape)?;
    attention(bench, &Shape { lengths: &[17; 500], mask: 1, ..shape })?;
    // Longer than one block holds: over keys in tiles.
    attention(bench, &Shape { lengths: &[512; 3], ..shape })?;
    attention(bench, &Shape { lengths: &[2048, 130], heads: 2, ..shape })
}

fn attention(bench: &mut Bench<'_>, shape: &Shape) -> Result<(), Error> {
    let &Shape { lengths, heads, head_size, mask, asked, layout, opposed } = shape;
    let hidden = heads * head_size;
    let starts: Vec<usize> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        }))
        .collect();
    let tokens = starts[lengths.len()];
    let is_query = |token: &usize| match asked {
        Asked::All => true,
        Asked::First => starts.contains(token),
        Asked::Some => token % 20 > 9 || token % 5 == 1,
    };
    let query_tokens: Vec<usize> = (0..tokens).filter(is_query).collect();
    let query_starts: Vec<usize> = starts.iter().map(|start| query_tokens.partition_point(|t| t < start)).collect();
    let queries = query_tokens.len();
    let longest = *lengths.iter().max().unwrap_or(&0);
    let max_length = longest + 5;
    let mask = masks(tokens, heads * max_length)[mask];
    let texts = if lengths.len() > 16 { format!("{} of {longest}", lengths.len()) } else { format!("{lengths:?}") };
    let shape_name = format!(
        "lengths {texts}, {heads} heads of {head_size}, {}, queries {asked:?}, {layout:?}, opposed {opposed}",
        describe(mask)
    );
    let words = |values: &[usize]| values.iter().map(|&value| value as u32).collect::<Vec<_>>();
    let starts_buffer = bench.words(&words(&starts))?;
    let [query_starts_buffer, query_tokens_buffer] =
        [bench.words(&words(&query_starts))?, bench.words(&words(&query_tokens))?];

    // Random numbers in each buffer, queries in the first.
    let (places, names) = layout.places(hidden, false);
    let rows = |buffer: usize| if buffer == 0 { queries } else { tokens };
    let mut buffers = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let place = places.iter().find(|place| place.buffer == index);
        let mut values = normal(name, rows(index) * place.map_or(0, |place| place.stride), 1.0);
        if opposed {
            let sign = if index == 0 { 1.0 } else { -1.0 };
            values.iter_mut().for_each(|x| *x = sign * (x.abs() + 5.0));
        }
        buffers.push(bench.operand(&values, bench.number())?);
    }
    let [query, key, value] = places.map(|place| place.matrix(&buffers, hidden));
    let survivors = bench.words(&vec![0x5555_5555; queries * heads * SURVIVOR_WORDS])?;
    let attention = Attention {
        query,
        key,
        value,
        starts: starts_buffer.words(),
        queries: (!matches!(asked, Asked::All)).then(|| Queries {
            starts: query_starts_buffer.words(),
            tokens: query_tokens_buffer.words(),
            most: query_starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0),
        }),
        heads,
        longest,
        mask,
        max_length,
        survivors: mask.site.map(|_| survivors.words()),
    };
    let context = bench.output(queries * hidden)?;
    let lse = bench.output_floats(queries * heads)?;
    let out = AttentionForward { attention, context: context.matrix(hidden), lse: lse.matrix(heads) };
    out.launch(bench.device)?;
    let (stored, _) = bench.read(&context)?;
    let d_context = bench.activations("d", queries * hidden)?;
    let (d_places, names) = layout.places(hidden, true);
    // Gradients are NaN until written; what stands in gaps is to stay.
    let mut expected: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    let mut d_buffers = Vec::new();
    for (index, expected) in expected.iter_mut().enumerate() {
        let within: Vec<Place> = d_places.into_iter().filter(|place| place.buffer == index).collect();
        let stride = within[0].stride;
        let written = |i: usize| within.iter().any(|p| (p.column..p.column + hidden).contains(&(i % stride)));
        let values: Vec<f32> = (0..rows(index) * stride).map(|i| if written(i) { f32::NAN } else { 0.0 }).collect();
        *expected = vec![0.0; values.len()];
        d_buffers.push(bench.operand(&values, bench.number())?);
    }
    let [d_query, d_key, d_value] = d_places.map(|place| place.matrix(&d_buffers, hidden));
    let aligned = !matches!(layout, Layout::OddValues | Layout::OddGradients);
    let partials = bench.output_floats(lengths.len() * 3 * hidden)?;
    let sums = (aligned && attention.sums_gradients()).then(|| partials.matrix(3 * hidden));
    let AttentionForward { context: out, lse: log_sums, .. } = out;
    AttentionBackward {
        attention,
        context: out,
        d_context: d_context.matrix(hidden),
        lse: log_sums,
        d_query,
        d_key,
        d_value,
        partials: sums,
    }
    .launch(bench.device)?;

    let mut expected_context = vec![0.0; queries * hidden];
    let mut expected_lse = vec![0.0; queries * heads];
    let [query, key, value] = places;
    let [d_query, d_key, d_value] = d_places;
    let scale = 1.0 / (head_size as f64).sqrt();
    for sequence in 0..lengths.len() {
        for head in 0..heads {
            for q in query_starts[sequence]..query_starts[sequence + 1] {
                let token = query_tokens[q];
                let column = head * head_size;
                let read = |place: Place, row| &buffers[place.buffer].values[place.index(row, column)..][..head_size];
                let query_row = read(query, q);
                let keys = starts[sequence]..starts[sequence + 1];
                let scores: Vec<f64> = keys.clone().map(|k| dot(query_row, read(key, k)) * scale).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let log_sum = largest + scores.iter().map(|s| (s - largest).exp()).sum::<f64>().ln();
                expected_lse[q * heads + head] = log_sum;
                let row_number = ((mask.first + token as u64) * heads as u64 + head as u64) * max_length as u64;
                let probabilities: Vec<f64> = scores.iter().map(|s| (s - log_sum).exp()).collect();
                let d = &d_context.values[q * hidden + head * head_size..][..head_size];
                let mut d_probabilities = Vec::new();
                for (p, k) in probabilities.iter().zip(keys.clone()) {
                    let factor = factor(mask, row_number, k - starts[sequence]);
                    for i in 0..head_size {
                        expected_context[q * hidden + head * head_size + i] += p * factor * read(value, k)[i];
                        expected[d_value.buffer][d_value.index(k, column + i)] += p * factor * d[i];
                    }
                    d_probabilities.push(factor * dot(d, read(value, k)));
                }
                // The backward pass reads the context as the forward pass stored it.
                let projection = dot(d, &stored[q * hidden + head * head_size..][..head_size]);
                for ((p, d), k) in probabilities.iter().zip(&d_probabilities).zip(keys) {
                    let d_score = p * (d - projection) * scale;
                    for i in 0..head_size {
                        expected[d_query.buffer][d_query.index(q, column + i)] += d_score * read(key, k)[i];
                        expected[d_key.buffer][d_key.index(k, column + i)] += d_score * query_row[i];
                    }
                }
            }
        }
    }
    bench.compare("attention_forward", "context", &shape_name, &context, &expected_context, CONTEXT)?;
    bench.compare("attention_forward", "lse", &shape_name, &lse, &expected_lse, LSE)?;
    let gradient = if opposed { OPPOSED } else { GRADIENT };
    if sums.is_some() {
        let mut totals = vec![0.0; lengths.len() * 3 * hidden];
        for sequence in 0..lengths.len() {
            let queries = query_starts[sequence]..query_starts[sequence + 1];
            let keys = starts[sequence]..starts[sequence + 1];
            for (i, (place, rows)) in d_places.iter().zip([queries, keys.clone(), keys]).enumerate() {
                for (row, column) in rows.flat_map(|row| (0..hidden).map(move |column| (row, column))) {
                    totals[(3 * sequence + i) * hidden + column] += expected[place.buffer][place.index(row, column)];
                }
            }
        }
        bench.compare("attention_backward", "partials", &shape_name, &partials, &totals, TOTALS)?;
    }
    for ((name, operand), expected) in names.iter().zip(&d_buffers).zip(&expected) {
        bench.compare("attention_backward", name, &shape_name, operand, expected, gradient)?;
    }
    Ok(())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
