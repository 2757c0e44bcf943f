//! Attention, forward and backward, over packed sequences.

use super::{Bench, Tolerance, factor, mask, normal};
use crate::Error;
use crate::cuda::device::Ptr;
use crate::cuda::kernels::{self, Attention};

/// Measured: 3.1e-6 over 512 keys, and 8.1e-3.
const CONTEXT: Tolerance = Tolerance { f32: 9.3e-6, bf16: 2.4e-2 };
/// Measured: 9.1e-8 and 6.8e-8.
const LSE: Tolerance = Tolerance { f32: 2.7e-7, bf16: 2.1e-7 };
/// Probabilities and their gradients are rounded to `bf16` before the last products. Measured: 1.2e-5
/// and 1.1e-2.
const GRADIENT: Tolerance = Tolerance { f32: 3.5e-5, bf16: 3.4e-2 };

/// Far below zero, scores lose digits, and gradients along nearly parallel keys cancel. Measured: 1.2e-3 and 7.4e-2.
const OPPOSED: Tolerance = Tolerance { f32: 3.5e-3, bf16: 0.22 };

/// Lengths of the sequences, heads, their size.
struct Shape {
    lengths: &'static [usize],
    heads: usize,
    head_size: usize,
    dropout: bool,
    /// Queries are the first tokens alone.
    first_tokens: bool,
    /// Queries, keys and values side by side in one buffer.
    fused: bool,
    /// Queries and keys point away from each other: all scores far below zero.
    opposed: bool,
}

pub(super) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for head_size in [32, 64, 128, 20, 33] {
        for (dropout, first_tokens, fused) in
            [(false, false, false), (true, false, true), (true, true, false), (false, true, false)]
        {
            let lengths = &[1, 7, 16, 17, 40, 64, 3];
            attention(bench, &Shape { lengths, heads: 2, head_size, dropout, first_tokens, fused, opposed: false })?;
        }
    }
    let long: [(&[usize], usize); 4] = [(&[65, 100, 128], 64), (&[130, 200], 32), (&[512], 64), (&[257], 128)];
    for (lengths, head_size) in long {
        attention(
            bench,
            &Shape { lengths, heads: 1, head_size, dropout: true, first_tokens: false, fused: true, opposed: false },
        )?;
    }
    attention(
        bench,
        &Shape {
            lengths: &[300, 140],
            heads: 3,
            head_size: 64,
            dropout: true,
            first_tokens: true,
            fused: false,
            opposed: false,
        },
    )?;
    // The longest sequence that there is: what a block keeps of it must fit in its shared memory.
    for head_size in [64, 20] {
        let lengths = &[4096, 3];
        let shape =
            Shape { lengths, heads: 1, head_size, dropout: true, first_tokens: true, fused: false, opposed: false };
        attention(bench, &shape)?;
    }
    for head_size in [64, 20] {
        let lengths = &[5, 37];
        let shape =
            Shape { lengths, heads: 2, head_size, dropout: false, first_tokens: false, fused: false, opposed: true };
        attention(bench, &shape)?;
    }
    Ok(())
}

fn attention(bench: &mut Bench<'_>, shape: &Shape) -> Result<(), Error> {
    let &Shape { lengths, heads, head_size, dropout, first_tokens, fused, opposed } = shape;
    let name = format!(
        "lengths {lengths:?}, {heads} heads of {head_size}, dropout {dropout}, first tokens {first_tokens}, fused {fused}, opposed {opposed}"
    );
    let hidden = heads * head_size;
    let starts: Vec<usize> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        }))
        .collect();
    let tokens = starts[lengths.len()];
    let query_starts: Vec<usize> = if first_tokens { (0..=lengths.len()).collect() } else { starts.clone() };
    let queries = query_starts[lengths.len()];
    let longest = *lengths.iter().max().unwrap_or(&0);
    let max_length = longest + 5;
    let site = mask(dropout);
    let words = |values: &[usize]| values.iter().map(|&value| value as u32).collect::<Vec<_>>();
    let starts_buffer = bench.words(&words(&starts))?;
    let query_starts_buffer = bench.words(&words(&query_starts))?;

    let (query_stride, key_value_stride) = if fused { (3 * hidden, 3 * hidden) } else { (hidden, 2 * hidden) };
    let mut query = normal("query", queries * query_stride, 1.0);
    let mut key_value = normal("key value", tokens * key_value_stride, 1.0);
    if opposed {
        query.iter_mut().for_each(|x| *x = x.abs() + 5.0);
        key_value.iter_mut().for_each(|x| *x = -x.abs() - 5.0);
    }
    let first = bench.operand(&query, bench.number())?;
    let second = bench.operand(&key_value, bench.number())?;
    // One buffer of all three, or two.
    let (key_value, key_column) = if fused { (&first, hidden) } else { (&second, 0) };
    let attention = Attention {
        query: first.ptr(),
        query_stride,
        key_value: key_value.at(key_column),
        key_value_stride,
        starts: starts_buffer.ptr(),
        query_starts: if first_tokens { query_starts_buffer.ptr() } else { Ptr::NULL },
        sequences: lengths.len(),
        queries,
        tokens,
        heads,
        head_size,
        longest,
        dropout: site,
        max_length,
    };
    let context = bench.output(queries * hidden)?;
    let lse = bench.output_floats(queries * heads)?;
    kernels::attention_forward(bench.device, bench.precision, &attention, context.ptr(), lse.ptr())?;
    let (stored, _) = bench.read(&context)?;
    let d_context = bench.activations("d", queries * hidden)?;
    let d_first = bench.output(queries * query_stride)?;
    let d_second = bench.output(tokens * key_value_stride)?;
    let d_key_value = if fused { &d_first } else { &d_second };
    let (out, d_out) = (context.ptr(), d_context.ptr());
    let d_key_value_ptr = d_key_value.at(key_column);
    kernels::attention_backward(
        bench.device,
        bench.precision,
        &attention,
        out,
        d_out,
        lse.ptr(),
        d_first.ptr(),
        d_key_value_ptr,
    )?;

    let mut expected_context = vec![0.0; queries * hidden];
    let mut expected_lse = vec![0.0; queries * heads];
    let mut expected_d_query = vec![0.0; queries * query_stride];
    let mut expected_d_key_value = vec![0.0; tokens * key_value_stride];
    let scale = 1.0 / (head_size as f64).sqrt();
    for sequence in 0..lengths.len() {
        for head in 0..heads {
            for q in query_starts[sequence]..query_starts[sequence + 1] {
                let token = starts[sequence] + q - query_starts[sequence];
                let query = &first.values[q * query_stride + head * head_size..][..head_size];
                let column = key_column + head * head_size;
                let key = |k: usize| &key_value.values[k * key_value_stride + column..][..head_size];
                let value = |k: usize| &key_value.values[k * key_value_stride + column + hidden..][..head_size];
                let keys = starts[sequence]..starts[sequence + 1];
                let scores: Vec<f64> = keys.clone().map(|k| dot(query, key(k)) * scale).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let log_sum = largest + scores.iter().map(|s| (s - largest).exp()).sum::<f64>().ln();
                expected_lse[q * heads + head] = log_sum;
                let element = |k: usize| (token * heads + head) * max_length + k - starts[sequence];
                let probabilities: Vec<f64> = scores.iter().map(|s| (s - log_sum).exp()).collect();
                let d = &d_context.values[q * hidden + head * head_size..][..head_size];
                let mut d_probabilities = Vec::new();
                for (p, k) in probabilities.iter().zip(keys.clone()) {
                    let factor = factor(site, element(k));
                    for i in 0..head_size {
                        expected_context[q * hidden + head * head_size + i] += p * factor * value(k)[i];
                        // What the gradient reads is in the operand; its sum is in `expected`.
                        expected_d_key_value[k * key_value_stride + head * head_size + hidden + i] += p * factor * d[i];
                    }
                    d_probabilities.push(factor * dot(d, value(k)));
                }
                // The backward pass reads the context as the forward pass stored it.
                let projection = dot(d, &stored[q * hidden + head * head_size..][..head_size]);
                for ((p, d), k) in probabilities.iter().zip(&d_probabilities).zip(keys) {
                    let d_score = p * (d - projection) * scale;
                    for i in 0..head_size {
                        expected_d_query[q * query_stride + head * head_size + i] += d_score * key(k)[i];
                        expected_d_key_value[k * key_value_stride + head * head_size + i] += d_score * query[i];
                    }
                }
            }
        }
    }
    bench.compare("attention_forward", "context", &name, &context, &expected_context, CONTEXT)?;
    bench.compare("attention_forward", "lse", &name, &lse, &expected_lse, LSE)?;
    let gradient = if opposed { OPPOSED } else { GRADIENT };
    if fused {
        // The keys' and values' columns stand behind the query's in the same rows.
        for (to, from) in
            expected_d_query.chunks_exact_mut(query_stride).zip(expected_d_key_value.chunks_exact(query_stride))
        {
            to[hidden..].copy_from_slice(&from[..2 * hidden]);
        }
        return bench.compare("attention_backward", "d_query_key_value", &name, &d_first, &expected_d_query, gradient);
    }
    bench.compare("attention_backward", "d_query", &name, &d_first, &expected_d_query, gradient)?;
    bench.compare("attention_backward", "d_key_value", &name, &d_second, &expected_d_key_value, gradient)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
