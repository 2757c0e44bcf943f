//! AdamW (Loshchilov and Hutter, 2019) over the flat buffers, one pass over parameters, moments and gradients.

use std::sync::Arc;

use rayon::prelude::*;

use crate::simd::vectorized;
use crate::{Gradients, Layout, Parameters};

/// Scalars that one task updates or adds up: fixed, so that sums do not depend on the thread count.
const TASK: usize = 1 << 16;

/// The optimiser with its moments. Agrees with `torch.optim.AdamW`.
#[derive(Clone, Debug)]
pub struct AdamW {
    layout: Arc<Layout>,
    /// Rate at which matrices and tables shrink; biases and norms do not.
    weight_decay: f64,
    steps: u64,
    first_moment: Vec<f32>,
    second_moment: Vec<f32>,
}

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

impl AdamW {
    /// An optimiser that has taken no step.
    pub fn new(layout: Arc<Layout>, weight_decay: f64) -> Self {
        let zeros = vec![0.0; layout.len()];
        Self { weight_decay, steps: 0, first_moment: zeros.clone(), second_moment: zeros, layout }
    }

    /// An optimiser in the state that [`state`](Self::state) gave. `None` if the moments do not fit the layout.
    pub fn restore(
        layout: Arc<Layout>,
        weight_decay: f64,
        steps: u64,
        first_moment: Vec<f32>,
        second_moment: Vec<f32>,
    ) -> Option<Self> {
        let fits = first_moment.len() == layout.len() && second_moment.len() == layout.len();
        fits.then_some(Self { layout, weight_decay, steps, first_moment, second_moment })
    }

    /// Steps taken, first and second moments: what a checkpoint keeps.
    pub fn state(&self) -> (u64, &[f32], &[f32]) {
        (self.steps, &self.first_moment, &self.second_moment)
    }

    /// Takes a step along `scale` times the gradients, and sets the gradients to zero.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &mut Gradients, learning_rate: f64, scale: f32) {
        self.steps += 1;
        let exponent = self.steps.min(i32::MAX as u64) as i32;
        let rates = Rates {
            scale,
            decay: 1.0,
            step: (learning_rate / (1.0 - BETA_1.powi(exponent))) as f32,
            root_correction: (1.0 / (1.0 - BETA_2.powi(exponent)).sqrt()) as f32,
        };
        let mut rest = (
            parameters.flat_mut(),
            gradients.flat_mut(),
            self.first_moment.as_mut_slice(),
            self.second_moment.as_mut_slice(),
        );
        let mut tasks = Vec::new();
        for entry in self.layout.entries() {
            let decay = if entry.decays() { (1.0 - learning_rate * self.weight_decay) as f32 } else { 1.0 };
            let mut left = entry.range.len();
            while left > 0 {
                let n = left.min(TASK);
                let (parameters, gradients, first, second) = rest;
                let (p, parameters) = parameters.split_at_mut(n);
                let (g, gradients) = gradients.split_at_mut(n);
                let (m, first) = first.split_at_mut(n);
                let (v, second) = second.split_at_mut(n);
                tasks.push((p, g, m, v, Rates { decay, ..rates }));
                rest = (parameters, gradients, first, second);
                left -= n;
            }
        }
        tasks.into_par_iter().for_each(|(p, g, m, v, rates)| update(p, g, m, v, rates));
    }
}

#[derive(Clone, Copy)]
struct Rates {
    scale: f32,
    decay: f32,
    /// Learning rate over the first moment's bias correction.
    step: f32,
    /// One over the root of the second moment's bias correction.
    root_correction: f32,
}

vectorized! {
    fn update(p: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32], rates: Rates) {
        let n = p.len();
        let (g, m, v) = (&mut g[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let gradient = g[i] * rates.scale;
            g[i] = 0.0;
            m[i] += (gradient - m[i]) * (1.0 - BETA_1) as f32;
            v[i] = v[i] * BETA_2 as f32 + gradient * gradient * (1.0 - BETA_2) as f32;
            p[i] = p[i] * rates.decay - rates.step * m[i] / (v[i].sqrt() * rates.root_correction + EPSILON as f32);
        }
    }
}

impl Gradients {
    /// The Euclidean norm over all parameters; not finite if any gradient is not.
    pub fn norm(&self) -> f64 {
        let squares: Vec<f64> = self.flat().par_chunks(TASK).map(sum_of_squares).collect();
        squares.iter().sum::<f64>().sqrt()
    }
}

vectorized! {
    fn sum_of_squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 8];
        let (whole, rest) = values.as_chunks::<8>();
        for chunk in whole {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(value) * f64::from(value);
            }
        }
        lanes.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>()
    }
}
