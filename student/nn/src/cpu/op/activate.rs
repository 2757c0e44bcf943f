//! [`Activate`] on the CPU: activation functions with their derivatives, fused with the bias that stands before them.

use super::super::chunk::Run;
use crate::cpu::simd::{self, vectorized};
use crate::op::{Activate, Activation, Op};
use crate::slot::Span;

/// Adds the bias where the input stands.
pub(in crate::cpu) fn forward(run: &mut Run<'_>, op: &Op, activate: &Activate) {
    let mut out = run.take_value(op.out);
    let mut x = run.take_value(op.inputs[0].value);
    activate.activation.bias_forward(&mut x, run.context.parameters.get(activate.bias), &mut out);
    run.put(out);
    run.put(x);
}

pub(in crate::cpu) fn backward(run: &mut Run<'_>, op: &Op, activate: &Activate) {
    let mut x = run.take_replaced(op.inputs[0].value);
    let mut vectors = run.take_vectors();
    let [d_bias] = run.vectors(&mut vectors, [Span::from(activate.bias)]);
    activate.activation.bias_backward(&mut x, run.gradient(op.out), d_bias);
    run.put_vectors(vectors);
    run.put(x);
}

impl Activation {
    /// Adds `bias` to every row of `pre` in place and writes the activation of the sum to `out`.
    ///
    /// # Shapes
    /// - `pre`, `out`: `[rows, bias.len()]`
    pub(crate) fn bias_forward(self, pre: &mut [f32], bias: &[f32], out: &mut [f32]) {
        for (pre, out) in pre.chunks_exact_mut(bias.len()).zip(out.chunks_exact_mut(bias.len())) {
            match self {
                Self::Gelu => bias_gelu(pre, bias, out),
                Self::GeluNew => bias_gelu_new(pre, bias, out),
                Self::Relu => bias_relu(pre, bias, out),
                Self::Tanh => bias_tanh(pre, bias, out),
            }
        }
    }

    /// Replaces `pre` (with its bias added) by the gradient there, given the gradient behind the activation, and adds
    /// that up over rows into `d_bias`.
    ///
    /// # Shapes
    /// - `pre`, `d_out`: `[rows, d_bias.len()]`
    pub(crate) fn bias_backward(self, pre: &mut [f32], d_out: &[f32], d_bias: &mut [f32]) {
        for (pre, d_out) in pre.chunks_exact_mut(d_bias.len()).zip(d_out.chunks_exact(d_bias.len())) {
            match self {
                Self::Gelu => gelu_backward(pre, d_out, d_bias),
                Self::GeluNew => gelu_new_backward(pre, d_out, d_bias),
                Self::Relu => relu_backward(pre, d_out, d_bias),
                Self::Tanh => tanh_backward(pre, d_out, d_bias),
            }
        }
    }
}

const INVERSE_SQRT_2: f32 = std::f32::consts::FRAC_1_SQRT_2;
const INVERSE_SQRT_2_PI: f32 = 0.398_942_3;
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

macro_rules! pointwise {
    ($forward:ident, $backward:ident, |$x:ident| $value:expr, $derivative:expr) => {
        vectorized! {
            fn $forward(pre: &mut [f32], bias: &[f32], out: &mut [f32]) {
                for ((pre, &bias), out) in pre.iter_mut().zip(bias).zip(out) {
                    let $x = *pre + bias;
                    *pre = $x;
                    *out = $value;
                }
            }
        }
        vectorized! {
            fn $backward(pre: &mut [f32], d_out: &[f32], d_bias: &mut [f32]) {
                for ((pre, &d_out), d_bias) in pre.iter_mut().zip(d_out).zip(d_bias) {
                    let $x = *pre;
                    let d = d_out * $derivative;
                    *pre = d;
                    *d_bias += d;
                }
            }
        }
    };
}

pointwise!(
    bias_gelu,
    gelu_backward,
    |x| 0.5 * x * (1.0 + simd::erf(x * INVERSE_SQRT_2)),
    0.5 * (1.0 + simd::erf(x * INVERSE_SQRT_2)) + x * INVERSE_SQRT_2_PI * simd::exp(-0.5 * x * x)
);
pointwise!(
    bias_gelu_new,
    gelu_new_backward,
    |x| 0.5 * x * (1.0 + simd::tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x))),
    {
        let t = simd::tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
        0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x)
    }
);
pointwise!(bias_relu, relu_backward, |x| x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 });
pointwise!(bias_tanh, tanh_backward, |x| simd::tanh(x), {
    let t = simd::tanh(x);
    1.0 - t * t
});
