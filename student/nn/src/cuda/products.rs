//! Bare matrix products on the device, as an upper limit for the speed of a pass.

use super::device::{Buffer, Device};
use super::operand::{Matrix, Precision};
use super::work::Matmul;
use crate::Error;

/// Products of activations with the weights of linear maps, ready to run.
pub(crate) struct Products {
    device: Device,
    precision: Precision,
    rows: usize,
    /// Inner and outer size, and the weights of each map of these sizes.
    maps: Vec<(usize, usize, Vec<Buffer>)>,
    input: Buffer,
    output: Buffer,
}

impl Products {
    /// `rows` tokens through maps of these inner and outer sizes, each with a weight of its own.
    pub(crate) fn new(
        device: &Device,
        precision: Precision,
        rows: usize,
        shapes: &[(usize, usize, usize)],
    ) -> Result<Self, Error> {
        // The speed of a product of zeros is not that of one of numbers: fewer bits change, and the clock is higher.
        let filled = |len: usize| -> Result<Buffer, Error> {
            let buffer = Buffer::zeroed(device, len * precision.number().bytes())?;
            let mut state = 1u32;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            };
            let values: Vec<f32> = (0..len).map(|_| next()).collect();
            device.write(Matrix::new(precision.number(), buffer.ptr(), [1, len]), &values)?;
            Ok(buffer)
        };
        let widest = shapes.iter().map(|&(inner, outer, _)| inner.max(outer)).max().unwrap_or(0);
        let map = |&(inner, outer, count): &(usize, usize, usize)| {
            let weights = (0..count).map(|_| filled(inner * outer)).collect::<Result<_, _>>()?;
            Ok((inner, outer, weights))
        };
        Ok(Self {
            device: device.clone(),
            precision,
            rows,
            maps: shapes.iter().map(map).collect::<Result<_, Error>>()?,
            input: filled(rows * widest)?,
            output: filled(rows * widest)?,
        })
    }

    /// Runs them one after another, `rounds` times, and waits for the last.
    pub(crate) fn run(&self, rounds: usize) -> Result<(), Error> {
        let matrix = |buffer: &Buffer, shape| Matrix::new(self.precision.number(), buffer.ptr(), shape);
        for _ in 0..rounds {
            for (inner, outer, weights) in &self.maps {
                for weight in weights {
                    self.device.matmul(Matmul {
                        a: matrix(&self.input, [self.rows, *inner]),
                        a_transposed: false,
                        b: matrix(weight, [*outer, *inner]),
                        b_transposed: true,
                        c: matrix(&self.output, [self.rows, *outer]),
                        accumulate: false,
                        bias: None,
                        tf32: self.precision == Precision::Tf32,
                    })?;
                }
            }
        }
        self.device.synchronize()
    }
}
