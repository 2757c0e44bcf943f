//! What the emulated device refuses.

use super::call::Mask;
use super::embed::launch::{EmbedSum, Lookup};
use super::norm::launch::{NormWeights, ResidualNormForward};
use crate::Error;
use crate::cuda::device::{Buffer, take_launches};
use crate::cuda::emulation;
use crate::cuda::operand::{Matrix, Number, Vector, Words};
use crate::cuda::work::Matmul;

/// Rows and width of the operands.
const SHAPE: [usize; 2] = [3, 64];
/// Bytes of each operand's memory.
const BYTES: usize = SHAPE[0] * SHAPE[1] * 4;

/// A launch with room for each of its operands.
fn launch(at: &[Buffer; 6]) -> ResidualNormForward {
    let matrix = |index: usize| Matrix::new(Number::F32, at[index].ptr(), SHAPE);
    let vector = |index: usize, len| Vector { at: at[index].ptr(), len };
    ResidualNormForward {
        branch: matrix(0),
        branch_bias: vector(3, SHAPE[1]),
        residual: matrix(1),
        keeps_sum: true,
        norm: NormWeights { weight: vector(3, SHAPE[1]), bias: vector(3, SHAPE[1]), epsilon: Some(1e-5) },
        mask: Mask { site: None, first: 0 },
        row_tokens: None,
        mean: vector(4, SHAPE[0]),
        rstd: vector(5, SHAPE[0]),
        out: matrix(2),
    }
}

fn refusal(result: Result<(), Error>) -> String {
    result.expect_err("refused").to_string()
}

#[test]
fn operands_that_do_not_fit_are_refused_by_name() {
    let Some(device) = emulation::device() else { return };
    let at = std::array::from_fn(|_| Buffer::zeroed(&device, BYTES).expect("memory"));
    let fitting = launch(&at);
    fitting.launch(&device).expect("all fits");
    let other = Matrix { width: 60, stride: 60, ..fitting.residual };
    let error = refusal(ResidualNormForward { residual: other, ..fitting }.launch(&device));
    assert_eq!(error, "residual_norm_forward_f32 was given residual as f32 [3, 60]; it needs f32 [3, 64]");
    let halves = Matrix { number: Number::Bf16, ..fitting.out };
    let error = refusal(ResidualNormForward { out: halves, ..fitting }.launch(&device));
    assert_eq!(error, "residual_norm_forward_f32 was given out as bf16 [3, 64]; it needs f32 [3, 64]");
    let gaps = Matrix { rows: 2, stride: 66, ..fitting.branch };
    let error = refusal(ResidualNormForward { branch: gaps, ..fitting }.launch(&device));
    assert_eq!(error, "residual_norm_forward_f32 was given branch as f32 [2, 64], rows 66 apart; it needs f32 [2, 64]");
    let short = Vector { len: 2, ..fitting.rstd };
    let error = refusal(ResidualNormForward { rstd: short, ..fitting }.launch(&device));
    assert_eq!(error, "residual_norm_forward_f32 was given rstd as f32 [1, 2]; it needs f32 [1, 3]");
    let table = Matrix { width: 60, stride: 60, ..fitting.residual };
    let lookup = Lookup { rows: Words { at: at[4].ptr(), len: SHAPE[0] }, table };
    let error = refusal(EmbedSum { lookups: [Some(lookup), None, None], out: fitting.out }.launch(&device));
    assert_eq!(error, "embed_sum_f32 was given lookups as f32 [3, 60]; it needs f32 [3, 64]");
    let row_tokens = Some(Words { at: at[4].ptr(), len: 4 });
    let error = refusal(ResidualNormForward { row_tokens, ..fitting }.launch(&device));
    assert_eq!(error, "residual_norm_forward_f32 was given row_tokens as u32 [1, 4]; it needs u32 [1, 3]");
}

#[test]
fn operands_beyond_their_memory_are_refused_by_name() {
    let Some(device) = emulation::device() else { return };
    let mut at = std::array::from_fn(|_| Buffer::zeroed(&device, BYTES).expect("memory"));
    let fitting = launch(&at);
    let behind = Matrix { at: fitting.out.at.offset_bytes(16), ..fitting.out };
    let error = refusal(ResidualNormForward { out: behind, ..fitting }.launch(&device));
    let found = "768 bytes from byte 16 on of 768 allocated";
    assert_eq!(
        error,
        format!("residual_norm_forward_f32 was given out as {found}; it needs memory inside one allocation")
    );
    at[1] = Buffer::empty(&device);
    let error = refusal(fitting.launch(&device));
    assert!(error.starts_with("residual_norm_forward_f32 was given residual as 768 bytes at an address"), "{error}");
    let matrix = |index: usize, shape| Matrix::new(Number::F32, at[index].ptr(), shape);
    let product = Matmul {
        a: matrix(0, [3, 64]),
        a_transposed: false,
        b: matrix(2, [3, 64]),
        b_transposed: true,
        c: matrix(3, [3, 3]),
        accumulate: false,
        bias: None,
        tf32: false,
    };
    device.matmul(product).expect("all fits");
    let error = refusal(device.matmul(Matmul { b: matrix(2, [4, 64]), c: matrix(3, [3, 4]), ..product }));
    assert_eq!(
        error,
        "matmul was given b as 1024 bytes from byte 0 on of 768 allocated; it needs memory inside one allocation"
    );
    let error = refusal(device.matmul(Matmul { b: matrix(2, [3, 60]), ..product }));
    assert_eq!(error, "matmul was given b as f32 [3, 60]; it needs f32 [3, 64]");
    let error = refusal(device.matmul(Matmul { c: Matrix { stride: 2, ..product.c }, ..product }));
    assert_eq!(error, "matmul was given c as f32 [3, 3], rows 2 apart; it needs f32 [3, 3]");
}

#[test]
fn a_bias_at_an_odd_address_never_comes_to_the_product() {
    let Some(device) = emulation::device() else { return };
    let at: [Buffer; 4] = std::array::from_fn(|_| Buffer::zeroed(&device, BYTES).expect("memory"));
    let matrix = |index: usize, shape| Matrix::new(Number::F32, at[index].ptr(), shape);
    let product = |bias_at: usize| Matmul {
        a: matrix(0, [3, 64]),
        a_transposed: false,
        b: matrix(1, [3, 64]),
        b_transposed: true,
        c: matrix(2, [3, 3]),
        accumulate: false,
        bias: Some(at[3].ptr().offset_bytes(bias_at)),
        tf32: false,
    };
    for (bias_at, expected) in [(0, &["matmul"][..]), (4, &["matmul", "add_bias_f32"]), (16, &["matmul"])] {
        take_launches();
        device.matmul(product(bias_at)).expect("all fits");
        assert_eq!(take_launches(), expected, "at byte {bias_at}");
    }
    let error = refusal(device.matmul(product(BYTES - 8)));
    assert!(error.starts_with("add_bias was given bias as 12 bytes from byte 760 on of 768"), "{error}");
}
