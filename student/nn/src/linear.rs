//! Matrix products on preallocated buffers: `gemm` on one thread, since parallel work is cut by rows or by weights.
//!
//! A weight is `[outer, inner]` as in Hugging Face's files: `y = x weight^T`.

use gemm::Parallelism;

/// A row-major matrix in a slice, rows `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// The matrix with these sizes that starts at the head of `data`.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * stride + cols <= data.len(), "the view reaches beyond its slice");
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transposed matrix.
    pub(crate) fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// What stands in the destination before a product.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Into {
    /// Is replaced.
    Fresh,
    /// Is added to.
    Sum,
}

/// `out (+)= scale * left * right`, with `out` row major, rows `stride` apart.
pub(crate) fn product(left: View<'_>, right: View<'_>, scale: f32, out: &mut [f32], stride: usize, into: Into) {
    let (m, n, k) = (left.rows, right.cols, left.cols);
    assert_eq!(k, right.rows, "inner sizes of a product");
    if m == 0 || n == 0 {
        return;
    }
    #[cfg(test)]
    COUNT.with(|count| count.set(count.get() + 2 * (m * n * k) as u64));
    assert!((m - 1) * stride + n <= out.len() && n <= stride, "the product reaches beyond its destination");
    // SAFETY: `View::new` and the assertion above keep every element that is read or written inside its slice, and
    // `out` is borrowed mutably, so it overlaps neither operand.
    #[expect(unsafe_code, reason = "`gemm` takes pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            into == Into::Sum,
            left.data.as_ptr(),
            left.col_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.col_stride as isize,
            right.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `out [rows, outer] (+)= x [rows, inner] weight^T`
pub(crate) fn linear(x: &[f32], weight: &[f32], rows: usize, inner: usize, out: &mut [f32], into: Into) {
    let outer = weight.len() / inner;
    let weight = View::new(weight, outer, inner, inner).transposed();
    product(View::new(x, rows, inner, inner), weight, 1.0, out, outer, into);
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

#[cfg(test)]
thread_local! {
    /// Operations of all products so far on this thread.
    static COUNT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Operations of the products that `work` asks for, all done on one thread.
#[cfg(test)]
pub(crate) fn counted(work: impl FnOnce() + Send) -> u64 {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    pool.install(|| {
        work();
        COUNT.with(std::cell::Cell::get)
    })
}
