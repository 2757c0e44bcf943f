//! Bias, dropout, residual and layer norm (Ba et al., 2016) in one loop over each row, forward and backward.

use crate::cpu::simd::{sum, vectorized};
use crate::random::DropoutSite;

/// A row's mask, and the number of its first element.
pub(crate) type RowMask = (DropoutSite, u32);

/// The parameters of a norm.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    /// `None` for a norm that only scales and shifts.
    pub(crate) epsilon: Option<f32>,
}

vectorized! {
    /// Turns `branch` into `dropout(branch + branch_bias) + residual`, normalises it in place, and writes
    /// `weight * normalised + bias` to `out`. Returns the reciprocal of the standard deviation.
    ///
    /// All slices are one row of the same width. Without an epsilon the row is not normalised.
    pub(crate) fn forward_row(
        branch: &mut [f32],
        branch_bias: &[f32],
        residual: &[f32],
        norm: Norm<'_>,
        mask: Option<RowMask>,
        out: &mut [f32],
    ) -> f32 {
        let n = branch.len();
        let (branch_bias, residual, out) = (&branch_bias[..n], &residual[..n], &mut out[..n]);
        match mask {
            None => {
                for i in 0..n {
                    branch[i] += branch_bias[i] + residual[i];
                }
            }
            Some((site, element)) => {
                for i in 0..n {
                    branch[i] = (branch[i] + branch_bias[i]) * site.factor(element.wrapping_add(i as u32)) + residual[i];
                }
            }
        }
        normalize(branch, norm, out)
    }
}

vectorized! {
    /// Normalises `row` in place and writes `dropout(weight * normalised + bias)` to `out`, as for the embeddings.
    pub(crate) fn forward_row_then_dropout(
        row: &mut [f32],
        norm: Norm<'_>,
        mask: Option<RowMask>,
        out: &mut [f32],
    ) -> f32 {
        let scale = normalize(row, norm, out);
        if let Some((site, element)) = mask {
            for (i, out) in out.iter_mut().enumerate() {
                *out *= site.factor(element.wrapping_add(i as u32));
            }
        }
        scale
    }
}

#[inline(always)]
fn normalize(row: &mut [f32], norm: Norm<'_>, out: &mut [f32]) -> f32 {
    let n = row.len();
    let (weight, bias, out) = (&norm.weight[..n], &norm.bias[..n], &mut out[..n]);
    let Some(epsilon) = norm.epsilon else {
        for i in 0..n {
            out[i] = row[i] * weight[i] + bias[i];
        }
        return 1.0;
    };
    let mean = sum(n, |i| row[i]) / n as f32;
    let variance = sum(n, |i| (row[i] - mean) * (row[i] - mean)) / n as f32;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for i in 0..n {
        row[i] = (row[i] - mean) * scale;
        out[i] = row[i] * weight[i] + bias[i];
    }
    scale
}

vectorized! {
    /// Backward of [`forward_row`]: replaces `d_out` by the gradient of the sum before the norm (that of the residual)
    /// and `normalized` by the gradient of the branch, and adds to the gradients of weight, bias and branch bias.
    /// `scale` is `None` if nothing was normalised.
    pub(crate) fn backward_row(
        d_out: &mut [f32],
        normalized: &mut [f32],
        scale: Option<f32>,
        weight: &[f32],
        mask: Option<RowMask>,
        d_weight: &mut [f32],
        d_bias: &mut [f32],
        d_branch_bias: &mut [f32],
    ) {
        let n = d_out.len();
        let (normalized, d_branch_bias) = (&mut normalized[..n], &mut d_branch_bias[..n]);
        d_normalize(d_out, normalized, scale, weight, d_weight, d_bias);
        normalized.copy_from_slice(d_out);
        if let Some((site, element)) = mask {
            for (i, normalized) in normalized.iter_mut().enumerate() {
                *normalized *= site.factor(element.wrapping_add(i as u32));
            }
        }
        for i in 0..n {
            d_branch_bias[i] += normalized[i];
        }
    }
}

vectorized! {
    /// Backward of [`forward_row_then_dropout`]: replaces `d_out` by the gradient of the row before the norm.
    pub(crate) fn backward_row_then_dropout(
        d_out: &mut [f32],
        normalized: &[f32],
        scale: Option<f32>,
        weight: &[f32],
        mask: Option<RowMask>,
        d_weight: &mut [f32],
        d_bias: &mut [f32],
    ) {
        if let Some((site, element)) = mask {
            for (i, d_out) in d_out.iter_mut().enumerate() {
                *d_out *= site.factor(element.wrapping_add(i as u32));
            }
        }
        d_normalize(d_out, normalized, scale, weight, d_weight, d_bias);
    }
}

#[inline(always)]
fn d_normalize(
    d_out: &mut [f32],
    normalized: &[f32],
    scale: Option<f32>,
    weight: &[f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let n = d_out.len();
    let (normalized, weight) = (&normalized[..n], &weight[..n]);
    let (d_weight, d_bias) = (&mut d_weight[..n], &mut d_bias[..n]);
    for i in 0..n {
        d_weight[i] += d_out[i] * normalized[i];
        d_bias[i] += d_out[i];
        d_out[i] *= weight[i];
    }
    let Some(scale) = scale else { return };
    let mean = sum(n, |i| d_out[i]) / n as f32;
    let projection = sum(n, |i| d_out[i] * normalized[i]) / n as f32;
    for i in 0..n {
        d_out[i] = scale * (d_out[i] - mean - normalized[i] * projection);
    }
}
