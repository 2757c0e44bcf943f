//! A learned linear map from a student's hidden states to the width of its teacher's, for terms that compare both (Jiao et al.,
//! 2020, "TinyBERT"). It is trained with the student, kept in checkpoints, and not part of the model.

use nn::matrix::{Into, View, product};
use nn::{Clip, Normal};
use rayon::prelude::*;

/// Tokens, or rows of the weights, that are computed as one task.
const TASK: usize = 64;

/// As of [`nn::AdamW`].
const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// `h W^T + b`, its gradient, and its moments of AdamW.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Projection {
    /// Widths of student and teacher.
    widths: [usize; 2],
    /// `W`, `[teacher, student]`, then `b`.
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    moments: [Vec<f32>; 2],
    steps: u64,
}

impl Projection {
    /// Random weights of deviation `1 / sqrt(student)`, no bias.
    pub(super) fn new(widths: [usize; 2], seed: u64, name: &str) -> Self {
        let [student, teacher] = widths;
        let length = (student + 1) * teacher;
        let mut parameters = vec![0.0; length];
        let mut normal = Normal::new(seed, name, 1.0 / (student as f64).sqrt());
        normal.fill(&mut parameters[..student * teacher]);
        let zeros = vec![0.0; length];
        Self { widths, parameters, gradient: zeros.clone(), moments: [zeros.clone(), zeros], steps: 0 }
    }

    fn weights(&self) -> View<'_> {
        let [student, teacher] = self.widths;
        View::new(&self.parameters, teacher, student, student)
    }

    /// The map of each row.
    ///
    /// # Shapes
    /// - `values`: `[T, student]`; result `[T, teacher]`
    pub(super) fn apply(&self, values: &[f32]) -> Vec<f32> {
        let [student, teacher] = self.widths;
        let bias = &self.parameters[student * teacher..];
        let mut projected = vec![0.0; values.len() / student * teacher];
        let tasks = projected.par_chunks_mut(TASK * teacher).zip(values.par_chunks(TASK * student));
        tasks.for_each(|(projected, values)| {
            projected.chunks_exact_mut(teacher).for_each(|row| row.copy_from_slice(bias));
            let values = View::new(values, values.len() / student, student, student);
            product(values, self.weights().transposed(), 1.0, projected, teacher, Into::Sum);
        });
        projected
    }

    /// Adds to the gradient of the weights, and to that of the values.
    ///
    /// # Shapes
    /// - `values`, `d_values`: `[T, student]`; `d_projected`: `[T, teacher]`
    pub(super) fn add_gradient(&mut self, values: &[f32], d_projected: &[f32], d_values: &mut [f32]) {
        let [student, teacher] = self.widths;
        let tokens = values.len() / student;
        let weights = self.weights();
        let tasks = d_values.par_chunks_mut(TASK * student).zip(d_projected.par_chunks(TASK * teacher));
        tasks.for_each(|(d_values, d_projected)| {
            let d_projected = View::new(d_projected, d_projected.len() / teacher, teacher, teacher);
            product(d_projected, weights, 1.0, d_values, student, Into::Sum);
        });
        let (d_weights, d_bias) = self.gradient.split_at_mut(student * teacher);
        let all = View::new(values, tokens, student, student);
        d_weights.par_chunks_mut(TASK * student).enumerate().for_each(|(task, d_weights)| {
            let columns = View::new(&d_projected[task * TASK..], tokens, d_weights.len() / student, teacher);
            product(columns.transposed(), all, 1.0, d_weights, student, Into::Sum);
        });
        for row in d_projected.chunks_exact(teacher) {
            d_bias.iter_mut().zip(row).for_each(|(d_bias, d_value)| *d_bias += d_value);
        }
    }

    /// Takes a step of AdamW with the clipped gradient, by its own norm, and zeroes it. A gradient that is not finite changes
    /// nothing.
    pub(super) fn step(&mut self, learning_rate: f64, weight_decay: f64, clip: Clip) {
        let norm = self.gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if norm.is_finite() {
            let (factor, limit) = match clip {
                Clip::Norm(most) => ((most / (norm + 1e-6)).min(1.0), f64::INFINITY),
                Clip::Value(most) => (1.0, most),
            };
            self.steps += 1;
            let corrections = BETAS.map(|beta| 1.0 - beta.powi(self.steps.min(1 << 30) as i32));
            let weights = self.widths[0] * self.widths[1];
            let [first, second] = &mut self.moments;
            let moments = first.iter_mut().zip(second);
            for (place, ((value, gradient), (first, second))) in
                self.parameters.iter_mut().zip(&self.gradient).zip(moments).enumerate()
            {
                let gradient = (f64::from(*gradient) * factor).clamp(-limit, limit);
                let decay = if place < weights { 1.0 - learning_rate * weight_decay } else { 1.0 };
                *first = (BETAS[0] * f64::from(*first) + (1.0 - BETAS[0]) * gradient) as f32;
                *second = (BETAS[1] * f64::from(*second) + (1.0 - BETAS[1]) * gradient * gradient) as f32;
                let root = (f64::from(*second) / corrections[1]).sqrt() + EPSILON;
                let moved = learning_rate * f64::from(*first) / corrections[0] / root;
                *value = (f64::from(*value) * decay - moved) as f32;
            }
        }
        self.clear();
    }

    /// Its rows `[teacher, student + 1]`: the weights of a dimension and its bias.
    pub(super) fn rows(&self) -> ([usize; 2], Vec<f32>) {
        let [student, teacher] = self.widths;
        let (weights, bias) = self.parameters.split_at(student * teacher);
        let rows = weights.chunks_exact(student).zip(bias).flat_map(|(row, bias)| row.iter().chain([bias])).copied();
        ([teacher, student + 1], rows.collect())
    }

    /// Starts from such rows, if they are between the same widths.
    pub(super) fn start_from(&mut self, shape: [usize; 2], rows: &[f32]) {
        let [student, teacher] = self.widths;
        if shape != [teacher, student + 1] {
            return;
        }
        let (weights, bias) = self.parameters.split_at_mut(student * teacher);
        let to = weights.chunks_exact_mut(student).zip(bias);
        for ((weights, bias), row) in to.zip(rows.chunks_exact(student + 1)) {
            weights.copy_from_slice(&row[..student]);
            *bias = row[student];
        }
    }

    /// Forgets the gradient.
    pub(super) fn clear(&mut self) {
        self.gradient.fill(0.0);
    }

    /// All that a checkpoint holds of it: its steps, parameters and moments.
    pub(super) fn state(&self) -> (u64, Vec<f32>) {
        (self.steps, [&self.parameters[..], &self.moments[0], &self.moments[1]].concat())
    }

    /// Goes on from such a state; returns the values behind it. `None` if there are too few.
    pub(super) fn restore<'a>(&mut self, steps: u64, state: &'a [f32]) -> Option<&'a [f32]> {
        let length = self.parameters.len();
        let (ours, others) = state.split_at_checked(3 * length)?;
        self.parameters.copy_from_slice(&ours[..length]);
        self.moments[0].copy_from_slice(&ours[length..2 * length]);
        self.moments[1].copy_from_slice(&ours[2 * length..]);
        self.steps = steps;
        Some(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_that_of_pytorch() {
        // torch.nn.Linear(2, 3) with these weights and biases, AdamW(lr=0.1, weight_decay=0.5 on the weights), gradients
        // 0.1, 0.2, .. in the order of weights and biases, two steps.
        let mut projection = Projection::new([2, 3], 1, "test");
        projection.parameters = vec![0.5, -1.0, 2.0, 1.5, 0.25, -0.75, 0.1, -0.2, 0.3];
        for _ in 0..2 {
            projection.gradient = (1..=9).map(|place| place as f32 / 10.0).collect();
            projection.step(0.1, 0.5, Clip::Norm(1e6));
        }
        let expected: [f32; 9] = [0.25625, -1.0975, 1.61, 1.15875, 0.030625, -0.871875, -0.1, -0.4, 0.1];
        for (found, expected) in projection.parameters.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{:?}", projection.parameters);
        }
        assert!(projection.gradient.iter().all(|value| *value == 0.0));
    }

    #[test]
    fn gradients_are_those_of_the_map() {
        let mut projection = Projection::new([3, 2], 7, "test");
        projection.parameters[6..].copy_from_slice(&[0.3, -0.4]);
        let values: Vec<f32> = (0..150 * 3).map(|place| (place as f32 * 0.7).sin()).collect();
        let weights: Vec<f32> = (0..150 * 2).map(|place| (place as f32 * 0.3).cos()).collect();
        // A loss that is linear in the projected values.
        let loss = |projection: &Projection, values: &[f32]| -> f64 {
            projection.apply(values).iter().zip(&weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let mut d_values = vec![0.0; values.len()];
        projection.add_gradient(&values, &weights, &mut d_values);
        for place in [0, 5, 200, 449] {
            let mut moved = values.clone();
            moved[place] += 0.5;
            let difference = (loss(&projection, &moved) - loss(&projection, &values)) / 0.5;
            assert!((difference - f64::from(d_values[place])).abs() < 1e-4, "value {place}");
        }
        for place in 0..8 {
            let mut moved = projection.clone();
            moved.parameters[place] += 0.5;
            let difference = (loss(&moved, &values) - loss(&projection, &values)) / 0.5;
            assert!((difference - f64::from(projection.gradient[place])).abs() < 1e-3, "parameter {place}");
        }
    }

    #[test]
    fn rows_are_a_start_for_a_map_between_the_same_widths() {
        let ours = Projection::new([3, 2], 7, "test");
        let (shape, rows) = ours.rows();
        assert_eq!((shape, rows.len()), ([2, 4], 8));
        let started = |widths: [usize; 2]| {
            let mut other = Projection::new(widths, 8, "test");
            other.parameters.iter_mut().for_each(|value| *value += 1.0);
            other.start_from(shape, &rows);
            other
        };
        assert_eq!(started([3, 2]), ours);
        assert_eq!(started([2, 2]).parameters[0], Projection::new([2, 2], 8, "test").parameters[0] + 1.0);
    }

    #[test]
    fn a_state_goes_on_and_leaves_what_is_behind_it() {
        let mut ours = Projection::new([3, 2], 7, "test");
        ours.gradient.fill(0.5);
        ours.step(0.1, 0.0, Clip::Value(0.2));
        let (steps, state) = ours.state();
        let mut other = Projection::new([3, 2], 8, "test");
        let behind = [&state[..], &[1.0]].concat();
        assert_eq!(other.restore(steps, &behind), Some(&[1.0][..]));
        assert_eq!(other, ours);
        assert_eq!(other.restore(steps, &state[1..]), None);
    }
}
