//! The best FLOP rate of matrix products on this machine, as an upper limit for the speed of a pass.
//!
//! The products are those of one encoder layer's linear maps. On the CPU they are for [`ROWS`] tokens, one after
//! another on one thread; all threads of the rayon pool do this at the same time, with their own activations and shared
//! weights, like the engine. On a GPU they are for [`GPU_ROWS`] tokens. Nothing else runs between the products,
//! operands are dense, weights are already packed for the kernels, and no buffer moves.

use std::sync::{Mutex, PoisonError};

use crate::cpu::linear::{linear_panels, panels};
use crate::cpu::product::Panels;
use crate::cuda::Products;
use crate::{Compute, EncoderConfig, Error};

/// Tokens of each product on the CPU: the target size of the engine's chunks.
const ROWS: usize = 256;

/// Tokens of each product on a GPU: enough that a larger one would not be faster.
const GPU_ROWS: usize = 16384;

/// The products of one layer, ready to run.
pub struct Ceiling {
    machine: Machine,
    /// Operations of one round.
    flops: u64,
}

enum Machine {
    Cpu(Cores),
    Gpu(Products),
}

impl Ceiling {
    /// Prepares the products of the first layer's linear maps.
    pub fn new(compute: &Compute, config: &EncoderConfig) -> Result<Self, Error> {
        // Inner size, outer size, and how many of them.
        let mut shapes: Vec<(usize, usize, usize)> = Vec::new();
        for (inner, outer) in config.program().layer_products() {
            match shapes.iter_mut().find(|shape| (shape.0, shape.1) == (inner, outer)) {
                Some(shape) => shape.2 += 1,
                None => shapes.push((inner, outer, 1)),
            }
        }
        let of_row: usize = shapes.iter().map(|(inner, outer, count)| 2 * inner * outer * count).sum();
        let flops = |rows: usize| (rows * of_row) as u64;
        Ok(match compute {
            Compute::Cpu => {
                let cores = Cores::new(&shapes);
                let flops = flops(ROWS) * cores.threads.len() as u64;
                Self { machine: Machine::Cpu(cores), flops }
            }
            Compute::Cuda { device, precision } => {
                let products = Products::new(device, *precision, GPU_ROWS, &shapes)?;
                Self { machine: Machine::Gpu(products), flops: flops(GPU_ROWS) }
            }
        })
    }

    /// Floating-point operations of [`run`](Self::run), over all threads.
    pub fn flops(&self, rounds: usize) -> u64 {
        self.flops * rounds as u64
    }

    /// Runs the products `rounds` times, on every thread at once, and returns when all are done.
    pub fn run(&self, rounds: usize) -> Result<(), Error> {
        match &self.machine {
            Machine::Cpu(cores) => cores.run(rounds),
            Machine::Gpu(products) => products.run(rounds)?,
        }
        Ok(())
    }
}

struct Cores {
    shapes: Vec<Shape>,
    threads: Vec<Mutex<Activations>>,
}

/// One kind of product: `[ROWS, inner] x [inner, outer]`, once for each of its weights.
struct Shape {
    inner: usize,
    outer: usize,
    weights: Vec<Panels>,
}

/// What a thread reads and writes.
struct Activations {
    input: Vec<f32>,
    output: Vec<f32>,
}

impl Cores {
    fn new(shapes: &[(usize, usize, usize)]) -> Self {
        let shape = |&(inner, outer, count): &(usize, usize, usize)| {
            let weights = (0..count).map(|_| panels(&filled(inner * outer), inner)).collect();
            Shape { inner, outer, weights }
        };
        let widest = ROWS * shapes.iter().map(|&(inner, outer, _)| inner.max(outer)).max().unwrap_or(0);
        let activations = || Mutex::new(Activations { input: filled(widest), output: vec![0.0; widest] });
        let threads = (0..rayon::current_num_threads()).map(|_| activations()).collect();
        Self { shapes: shapes.iter().map(shape).collect(), threads }
    }

    fn run(&self, rounds: usize) {
        rayon::broadcast(|context| {
            // Each thread has its own, so nobody waits; and a poisoned lock still holds plain numbers.
            let lock = self.threads[context.index()].lock();
            let mut activations = lock.unwrap_or_else(PoisonError::into_inner);
            let Activations { input, output } = &mut *activations;
            for _ in 0..rounds {
                for shape in &self.shapes {
                    for weight in &shape.weights {
                        let (input, output) = (&input[..ROWS * shape.inner], &mut output[..ROWS * shape.outer]);
                        linear_panels(input, weight, ROWS, shape.inner, output);
                    }
                }
            }
        });
    }
}

/// Small values, none of them zero.
fn filled(len: usize) -> Vec<f32> {
    (0..len).map(|i| 0.01 + (i % 7) as f32 * 0.001).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_operations_are_those_that_it_does() {
        let json = serde_json::json!({"model_type": "distilbert", "vocab_size": 9, "dim": 8, "n_layers": 1, "n_heads": 1,
            "hidden_dim": 16, "max_position_embeddings": 4});
        let config = crate::hf::read_config(&json).expect("a model").encoder;
        let expected = 3 * 2 * 256 * (4 * 8 * 8 + 2 * 8 * 16);
        let done = crate::cpu::product::counted(|| {
            let ceiling = Ceiling::new(&Compute::Cpu, &config).expect("a CPU");
            assert_eq!(ceiling.flops(3), expected);
            ceiling.run(3).expect("products");
        });
        assert_eq!(done, expected);
    }
}
