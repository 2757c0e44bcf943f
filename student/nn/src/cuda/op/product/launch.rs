//! A product without cuBLASLt, and the bias behind one whose epilogue it does not take. The device itself asks for these,
//! so they know of none.

use crate::cuda::operand::{Matrix, Number, Ptr};
use crate::cuda::work::{Arguments, Launch, Matmul};

/// Rows and columns that a block computes.
const TILE: usize = 16;

/// The whole product: any layout, at any address.
pub(crate) fn product(matmul: &Matmul) -> (Launch, Arguments) {
    let Matmul { a, a_transposed, b, b_transposed, c, accumulate, bias, .. } = *matmul;
    // From a row to the next, and from a column to the next.
    let strides = |matrix: Matrix, transposed| if transposed { [1, matrix.stride] } else { [matrix.stride, 1] };
    let ([a_m, a_k], [b_k, b_n]) = (strides(a, a_transposed), strides(b, b_transposed));
    let inner = if a_transposed { a.rows } else { a.width };
    let slots = [
        a.at.0,
        a_m as u64,
        a_k as u64,
        b.at.0,
        b_k as u64,
        b_n as u64,
        c.at.0,
        c.stride as u64,
        bias.unwrap_or(Ptr::NULL).0,
        u64::from(c.number == Number::F32),
        u64::from(accumulate),
        c.rows as u64,
        c.width as u64,
        inner as u64,
    ];
    let grid = [c.rows.div_ceil(TILE), c.width.div_ceil(TILE), 1];
    (launch(typed!("product"), a.number, grid), slots.into_iter().fold(Arguments::new(), Arguments::push))
}

/// `x += bias` in every row; the bias is made of what `x` is, and may stand at any address.
pub(crate) fn add_bias(x: Matrix, bias: Ptr) -> (Launch, Arguments) {
    let slots = [x.at.0, x.stride as u64, bias.0, x.rows as u64, x.width as u64];
    let vectors = x.rows * x.width.div_ceil(16 / x.number.bytes());
    let grid = [vectors.div_ceil(256), 1, 1];
    (launch(typed!("add_bias"), x.number, grid), slots.into_iter().fold(Arguments::new(), Arguments::push))
}

fn launch([f32, bf16]: [&'static str; 2], number: Number, grid: [usize; 3]) -> Launch {
    let kernel = if number == Number::F32 { f32 } else { bf16 };
    Launch { kernel, grid: grid.map(|blocks| blocks as u32), block: [256, 1, 1], shared_bytes: 0 }
}
