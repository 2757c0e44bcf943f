//! Relational knowledge distillation (Park et al., 2019): how the rows of a step lie to each other.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::ObjectiveError;
use super::layers::{Counted, LayerMap};
use super::term::{Term, zero_or_more};
use super::tokens::{BatchRow, Compares, Kind, Needs};
use crate::default::{is_one, one};

/// `weight * (distance * L_D + angle * L_A)` on the first tokens of the rows of a step: the smooth L1 distance between both
/// models' Euclidean distances of two rows, divided by their mean, and between the cosines of the angles of three rows;
/// `RkdDistance` and `RKdAngle` of the authors' code. Models of any two widths can be compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rkd {
    /// Weight of the term.
    weight: f64,
    /// Weight of the distances.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    distance: f64,
    /// Weight of the angles.
    #[serde(default = "two")]
    angle: f64,
    /// Hidden states that are compared.
    #[serde(default = "LayerMap::last")]
    pub(super) layers: LayerMap,
}

fn two() -> f64 {
    2.0
}

impl Term for Rkd {
    fn name(&self) -> &'static str {
        "rkd"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn check(&self) -> Result<(), ObjectiveError> {
        zero_or_more(self.name(), "distance", self.distance)?;
        zero_or_more(self.name(), "angle", self.angle)?;
        match self.distance + self.angle > 0.0 {
            true => Ok(()),
            false => Err(ObjectiveError::NoPart { term: self.name(), parts: "distance and angle" }),
        }
    }

    fn compares(&self) -> Option<Compares<'_>> {
        let (kinds, counted, needs) = (&[Kind::Hidden], Counted::HiddenStates, Needs::Nothing);
        Some(Compares { kinds, layers: &self.layers, counted, needs, first_tokens: true })
    }

    fn couples_rows(&self) -> bool {
        true
    }

    fn token_weight(&self, _: usize) -> f64 {
        1.0
    }

    fn add_batch(&self, mut rows: Vec<BatchRow<'_>>, scale: f64) -> f64 {
        let firsts = |values: &[f32], tokens: usize| -> Vec<f64> {
            values[..values.len() / tokens].iter().map(|value| f64::from(*value)).collect()
        };
        let student: Vec<Vec<f64>> = rows.iter().map(|(row, _)| firsts(row.student[0], row.tokens)).collect();
        let teacher: Vec<Vec<f64>> = rows.iter().map(|(row, _)| firsts(row.teacher[0], row.tokens)).collect();
        let mut gradient: Vec<Vec<f64>> = student.iter().map(|row| vec![0.0; row.len()]).collect();
        let mut loss = 0.0;
        for (weight, part) in [(self.distance, add_distances as Part), (self.angle, add_angles as Part)] {
            if weight > 0.0 {
                loss += weight * part(&student, &teacher, weight, &mut gradient);
            }
        }
        // The objective divides by the number of rows.
        let count = rows.len() as f64;
        for ((_, into), gradient) in rows.iter_mut().zip(gradient) {
            into[0].iter_mut().zip(gradient).for_each(|(into, value)| *into += (scale * count * value) as f32);
        }
        count * loss
    }

    fn words(&self) -> String {
        let Self { weight, distance, angle, layers } = self;
        format!("{weight} × relations between rows ({distance} × distances, {angle} × angles; {layers})")
    }
}

/// Returns a loss, and adds so many times its gradient.
type Part = fn(&[Vec<f64>], &[Vec<f64>], f64, &mut [Vec<f64>]) -> f64;

/// Value and derivative of `torch.nn.SmoothL1Loss` at a difference.
fn smooth_l1(difference: f64) -> (f64, f64) {
    match difference.abs() < 1.0 {
        true => (0.5 * difference * difference, difference),
        false => (difference.abs() - 0.5, difference.signum()),
    }
}

/// The distances of rows, `[B, B]`, and the mean of those above 0, with their number.
fn distances(rows: &[Vec<f64>]) -> (Vec<f64>, f64, f64) {
    let of_pair = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
    let all: Vec<f64> = rows.iter().flat_map(|a| rows.iter().map(move |b| of_pair(a, b))).collect();
    let count = all.iter().filter(|distance| **distance > 0.0).count().max(1) as f64;
    let mean = all.iter().sum::<f64>() / count;
    (all, mean, count)
}

/// The mean over pairs of rows of the smooth L1 distance of distances, both divided by their mean.
fn add_distances(student: &[Vec<f64>], teacher: &[Vec<f64>], weight: f64, gradient: &mut [Vec<f64>]) -> f64 {
    let ((ours, mean, count), (theirs, their_mean, _)) = (distances(student), distances(teacher));
    if mean == 0.0 || their_mean == 0.0 {
        return 0.0;
    }
    let part = 1.0 / ours.len() as f64;
    let parts: Vec<(f64, f64)> =
        ours.iter().zip(&theirs).map(|(ours, theirs)| smooth_l1(ours / mean - theirs / their_mean)).collect();
    // The mean is made of the same distances.
    let of_mean: f64 =
        parts.iter().zip(&ours).map(|((_, d), ours)| part * d * ours).sum::<f64>() / (mean * mean * count);
    for (one, row) in student.iter().enumerate() {
        for (two, other) in student.iter().enumerate() {
            let place = one * student.len() + two;
            if ours[place] == 0.0 {
                continue;
            }
            // Each pair is there twice, the other way round in the other row's turn.
            let by = 2.0 * weight * (part * parts[place].1 / mean - of_mean) / ours[place];
            for ((into, a), b) in gradient[one].iter_mut().zip(row).zip(other) {
                *into += by * (a - b);
            }
        }
    }
    part * parts.iter().map(|(value, _)| value).sum::<f64>()
}

/// Directions from one row to all, and their lengths; a row has none to itself.
fn directions(rows: &[Vec<f64>], from: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let differences =
        rows.iter().map(|row| row.iter().zip(&rows[from]).map(|(to, from)| to - from).collect::<Vec<f64>>());
    differences
        .map(|difference| {
            // As `torch.nn.functional.normalize`.
            let length = dot(&difference, &difference).sqrt().max(1e-12);
            (difference.iter().map(|value| value / length).collect(), length)
        })
        .unzip()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The mean over triples of rows of the smooth L1 distance of the cosines of their angles.
fn add_angles(student: &[Vec<f64>], teacher: &[Vec<f64>], weight: f64, gradient: &mut [Vec<f64>]) -> f64 {
    let count = student.len();
    let part = 1.0 / (count * count * count) as f64;
    // The corner of all angles at one row, with the gradient with respect to the ends of their sides.
    let corner = |at: usize| -> (f64, Vec<Vec<f64>>) {
        let ((ours, lengths), (theirs, _)) = (directions(student, at), directions(teacher, at));
        let mut loss = 0.0;
        let ends = ours.iter().zip(&theirs).zip(&lengths).map(|((side, their_side), length)| {
            let mut d_side = vec![0.0; side.len()];
            for (other, their_other) in ours.iter().zip(&theirs) {
                let (value, derivative) = smooth_l1(dot(side, other) - dot(their_side, their_other));
                loss += part * value;
                // Each pair of sides is there twice.
                d_side.iter_mut().zip(other).for_each(|(into, other)| *into += 2.0 * part * derivative * other);
            }
            let along = dot(side, &d_side);
            d_side.iter_mut().zip(side).for_each(|(into, side)| *into = (*into - along * side) / length);
            d_side
        });
        let ends = ends.collect();
        (loss, ends)
    };
    let corners: Vec<(f64, Vec<Vec<f64>>)> = (0..count).into_par_iter().map(corner).collect();
    let mut loss = 0.0;
    for (at, (of_corner, ends)) in corners.iter().enumerate() {
        loss += of_corner;
        for (end, d_end) in ends.iter().enumerate().filter(|(end, _)| *end != at) {
            for (place, value) in d_end.iter().enumerate() {
                gradient[end][place] += weight * value;
                gradient[at][place] -= weight * value;
            }
        }
    }
    loss
}
