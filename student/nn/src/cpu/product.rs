//! Matrix products on one thread, for AVX-512, AVX2 and any other machine, chosen at run time.
//!
//! The right operand is packed panel by panel, a panel having as many columns as two vectors hold; a block of rows of
//! the left operand is then multiplied by the panel, with all sums in registers (Goto and van de Geijn, 2008, without
//! blocking of the inner size: a panel with the largest inner size of an encoder still fits into the second-level
//! cache). The left operand is read in place if its rows are contiguous. Each element of the result is one sum over the
//! inner index in order, whatever the sizes.

use std::cell::RefCell;
use std::mem::MaybeUninit;

/// Evaluates an expression with `V` as the widest [`Vector`] of this machine, compiled for its instruction set.
macro_rules! dispatch {
    (|$vector:ident| $body:expr) => {{
        #[cfg(target_arch = "x86_64")]
        if crate::cpu::simd::has_avx512() {
            type $vector = x86::Avx512;
            $body
        } else if crate::cpu::simd::has_avx2() {
            type $vector = x86::Avx2;
            $body
        } else {
            type $vector = Portable;
            $body
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            type $vector = Portable;
            $body
        }
    }};
}

/// A matrix in a slice: row major, rows `stride` apart, or the transposed of such a one.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// The matrix with these sizes that starts at the head of `data`.
    ///
    /// # Panics
    /// If rows overlap, or reach beyond the slice.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(cols <= stride, "rows overlap");
        assert!(rows == 0 || (rows - 1) * stride + cols <= data.len(), "the view reaches beyond its slice");
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// What to do with the content of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// Overwrite it.
    Fresh,
    /// Add to it.
    Sum,
}

/// `out (+)= scale * left * right`, with `out` row major, rows `stride` apart. Each element is one sum over the inner index in
/// order.
///
/// # Panics
/// If the inner sizes differ, or the result reaches beyond its destination.
pub fn product(left: View<'_>, right: View<'_>, scale: f32, out: &mut [f32], stride: usize, into: Into) {
    multiply(left, Right::View(right), scale, out, stride, into);
}

/// [`product`] with a right operand that is already packed.
pub(crate) fn product_panels(left: View<'_>, right: &Panels, out: &mut [f32], stride: usize) {
    multiply(left, Right::Panels(right), 1.0, out, stride, Into::Fresh);
}

/// A right operand, packed for the kernels of this machine.
pub(crate) struct Panels {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Panels {
    /// Copies a matrix.
    #[expect(unsafe_code, reason = "instruction sets chosen at run time")]
    pub(crate) fn new(matrix: View<'_>) -> Self {
        let mut data = Vec::new();
        // SAFETY: the instruction set is there.
        dispatch!(|V| unsafe { pack_panels::<V>(matrix, &mut data) });
        Self { data, rows: matrix.rows, cols: matrix.cols }
    }
}

#[derive(Clone, Copy)]
enum Right<'a> {
    View(View<'a>),
    Panels(&'a Panels),
}

#[expect(unsafe_code, reason = "instruction sets chosen at run time")]
fn multiply(left: View<'_>, right: Right<'_>, scale: f32, out: &mut [f32], stride: usize, into: Into) {
    let (rows, n) = match right {
        Right::View(view) => (view.rows, view.cols),
        Right::Panels(panels) => (panels.rows, panels.cols),
    };
    assert_eq!(left.cols, rows, "inner sizes of a product");
    let m = left.rows;
    #[cfg(test)]
    COUNT.with(|count| count.set(count.get() + 2 * (m * n * rows) as u64));
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * stride + n <= out.len() && n <= stride, "the product reaches beyond its destination");
    let out = Destination { data: out.as_mut_ptr(), stride, scale, sum: into == Into::Sum };
    WORKSPACE.with_borrow_mut(|workspace| {
        // SAFETY: the instruction set is there; sizes are checked above and in `View::new`.
        dispatch!(|V| unsafe { run::<V>(left, right, n, &out, workspace) });
    });
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

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Buffers for packed operands.
#[derive(Default)]
struct Workspace {
    panel: Vec<f32>,
    blocks: Vec<f32>,
}

struct Destination {
    data: *mut f32,
    stride: usize,
    scale: f32,
    sum: bool,
}

/// A vector of an instruction set. Every function needs that instruction set, and pointers to as many floats as it
/// reads or writes.
#[expect(unsafe_code, reason = "vector instructions")]
trait Vector: Copy {
    /// Floats in a vector.
    const WIDTH: usize;
    /// Rows whose sums, two vectors a row, fit the registers beside the operands.
    const ROWS: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Loads the first lanes alone; zeros stand in the others.
    unsafe fn load_first(from: *const f32, lanes: usize) -> Self;
    /// Stores the first lanes alone.
    unsafe fn store_first(self, to: *mut f32, lanes: usize);
    /// `self + a * b`, `a` in every lane.
    unsafe fn add_scaled(self, a: f32, b: Self) -> Self;
    /// `self * a`, `a` in every lane.
    unsafe fn scaled(self, a: f32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// Asks for a vector that is read soon; any address will do.
    fn prefetch(_from: *const f32) {}
    /// Transposes `WIDTH` vectors whose starts are `stride` apart into ones `to_stride` apart.
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize);
    /// [`pack_panel`], compiled for this instruction set.
    unsafe fn pack_panel(right: View<'_>, column: usize, width: usize, panel: &mut [f32]);
    /// [`block`], compiled by itself for this instruction set: within a larger function the sums leave the registers.
    unsafe fn block<const M: usize, const N: usize>(operands: &Operands<'_>);
}

/// `out (+)= scale * left * right`, with `n` columns.
///
/// # Safety
/// The instruction set of `V` must be there, and the operands and the destination must hold what their sizes say.
#[expect(unsafe_code, reason = "kernels read and write through pointers")]
unsafe fn run<V: Vector>(left: View<'_>, right: Right<'_>, n: usize, out: &Destination, workspace: &mut Workspace) {
    let (m, k) = (left.rows, left.cols);
    let blocks = Blocks::new(m, V::ROWS);
    let Workspace { panel, blocks: packed } = workspace;
    if left.col_stride != 1 {
        pack_rows(left, &blocks, packed);
    }
    let mut column = 0;
    while column < n {
        let width = (n - column).min(2 * V::WIDTH);
        let vectors = width.div_ceil(V::WIDTH);
        let padded = vectors * V::WIDTH;
        // SAFETY (of all below): `column + width <= n`, rows stay below `m`, and a panel has `k` rows of `padded`.
        unsafe {
            let (b, b_stride) = match right {
                Right::Panels(panels) => (panels.data.as_ptr().add(column * k), padded),
                // A few rows are not worth a copy of columns that can be read as they are.
                Right::View(view) if view.col_stride == 1 && width == padded && blocks.count <= 2 => {
                    (view.data.as_ptr().add(column), view.row_stride)
                }
                Right::View(view) => {
                    if panel.len() < k * padded {
                        panel.resize(k * padded, 0.0);
                    }
                    V::pack_panel(view, column, width, &mut panel[..k * padded]);
                    (panel.as_ptr(), padded)
                }
            };
            for block in 0..blocks.count {
                let rows = blocks.range(block);
                let (a, row_stride, inner_stride) = match left.col_stride {
                    1 => (left.data.as_ptr().add(rows.start * left.row_stride), left.row_stride, 1),
                    _ => (packed.as_ptr().add(rows.start * k), 1, rows.len()),
                };
                let a = Left { data: a, row_stride, inner_stride };
                let to = out.data.add(rows.start * out.stride + column);
                let operands = Operands { k, a, b, b_stride, to, width, out };
                match vectors {
                    1 => rows_by_vectors::<V, 1>(rows.len(), &operands),
                    _ => rows_by_vectors::<V, 2>(rows.len(), &operands),
                }
            }
        }
        column += width;
    }
}

/// All panels of a matrix, one behind the other.
///
/// # Safety
/// The instruction set of `V` must be there.
#[expect(unsafe_code, reason = "transposes through pointers")]
unsafe fn pack_panels<V: Vector>(matrix: View<'_>, data: &mut Vec<f32>) {
    let (k, n) = (matrix.rows, matrix.cols);
    data.resize(k * n.next_multiple_of(V::WIDTH), 0.0);
    let mut column = 0;
    while column < n {
        let width = (n - column).min(2 * V::WIDTH);
        let padded = width.next_multiple_of(V::WIDTH);
        // SAFETY: the caller's; `column + width <= n`.
        unsafe { V::pack_panel(matrix, column, width, &mut data[column * k..][..k * padded]) };
        column += width;
    }
}

/// Rows cut into blocks of nearly equal height.
struct Blocks {
    rows: usize,
    count: usize,
}

impl Blocks {
    fn new(rows: usize, most: usize) -> Self {
        Self { rows, count: rows.div_ceil(most) }
    }

    fn range(&self, block: usize) -> std::ops::Range<usize> {
        let (height, higher) = (self.rows / self.count, self.rows % self.count);
        let start = |block: usize| block * height + block.min(higher);
        start(block)..start(block + 1)
    }
}

/// Copies a transposed matrix so that the rows of a block stand side by side at each inner index.
fn pack_rows(left: View<'_>, blocks: &Blocks, packed: &mut Vec<f32>) {
    packed.resize(left.rows * left.cols, 0.0);
    for block in 0..blocks.count {
        let rows = blocks.range(block);
        let to = &mut packed[rows.start * left.cols..rows.end * left.cols];
        for (inner, to) in to.chunks_exact_mut(rows.len()).enumerate() {
            let from = inner * left.col_stride;
            to.copy_from_slice(&left.data[from + rows.start..from + rows.end]);
        }
    }
}

/// Copies columns `column..column + width` into a panel: as many rows as the matrix has, of `width` columns and zeros
/// up to a whole number of vectors.
///
/// # Safety
/// The instruction set of `V` must be there; `column + width` is at most the columns that there are.
#[inline(always)]
#[expect(unsafe_code, reason = "transposes through pointers")]
unsafe fn pack_panel<V: Vector>(right: View<'_>, column: usize, width: usize, panel: &mut [f32]) {
    let k = right.rows;
    if k == 0 {
        return;
    }
    let padded = panel.len() / k;
    if right.col_stride == 1 {
        let whole = width / V::WIDTH * V::WIDTH;
        for (inner, to) in panel.chunks_exact_mut(padded).enumerate() {
            let from = inner * right.row_stride + column;
            let from = &right.data[from..from + width];
            for vector in (0..whole).step_by(V::WIDTH) {
                // SAFETY: `WIDTH` columns from `vector` on are in both. A copy of the slice would be a call for each row.
                unsafe { V::load(from.as_ptr().add(vector)).store(to.as_mut_ptr().add(vector)) };
            }
            for (column, to) in to.iter_mut().enumerate().skip(whole) {
                *to = from.get(column).copied().unwrap_or(0.0);
            }
        }
        return;
    }
    // Columns are contiguous: squares are transposed, what remains is copied one by one.
    let mut done = 0;
    while done + V::WIDTH <= width {
        let from = &right.data[(column + done) * right.col_stride..];
        let mut inner = 0;
        while inner + V::WIDTH <= k {
            // SAFETY: `WIDTH` columns from `column + done` on, `WIDTH` inner indices from `inner` on are in the matrix,
            // and the panel has as many rows and columns.
            unsafe {
                let to = panel.as_mut_ptr().add(inner * padded + done);
                V::transpose(from.as_ptr().add(inner), right.col_stride, to, padded);
            }
            inner += V::WIDTH;
        }
        for inner in inner..k {
            for column in 0..V::WIDTH {
                panel[inner * padded + done + column] = from[column * right.col_stride + inner];
            }
        }
        done += V::WIDTH;
    }
    for to in done..padded {
        match to < width {
            true => {
                let from = &right.data[(column + to) * right.col_stride..][..k];
                panel[to..].iter_mut().step_by(padded).zip(from).for_each(|(to, &from)| *to = from);
            }
            false => panel[to..].iter_mut().step_by(padded).for_each(|to| *to = 0.0),
        }
    }
}

/// A block of rows of the left operand.
#[derive(Clone, Copy)]
struct Left {
    data: *const f32,
    row_stride: usize,
    inner_stride: usize,
}

/// What a kernel works on: `a` has some rows of `k`, `b` `k` rows of some vectors, `to` as many rows of `width` as `a`.
struct Operands<'a> {
    k: usize,
    a: Left,
    b: *const f32,
    b_stride: usize,
    to: *mut f32,
    width: usize,
    out: &'a Destination,
}

/// [`block`] of this many rows, a constant for the compiler.
///
/// # Safety
/// As of [`block`]; `rows` is from 1 to `V::ROWS`.
#[inline(always)]
#[expect(unsafe_code, reason = "kernels read and write through pointers")]
unsafe fn rows_by_vectors<V: Vector, const N: usize>(rows: usize, operands: &Operands<'_>) {
    macro_rules! dispatch {
        ($($rows:literal)*) => {
            match rows {
                // SAFETY: as this function's own.
                $($rows if $rows <= V::ROWS => unsafe { V::block::<$rows, N>(operands) },)*
                _ => unreachable!("blocks are of 1 to {} rows", V::ROWS),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// `M` rows times `N` vectors of columns.
///
/// # Safety
/// The instruction set of `V` must be there. The operands have `M` rows and `N` vectors; their `width` is more than
/// `N - 1` vectors and at most `N`.
#[inline(always)]
#[expect(unsafe_code, reason = "kernels read and write through pointers")]
#[expect(clippy::needless_range_loop, reason = "plain loops of constant length, which unroll for certain")]
unsafe fn block<V: Vector, const M: usize, const N: usize>(operands: &Operands<'_>) {
    let Operands { k, a, b, b_stride, .. } = *operands;
    // SAFETY: by the contract of this function.
    unsafe {
        let mut sums: [[V; N]; M] = std::array::from_fn(|_| std::array::from_fn(|_| V::zero()));
        // One pointer for four rows: a chain of additions from row to row would take as long as the products.
        let mut fours = [a.data; 4];
        for (i, four) in fours.iter_mut().enumerate() {
            *four = a.data.wrapping_add(4 * i * a.row_stride);
        }
        let mut b = b;
        for _ in 0..k {
            let mut columns = [V::zero(); N];
            for vector in 0..N {
                columns[vector] = V::load(b.add(vector * V::WIDTH));
                V::prefetch(b.wrapping_add(8 * b_stride + vector * V::WIDTH));
            }
            for row in 0..M {
                let value = *fours[row / 4].add(row % 4 * a.row_stride);
                for vector in 0..N {
                    sums[row][vector] = sums[row][vector].add_scaled(value, columns[vector]);
                }
            }
            for four in &mut fours {
                *four = four.wrapping_add(a.inner_stride);
            }
            b = b.wrapping_add(b_stride);
        }
        // One plain loop, and the cases behind it: cases in this loop would put the sums into memory all the while.
        let mut tile = MaybeUninit::<[f32; TILE]>::uninit();
        let sums_of = tile.as_mut_ptr().cast::<f32>();
        for row in 0..M {
            for vector in 0..N {
                sums[row][vector].store(sums_of.add((row * N + vector) * V::WIDTH));
            }
        }
        finish::<V>(sums_of, M, N, operands);
    }
}

/// Floats of the largest block.
const TILE: usize = 14 * 2 * 16;

/// Puts a block's sums where they belong.
///
/// # Safety
/// As of [`block`]; `sums` has `rows * vectors` vectors.
#[inline(always)]
#[expect(unsafe_code, reason = "kernels read and write through pointers")]
unsafe fn finish<V: Vector>(sums: *const f32, rows: usize, vectors: usize, operands: &Operands<'_>) {
    let Operands { to, width, out, .. } = *operands;
    for row in 0..rows {
        for vector in 0..vectors {
            let lanes = V::WIDTH.min(width - vector * V::WIDTH);
            // SAFETY: by the contract of this function; lanes end with the row's columns.
            unsafe {
                let to = to.add(row * out.stride + vector * V::WIDTH);
                let sum = V::load(sums.add((row * vectors + vector) * V::WIDTH)).scaled(out.scale);
                match (lanes == V::WIDTH, out.sum) {
                    (true, false) => sum.store(to),
                    (true, true) => V::load(to).add(sum).store(to),
                    (false, false) => sum.store_first(to, lanes),
                    (false, true) => V::load_first(to, lanes).add(sum).store_first(to, lanes),
                }
            }
        }
    }
}

/// Four floats that the compiler may put into whatever vectors the machine has.
#[derive(Clone, Copy)]
struct Portable([f32; 4]);

#[expect(unsafe_code, reason = "the trait's loads and stores")]
impl Vector for Portable {
    const WIDTH: usize = 4;
    const ROWS: usize = 4;

    unsafe fn pack_panel(right: View<'_>, column: usize, width: usize, panel: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { pack_panel::<Self>(right, column, width, panel) }
    }

    unsafe fn block<const M: usize, const N: usize>(operands: &Operands<'_>) {
        // SAFETY: the caller's.
        unsafe { block::<Self, M, N>(operands) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for `WIDTH` floats.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's pointer is good for `WIDTH` floats.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, lanes: usize) -> Self {
        // SAFETY: the caller's pointer is good for `lanes` floats.
        Self(std::array::from_fn(|lane| if lane < lanes { unsafe { *from.add(lane) } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, lanes: usize) {
        for (lane, &value) in self.0.iter().enumerate().take(lanes) {
            // SAFETY: the caller's pointer is good for `lanes` floats.
            unsafe { *to.add(lane) = value };
        }
    }

    #[inline(always)]
    unsafe fn add_scaled(self, a: f32, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + a * b.0[i]))
    }

    #[inline(always)]
    unsafe fn scaled(self, a: f32) -> Self {
        Self(self.0.map(|value| value * a))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        for row in 0..4 {
            for column in 0..4 {
                // SAFETY: the caller's pointers are good for four vectors.
                unsafe { *to.add(column * to_stride + row) = *from.add(row * stride + column) };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions")]
mod x86 {
    use super::{Operands, Vector, View, block, pack_panel};
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(super) struct Avx512(__m512);

    // SAFETY (of every call below): the caller's instruction set and pointers.
    impl Vector for Avx512 {
        const WIDTH: usize = 16;
        // 28 sums, 2 columns.
        const ROWS: usize = 14;

        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
        unsafe fn pack_panel(right: View<'_>, column: usize, width: usize, panel: &mut [f32]) {
            unsafe { pack_panel::<Self>(right, column, width, panel) }
        }

        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
        #[inline(never)]
        unsafe fn block<const M: usize, const N: usize>(operands: &Operands<'_>) {
            unsafe { block::<Self, M, N>(operands) }
        }

        #[inline(always)]
        fn prefetch(from: *const f32) {
            unsafe { _mm_prefetch(from.cast(), _MM_HINT_T0) }
        }

        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(unsafe { _mm512_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, lanes: usize) -> Self {
            Self(unsafe { _mm512_maskz_loadu_ps(first(lanes) as __mmask16, from) })
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, lanes: usize) {
            unsafe { _mm512_mask_storeu_ps(to, first(lanes) as __mmask16, self.0) }
        }

        #[inline(always)]
        unsafe fn add_scaled(self, a: f32, b: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(_mm512_set1_ps(a), b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn scaled(self, a: f32) -> Self {
            Self(unsafe { _mm512_mul_ps(self.0, _mm512_set1_ps(a)) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
            unsafe {
                let mut rows = [_mm512_setzero_ps(); 16];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = _mm512_loadu_ps(from.add(i * stride));
                }
                // Pairs of rows, then fours: then each 128-bit lane holds four rows of one column.
                let mut pairs = [_mm512_setzero_pd(); 16];
                for i in 0..8 {
                    let (a, b) = (rows[2 * i], rows[2 * i + 1]);
                    pairs[2 * i] = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                    pairs[2 * i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                }
                let mut fours = [_mm512_setzero_ps(); 16];
                for i in 0..4 {
                    let (a, b, c, d) = (pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]);
                    fours[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
                    fours[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
                    fours[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
                    fours[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
                }
                for i in 0..4 {
                    let (a, b, c, d) = (fours[i], fours[4 + i], fours[8 + i], fours[12 + i]);
                    let (even, even_behind) = (_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(c, d, 0x88));
                    let (odd, odd_behind) = (_mm512_shuffle_f32x4(a, b, 0xdd), _mm512_shuffle_f32x4(c, d, 0xdd));
                    _mm512_storeu_ps(to.add(i * to_stride), _mm512_shuffle_f32x4(even, even_behind, 0x88));
                    _mm512_storeu_ps(to.add((4 + i) * to_stride), _mm512_shuffle_f32x4(odd, odd_behind, 0x88));
                    _mm512_storeu_ps(to.add((8 + i) * to_stride), _mm512_shuffle_f32x4(even, even_behind, 0xdd));
                    _mm512_storeu_ps(to.add((12 + i) * to_stride), _mm512_shuffle_f32x4(odd, odd_behind, 0xdd));
                }
            }
        }
    }

    /// A bit for each of the first lanes.
    fn first(lanes: usize) -> u32 {
        (1 << lanes) - 1
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256);

    /// All bits of each of the first lanes.
    #[inline(always)]
    unsafe fn mask(lanes: usize) -> __m256i {
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }

    // SAFETY (of every call below): the caller's instruction set and pointers.
    impl Vector for Avx2 {
        const WIDTH: usize = 8;
        // 12 sums, 2 columns, 1 value.
        const ROWS: usize = 6;

        #[target_feature(enable = "avx2,fma")]
        unsafe fn pack_panel(right: View<'_>, column: usize, width: usize, panel: &mut [f32]) {
            unsafe { pack_panel::<Self>(right, column, width, panel) }
        }

        #[target_feature(enable = "avx2,fma")]
        #[inline(never)]
        unsafe fn block<const M: usize, const N: usize>(operands: &Operands<'_>) {
            unsafe { block::<Self, M, N>(operands) }
        }

        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(unsafe { _mm256_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, lanes: usize) -> Self {
            Self(unsafe { _mm256_maskload_ps(from, mask(lanes)) })
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, lanes: usize) {
            unsafe { _mm256_maskstore_ps(to, mask(lanes), self.0) }
        }

        #[inline(always)]
        unsafe fn add_scaled(self, a: f32, b: Self) -> Self {
            Self(unsafe { _mm256_fmadd_ps(_mm256_set1_ps(a), b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn scaled(self, a: f32) -> Self {
            Self(unsafe { _mm256_mul_ps(self.0, _mm256_set1_ps(a)) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
            unsafe {
                let mut rows = [_mm256_setzero_ps(); 8];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = _mm256_loadu_ps(from.add(i * stride));
                }
                let mut pairs = [_mm256_setzero_pd(); 8];
                for i in 0..4 {
                    let (a, b) = (rows[2 * i], rows[2 * i + 1]);
                    pairs[2 * i] = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
                    pairs[2 * i + 1] = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
                }
                let mut fours = [_mm256_setzero_ps(); 8];
                for i in 0..2 {
                    let (a, b, c, d) = (pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]);
                    fours[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
                    fours[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
                    fours[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
                    fours[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
                }
                for i in 0..4 {
                    let (a, b) = (fours[i], fours[4 + i]);
                    _mm256_storeu_ps(to.add(i * to_stride), _mm256_permute2f128_ps(a, b, 0x20));
                    _mm256_storeu_ps(to.add((4 + i) * to_stride), _mm256_permute2f128_ps(a, b, 0x31));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Normal;

    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; n];
        Normal::new(seed, "product", 1.0).fill(&mut values);
        values
    }

    type Run = unsafe fn(View<'_>, Right<'_>, usize, &Destination, &mut Workspace);
    type Pack = unsafe fn(View<'_>, &mut Vec<f32>);

    /// Every kernel that this machine can run.
    fn kernels() -> Vec<(&'static str, Run, Pack)> {
        let mut kernels: Vec<(&'static str, Run, Pack)> = vec![("portable", run::<Portable>, pack_panels::<Portable>)];
        #[cfg(target_arch = "x86_64")]
        {
            if crate::cpu::simd::has_avx2() {
                kernels.push(("avx2", run::<x86::Avx2>, pack_panels::<x86::Avx2>));
            }
            if crate::cpu::simd::has_avx512() {
                kernels.push(("avx512", run::<x86::Avx512>, pack_panels::<x86::Avx512>));
            }
        }
        kernels
    }

    #[test]
    #[expect(unsafe_code, reason = "kernels are called past the choice")]
    fn every_kernel_gives_the_product() {
        let sizes = [1, 2, 3, 5, 7, 13, 14, 15, 16, 17, 28, 29, 31, 32, 33, 48, 70];
        let mut case = 0;
        for m in sizes {
            for n in sizes {
                // The inner size and what else may vary go round with the case: every pair of them occurs.
                case += 1;
                let k = [1, 4, 16, 19, 64][case % 5];
                let (left_transposed, right_transposed) = (case % 2 == 0, case % 3 == 0);
                let (sum, scale, gap) = (case % 7 < 3, if case % 4 == 0 { 1.0 } else { -0.3 }, case % 6);
                let (a_rows, a_cols) = if left_transposed { (k, m) } else { (m, k) };
                let (b_rows, b_cols) = if right_transposed { (n, k) } else { (k, n) };
                let (a, b) = (values(a_rows * (a_cols + gap), 1), values(b_rows * (b_cols + gap), 2));
                let before = values(m * (n + gap), 3);
                let mut left = View::new(&a, a_rows, a_cols, a_cols + gap);
                let mut right = View::new(&b, b_rows, b_cols, b_cols + gap);
                if left_transposed {
                    left = left.transposed();
                }
                if right_transposed {
                    right = right.transposed();
                }
                for (name, kernel, pack) in kernels() {
                    let mut out = before.clone();
                    let to = Destination { data: out.as_mut_ptr(), stride: n + gap, scale, sum };
                    let mut panels = Panels { data: Vec::new(), rows: k, cols: n };
                    // SAFETY: the machine has the kernel's instructions, and `out` has `m` rows of that stride.
                    unsafe {
                        pack(right, &mut panels.data);
                        let right = if case % 2 == 0 { Right::View(right) } else { Right::Panels(&panels) };
                        kernel(left, right, n, &to, &mut Workspace::default());
                    }
                    for i in 0..m {
                        for j in 0..n + gap {
                            let old = before[i * (n + gap) + j];
                            let at = |view: View<'_>, r: usize, c: usize| {
                                f64::from(view.data[r * view.row_stride + c * view.col_stride])
                            };
                            let dot: f64 =
                                (0..k.min(if j < n { k } else { 0 })).map(|p| at(left, i, p) * at(right, p, j)).sum();
                            let expected = match (j < n, sum) {
                                (false, _) => f64::from(old),
                                (true, true) => f64::from(old) + f64::from(scale) * dot,
                                (true, false) => f64::from(scale) * dot,
                            };
                            let found = f64::from(out[i * (n + gap) + j]);
                            // Measured: 1.5e-6 over all cases.
                            assert!(
                                (found - expected).abs() < 1e-5,
                                "{name} {m}x{k}x{n} at ({i}, {j}): {found} instead of {expected}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_element_does_not_depend_on_the_other_rows() {
        let (a, b) = (values(40 * 24, 1), values(24 * 50, 2));
        let mut all = vec![0.0; 40 * 50];
        product(View::new(&a, 40, 24, 24), View::new(&b, 24, 50, 50), 1.0, &mut all, 50, Into::Fresh);
        for row in 0..40 {
            let mut one = vec![0.0; 50];
            product(View::new(&a[row * 24..], 1, 24, 24), View::new(&b, 24, 50, 50), 1.0, &mut one, 50, Into::Fresh);
            assert_eq!(one, all[row * 50..(row + 1) * 50]);
        }
    }

    #[test]
    fn blocks_cover_the_rows_evenly() {
        for rows in 1..100 {
            let blocks = Blocks::new(rows, 14);
            let mut next = 0;
            for block in 0..blocks.count {
                let range = blocks.range(block);
                assert!(range.start == next && !range.is_empty() && range.len() <= 14);
                next = range.end;
            }
            assert_eq!(next, rows);
        }
    }
}
