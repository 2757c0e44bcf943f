//! The gradient's norm and the optimiser.

use super::launch::{
    AdamWStep, AdamWStepMarked, CatchUpAndMark, CatchUpUnmarked, GradientScale, SUM_PARTIALS, SumOfSquares,
    SumOfSquaresMarked,
};
use crate::Error;
use crate::cuda::operand::{Matrix, Number, Precision, Vector};
use crate::cuda::verify::bench::{Bench, Operand, Tolerance, normal};

/// Measured: 9.9e-8.
const FLOATS: Tolerance = Tolerance { f32: 3e-7, bf16: 3e-7 };
/// Rounded to `bf16`. Measured: 2.6e-3.
const SHADOW: Tolerance = Tolerance { f32: 7.8e-3, bf16: 7.8e-3 };

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for count in [1, 5, 1000, 4099] {
        norm(bench, count)?;
        for finite in [true, false] {
            for first in [0, 1] {
                adamw(bench, count, first, finite)?;
            }
        }
    }
    // More elements than threads.
    norm(bench, 300_007)?;
    // More rows than warps, and rows that vectors do not divide.
    for (rows, width) in [(1, 8), (13, 30), (9000, 12), (70, 384), (11, 1030)] {
        marked(bench, rows, width)?;
    }
    Ok(())
}

/// Every third row has a mark.
fn marked(bench: &mut Bench<'_>, rows: usize, width: usize) -> Result<(), Error> {
    let shape = format!("[{rows}, {width}]");
    let is_marked = |row: usize| row.is_multiple_of(3);
    let marks = bench.words(&(0..rows).map(|row| u32::from(is_marked(row))).collect::<Vec<_>>())?;
    let [p, g, m] = [("p", 1.0), ("g", 1.0), ("m", 0.1)].map(|(name, size)| bench.floats(name, rows * width, size));
    let (p, g, m) = (p?, g?, m?);
    let squares: Vec<f32> = normal("v", rows * width, 0.1).iter().map(|x| x * x).collect();
    let v = bench.operand(&squares, Number::F32)?;
    let average = bench.floats("average", rows * width, 1.0)?;
    let partials = bench.output_floats(SUM_PARTIALS)?;
    SumOfSquaresMarked { x: g.matrix(width), marks: marks.words(), partials: partials.vector() }
        .launch(bench.device)?;
    let control = bench.output_floats(4)?;
    let factor = bench.output_floats(1)?;
    let (max_norm, decay) = (0.5, 0.99f32);
    let put_off = Some(factor.matrix(1));
    GradientScale { partials: partials.vector(), max_norm, control: control.vector(), put_off, decay }
        .launch(bench.device)?;
    let of_marked = |index: usize| is_marked(index / width);
    let squares = g.values.iter().enumerate().filter(|&(index, _)| of_marked(index)).map(|(_, g)| g * g);
    let norm = squares.sum::<f64>().sqrt();
    let scale = f64::from(max_norm) / (norm + 1e-6);
    let found = bench.read(&control)?.0;
    let [norm_found, scale_found] = [0, 1].map(|index: usize| bench.operand(&[found[index] as f32], Number::F32));
    bench.compare("sum_of_squares_marked", "norm", &shape, &norm_found?, &[norm], FLOATS)?;
    bench.compare("sum_of_squares_marked", "scale", &shape, &scale_found?, &[scale.min(1.0)], FLOATS)?;
    bench.compare("gradient_scale", "factor put off", &shape, &factor, &[f64::from(decay)], FLOATS)?;

    let (limit, step, root_correction, follow) = (0.001f32, 0.01f32, 1.5f32, 0.25f32);
    AdamWStepMarked {
        parameters: p.matrix(width),
        gradients: g.matrix(width),
        first_moment: m.matrix(width),
        second_moment: v.matrix(width),
        average: Some(average.matrix(width)),
        marks: marks.words(),
        control: control.vector(),
        limit,
        step,
        decay,
        root_correction,
        follow,
    }
    .launch(bench.device)?;
    let mut expected = [&p, &g, &m, &v, &average].map(|operand| operand.values.clone());
    for index in (0..rows * width).filter(|&index| of_marked(index)) {
        let gradient = (expected[1][index] * scale.min(1.0)).clamp(-f64::from(limit), f64::from(limit));
        expected[1][index] = 0.0;
        expected[2][index] += (gradient - expected[2][index]) * 0.1;
        expected[3][index] = expected[3][index] * 0.999 + gradient * gradient * 0.001;
        let root = expected[3][index].sqrt() * f64::from(root_correction) + 1e-8;
        expected[0][index] = expected[0][index] * f64::from(decay) - f64::from(step) * expected[2][index] / root;
        expected[4][index] += (expected[0][index] - expected[4][index]) * f64::from(follow);
    }
    let names = ["parameters", "gradients", "first moments", "second moments", "average"];
    for ((name, found), expected) in names.into_iter().zip([&p, &g, &m, &v, &average]).zip(&expected) {
        bench.compare("adamw_marked", name, &shape, found, expected, FLOATS)?;
    }

    let factors = bench.operand(&[0.9, 1.0, 0.75], Number::F32)?;
    let named: Vec<u32> = (0..rows as u32).filter(|row| row % 3 == 1).rev().collect();
    let which = bench.words(&named)?;
    let (x, marks) = (p.matrix(width), marks.words());
    CatchUpAndMark { x, which: which.words(), marks, factors: factors.vector() }.launch(bench.device)?;
    let mut values = expected[0].clone();
    let multiply = |values: &mut [f64], remainder: usize| {
        for index in (0..rows * width).filter(|index| index / width % 3 == remainder) {
            values[index] *= factors.values.iter().product::<f64>();
        }
    };
    multiply(&mut values, 1);
    bench.compare("catch_up_and_mark", "x", &shape, &p, &values, FLOATS)?;
    CatchUpUnmarked { x, marks, factors: factors.vector() }.launch(bench.device)?;
    multiply(&mut values, 2);
    bench.compare("catch_up_unmarked", "x", &shape, &p, &values, FLOATS)
}

/// Over as many parameters as a student has.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    // Parameters are `f32` whatever activations are.
    if bench.precision != Precision::F32 {
        return Ok(());
    }
    norm(bench, 20_000_003)?;
    adamw(bench, 20_000_003, 1, true)
}

fn norm(bench: &mut Bench<'_>, count: usize) -> Result<(), Error> {
    let x = bench.floats("x", count, 2.0)?;
    let control = bench.output_floats(4)?;
    for max_norm in [1.0, 1e6] {
        gradient_scale(bench, &x, max_norm, &control)?;
        let norm = x.values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let expected = [norm, (f64::from(max_norm) / (norm + 1e-6)).min(1.0), 0.0, 0.0];
        let shape = format!("{count} elements, max_norm {max_norm}");
        // One by one: the norm's size would hide the scale.
        let (found, _) = bench.read(&control)?;
        for (index, name) in ["norm", "scale", "skip", "unused"].into_iter().enumerate() {
            let alone = bench.operand(&[found[index] as f32], Number::F32)?;
            bench.compare("gradient_scale", name, &shape, &alone, &expected[index..=index], FLOATS)?;
        }
    }
    let broken = bench.operand(&[1.0, f32::NAN, 2.0], Number::F32)?;
    gradient_scale(bench, &broken, 1.0, &control)?;
    let (found, _) = bench.read(&control)?;
    let verdict = bench.operand(&[found[1] as f32, found[2] as f32], Number::F32)?;
    bench.compare("gradient_scale", "scale and skip", "a NaN among 3 elements", &verdict, &[0.0, 1.0], FLOATS)
}

fn gradient_scale(bench: &Bench<'_>, x: &Operand, max_norm: f32, control: &Operand) -> Result<(), Error> {
    let sums = bench.output_floats(SUM_PARTIALS)?;
    let partials = sums.vector();
    SumOfSquares { x: x.vector(), partials }.launch(bench.device)?;
    GradientScale { partials, max_norm, control: control.vector(), put_off: None, decay: 1.0 }.launch(bench.device)
}

fn adamw(bench: &mut Bench<'_>, count: usize, first: usize, finite: bool) -> Result<(), Error> {
    let shape = format!("{count} elements from {first}, finite {finite}");
    let total = count + first;
    let p = bench.floats("p", total, 1.0)?;
    let g = bench.floats("g", total, 1.0)?;
    let m = bench.floats("m", total, 0.1)?;
    let squares: Vec<f32> = normal("v", total, 0.1).iter().map(|x| x * x).collect();
    let v = bench.operand(&squares, Number::F32)?;
    let shadow = bench.operand(&vec![0.0; total], Number::Bf16)?;
    let average = bench.floats("average", total, 1.0)?;
    let scale = 0.5f32;
    let control = bench.operand(&[3.0, scale, if finite { 0.0 } else { 1.0 }, 0.0], Number::F32)?;
    let (step, decay, root_correction, follow) = (0.01f32, 0.999f32, 1.5f32, 0.25f32);
    // With and without a limit.
    let limit = if first == 1 { f32::INFINITY } else { 0.3 };
    let from = |operand: &Operand| Vector { at: operand.at(first), len: count };
    let shadow_matrix = Matrix::new(Number::Bf16, shadow.at(first), [1, count]);
    let average_matrix = Matrix::new(Number::F32, average.at(first), [1, count]);
    let (has_shadow, has_average, clears) = (count != 5, count != 4099 || first == 1, count != 1000);
    AdamWStep {
        parameters: from(&p),
        gradients: from(&g),
        first_moment: from(&m),
        second_moment: from(&v),
        shadow: has_shadow.then_some(shadow_matrix),
        average: has_average.then_some(average_matrix),
        control: control.vector(),
        limit,
        step,
        decay,
        root_correction,
        follow,
        clears,
    }
    .launch(bench.device)?;
    let mut expected = [&p, &g, &m, &v, &shadow, &average].map(|operand| operand.values.clone());
    #[expect(clippy::needless_range_loop, reason = "one index into six buffers")]
    for i in first..total {
        let gradient = (expected[1][i] * f64::from(scale)).clamp(-f64::from(limit), f64::from(limit));
        if clears {
            expected[1][i] = 0.0;
        }
        if !finite {
            continue;
        }
        expected[2][i] += (gradient - expected[2][i]) * 0.1;
        expected[3][i] = expected[3][i] * 0.999 + gradient * gradient * 0.001;
        expected[0][i] = expected[0][i] * f64::from(decay)
            - f64::from(step) * expected[2][i] / (expected[3][i].sqrt() * f64::from(root_correction) + 1e-8);
        if has_shadow {
            expected[4][i] = expected[0][i];
        }
        if has_average {
            expected[5][i] += (expected[0][i] - expected[5][i]) * f64::from(follow);
        }
    }
    bench.compare("adamw", "parameters", &shape, &p, &expected[0], FLOATS)?;
    bench.compare("adamw", "gradients", &shape, &g, &expected[1], FLOATS)?;
    bench.compare("adamw", "first moments", &shape, &m, &expected[2], FLOATS)?;
    bench.compare("adamw", "second moments", &shape, &v, &expected[3], FLOATS)?;
    bench.compare("adamw", "average", &shape, &average, &expected[5], FLOATS)?;
    bench.compare("adamw", "shadow", &shape, &shadow, &expected[4], SHADOW)
}
