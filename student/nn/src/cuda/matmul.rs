//! Matrix products of the device: row major on the outside, cuBLASLt on a GPU, the CPU engine's on the emulated one.

use half::bf16;

use super::device::{Backend, Device, Ptr};
use super::emulated::Emulated;
use crate::Error;
use crate::product::{Into, View, product};

/// What a matrix is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Number {
    F32,
    Bf16,
}

impl Number {
    pub(crate) fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// How much of `f32` operands a product reads. Sums are `f32` in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Compute {
    F32,
    /// Ten bits of the mantissa, on tensor cores.
    Tf32,
}

/// `c [m, n] = a [m, k] b [k, n] (+ c) (+ bias in every row)`, all row major.
///
/// A transposed operand is stored as `[k, m]` or `[n, k]`; `ld` is what a stored row is from the next, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matmul {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: Ptr,
    pub(crate) a_transposed: bool,
    pub(crate) lda: usize,
    pub(crate) b: Ptr,
    pub(crate) b_transposed: bool,
    pub(crate) ldb: usize,
    pub(crate) c: Ptr,
    pub(crate) ldc: usize,
    /// Whether the product is added to what stands in `c`.
    pub(crate) accumulate: bool,
    /// `[n]`, of the output's number format.
    pub(crate) bias: Option<Ptr>,
    pub(crate) input: Number,
    pub(crate) output: Number,
    pub(crate) compute: Compute,
}

impl Matmul {
    /// Rows and columns of the operands as they are stored.
    pub(super) fn stored(&self) -> [(usize, usize); 2] {
        let a = if self.a_transposed { (self.k, self.m) } else { (self.m, self.k) };
        let b = if self.b_transposed { (self.n, self.k) } else { (self.k, self.n) };
        [a, b]
    }
}

impl Device {
    /// Computes a product.
    pub(crate) fn matmul(&self, matmul: Matmul) -> Result<(), Error> {
        if matmul.m == 0 || matmul.n == 0 {
            return Ok(());
        }
        #[cfg(test)]
        super::device::count_launch("matmul");
        match self.backend() {
            Backend::Driver(driver) => driver.matmul(&matmul)?,
            Backend::Emulated(emulated) => emulate(emulated, &matmul),
        }
        Ok(())
    }
}

/// The product with sums in `f32`, rounded once to the output's format. TF32 is not imitated.
fn emulate(device: &Emulated, matmul: &Matmul) {
    let Matmul { m, n, k, .. } = *matmul;
    let [(a_rows, a_columns), (b_rows, b_columns)] = matmul.stored();
    let a = read(device, matmul.a, a_rows, a_columns, matmul.lda, matmul.input);
    let b = read(device, matmul.b, b_rows, b_columns, matmul.ldb, matmul.input);
    let mut c = match matmul.accumulate {
        true => read(device, matmul.c, m, n, matmul.ldc, matmul.output),
        false => vec![0.0; m * n],
    };
    if k > 0 {
        let view = |values, (rows, columns), transposed| match (View::new(values, rows, columns, columns), transposed) {
            (view, true) => view.transposed(),
            (view, false) => view,
        };
        let a = view(&a, (a_rows, a_columns), matmul.a_transposed);
        let b = view(&b, (b_rows, b_columns), matmul.b_transposed);
        product(a, b, 1.0, &mut c, n, if matmul.accumulate { Into::Sum } else { Into::Fresh });
    }
    if let Some(bias) = matmul.bias {
        let bias = read(device, bias, 1, n, n, matmul.output);
        for row in c.chunks_exact_mut(n) {
            for (value, bias) in row.iter_mut().zip(&bias) {
                *value += bias;
            }
        }
    }
    for (row, values) in c.chunks_exact(n).enumerate() {
        let to = matmul.c.offset_bytes(row * matmul.ldc * matmul.output.bytes());
        match matmul.output {
            Number::F32 => device.upload(to, bytemuck::cast_slice(values)),
            Number::Bf16 => {
                let values: Vec<u16> = values.iter().map(|&value| bf16::from_f32(value).to_bits()).collect();
                device.upload(to, bytemuck::cast_slice(&values));
            }
        }
    }
}

/// A stored matrix as dense `f32`.
fn read(device: &Emulated, from: Ptr, rows: usize, columns: usize, ld: usize, number: Number) -> Vec<f32> {
    let mut values = vec![0.0f32; rows * columns];
    let mut halves = vec![0u16; columns];
    for (row, values) in values.chunks_exact_mut(columns).enumerate() {
        let from = from.offset_bytes(row * ld * number.bytes());
        match number {
            Number::F32 => device.download(from, bytemuck::cast_slice_mut(values)),
            Number::Bf16 => {
                device.download(from, bytemuck::cast_slice_mut(&mut halves));
                for (value, &half) in values.iter_mut().zip(&halves) {
                    *value = bf16::from_bits(half).to_f32();
                }
            }
        }
    }
    values
}
