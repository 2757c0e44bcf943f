//! Linear maps and their biases, each product on one thread.
//!
//! A weight is `[outer, inner]` as in Hugging Face's files: `y = x weight^T`.

use crate::cpu::product::{Into, Panels, View, product, product_panels};

/// `out [rows, outer] (+)= x [rows, inner] weight^T`
pub(crate) fn linear(x: &[f32], weight: &[f32], rows: usize, inner: usize, out: &mut [f32], into: Into) {
    let outer = weight.len() / inner;
    let weight = View::new(weight, outer, inner, inner).transposed();
    product(View::new(x, rows, inner, inner), weight, 1.0, out, outer, into);
}

/// The weight of [`linear`], packed once for many calls of [`linear_panels`].
pub(crate) fn panels(weight: &[f32], inner: usize) -> Panels {
    let outer = weight.len() / inner;
    Panels::new(View::new(weight, outer, inner, inner).transposed())
}

/// `out [rows, outer] = x [rows, inner] weight^T`
pub(crate) fn linear_panels(x: &[f32], weight: &Panels, rows: usize, inner: usize, out: &mut [f32]) {
    let outer = out.len() / rows.max(1);
    product_panels(View::new(x, rows, inner, inner), weight, out, outer);
}

/// `d_x [rows, inner] (+)= d_out [rows, outer] weight`
pub(crate) fn linear_backward(d_out: &[f32], weight: &[f32], rows: usize, inner: usize, d_x: &mut [f32], into: Into) {
    let outer = weight.len() / inner;
    product(View::new(d_out, rows, outer, outer), View::new(weight, outer, inner, inner), 1.0, d_x, inner, into);
}

/// Adds `bias` to every row.
pub(crate) fn add_bias(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

/// Adds every row to `sum`.
pub(crate) fn add_rows(rows: &[f32], sum: &mut [f32]) {
    for row in rows.chunks_exact(sum.len()) {
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

/// A row of a matrix of this width.
pub(crate) fn table_row(table: &[f32], row: usize, width: usize) -> &[f32] {
    &table[row * width..(row + 1) * width]
}
