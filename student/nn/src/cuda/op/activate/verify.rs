//! Activation functions against their formulas, and their derivatives against difference quotients.

use super::launch::{ActivationBackward, ActivationForward};
use crate::cuda::op::sums::launch::{ReducePartials, column_partials};
use crate::cuda::verify::bench::{Bench, FLOATS, PRODUCTION_ROWS, ROUNDED, SHAPES, column_sums};
use crate::{Activation, Error};

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (rows, width) in SHAPES.into_iter().chain([(130, 40), (7, 1032)]) {
        activation(bench, rows, width)?;
    }
    Ok(())
}

/// Over as many rows as training has.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    activation(bench, PRODUCTION_ROWS, 192)
}

fn activation(bench: &mut Bench<'_>, rows: usize, width: usize) -> Result<(), Error> {
    for kind in [Activation::Gelu, Activation::GeluNew, Activation::Relu, Activation::Tanh] {
        let shape = format!("{kind:?}, rows {rows}, width {width}");
        let pre = bench.activations("pre", rows * width)?;
        let out = bench.output(rows * width)?;
        ActivationForward { activation: kind, pre: pre.matrix(width), out: out.matrix(width) }.launch(bench.device)?;
        let expected: Vec<f64> = pre.values.iter().map(|&x| value(kind, x)).collect();
        bench.compare("activation_forward", "out", &shape, &out, &expected, ROUNDED)?;
        // As a pass without a backward one runs it.
        let both = bench.activations("pre", rows * width)?;
        ActivationForward { activation: kind, pre: both.matrix(width), out: both.matrix(width) }
            .launch(bench.device)?;
        bench.same("activation_forward", "in place", &shape, [&both, &out])?;

        let d = bench.activations("d", rows * width)?;
        let sums = bench.output_floats(column_partials(rows, width) * width)?;
        let partials = sums.matrix(width);
        ActivationBackward { activation: kind, pre: pre.matrix(width), d: d.matrix(width), partials }
            .launch(bench.device)?;
        let expected: Vec<f64> = pre.values.iter().zip(&d.values).map(|(&x, d)| d * slope(kind, x)).collect();
        bench.compare("activation_backward", "d_pre", &shape, &d, &expected, ROUNDED)?;
        let destination = bench.floats("destination", width, 1.0)?;
        ReducePartials { partials, destination: destination.vector() }.launch(bench.device)?;
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

/// The derivative as a difference quotient, except where there is a corner, which a quotient would cut off.
fn slope(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Relu => f64::from(x > 0.0),
        _ => (value(kind, x + 1e-5) - value(kind, x - 1e-5)) / 2e-5,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_relu_is_right_beside_its_corner() {
        assert_eq!([-1e-7, 0.0, 1e-7].map(|x| slope(Activation::Relu, x)), [0.0, 0.0, 1.0]);
        assert!((slope(Activation::Tanh, 0.0) - 1.0).abs() < 1e-9);
    }
}
