//! Each token's row with its neighbours', forward and backward.

use super::launch::{TrigramBackward, TrigramForward};
use crate::Error;
use crate::cuda::verify::bench::{Bench, PRODUCTION_ROWS, ROUNDED, SHAPES};

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (tokens, width) in SHAPES {
        for adds in [false, true] {
            trigram(bench, tokens, width, adds)?;
        }
    }
    Ok(())
}

/// Over as many tokens as training has.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    trigram(bench, PRODUCTION_ROWS, 128, true)
}

fn trigram(bench: &mut Bench<'_>, tokens: usize, width: usize, adds: bool) -> Result<(), Error> {
    // Texts of 1, 2, 3, .. tokens.
    let texts: Vec<usize> = (1..).flat_map(|length| vec![length; length]).take(tokens).collect();
    let mut positions: Vec<u32> = Vec::new();
    for (token, text) in texts.iter().enumerate() {
        let goes_on = token > 0 && texts[token - 1] == *text;
        positions.push(if goes_on { positions[token - 1] + 1 } else { 2 });
    }
    let shape = format!("tokens {tokens}, width {width}, adds {adds}");
    let positions = bench.words(&positions)?;
    let x = bench.activations("x", tokens * width)?;
    let out = bench.output(3 * tokens * width)?;
    TrigramForward { x: x.matrix(width), positions: positions.words(), out: out.matrix(3 * width) }
        .launch(bench.device)?;
    let d_out = bench.activations("d", 3 * tokens * width)?;
    let d_x = if adds { bench.activations("d_x", tokens * width)? } else { bench.output(tokens * width)? };
    TrigramBackward { d_out: d_out.matrix(3 * width), positions: positions.words(), adds, d_x: d_x.matrix(width) }
        .launch(bench.device)?;
    let mut expected = vec![0.0; 3 * tokens * width];
    let mut expected_d = if adds { d_x.values.clone() } else { vec![0.0; tokens * width] };
    for token in 0..tokens {
        for (part, other) in [Some(token + 1), Some(token), token.checked_sub(1)].into_iter().enumerate() {
            let Some(other) = other.filter(|&other| texts.get(other) == Some(&texts[token])) else { continue };
            for column in 0..width {
                let place = (3 * token + part) * width + column;
                expected[place] = x.values[other * width + column];
                expected_d[other * width + column] += d_out.values[place];
            }
        }
    }
    bench.compare("trigram_forward", "out", &shape, &out, &expected, ROUNDED)?;
    bench.compare("trigram_backward", "d_x", &shape, &d_x, &expected_d, ROUNDED)
}
