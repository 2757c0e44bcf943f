//! The loss and its gradient.

use super::launch::SoftHardLoss;
use crate::Error;
use crate::cuda::op::sums::launch::SumRows;
use crate::cuda::verify::bench::{Bench, FLOATS, Tolerance, column_sums};

/// Gradients of the loss. Measured: 1.9e-6, where a probability is close to one, and 2.8e-3.
const LOSS_GRADIENT: Tolerance = Tolerance { f32: 5.7e-6, bf16: 8.4e-3 };
/// The loss itself. Measured: 1.7e-6.
const LOSS: Tolerance = Tolerance { f32: 5.1e-6, bf16: 5.1e-6 };

pub(in crate::cuda) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    for (rows, classes) in [(1, 2), (5, 3), (9, 70)] {
        loss(bench, rows, classes)?;
    }
    Ok(())
}

/// Over as many rows as training has.
pub(in crate::cuda) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    loss(bench, 4096, 77)
}

fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = logits.iter().map(|x| ((x - largest) / temperature).exp()).sum::<f64>().ln();
    logits.iter().map(|x| (x - largest) / temperature - log_sum).collect()
}

fn loss(bench: &mut Bench<'_>, rows: usize, classes: usize) -> Result<(), Error> {
    for (with_teacher, with_labels) in [(true, true), (false, true), (true, false)] {
        let shape = format!("rows {rows}, classes {classes}, teacher {with_teacher}, labels {with_labels}");
        let student = bench.floats("student", rows * classes, 3.0)?;
        let teacher = bench.floats("teacher", rows * classes, 3.0)?;
        // The second row has no label.
        let labels: Vec<u32> =
            (0..rows).map(|row| if row == 1 { u32::MAX } else { (row * 5 % classes) as u32 }).collect();
        let labels_buffer = bench.words(&labels)?;
        let (soft_weight, temperature, hard_weight) = (0.3f32, 2.5f32, 0.7f32);
        let d_logits = bench.output(rows * classes)?;
        let row_losses = bench.output_floats(rows * 2)?;
        SoftHardLoss {
            student: student.matrix(classes),
            teacher: with_teacher.then(|| teacher.matrix(classes)),
            labels: with_labels.then(|| labels_buffer.words()),
            soft_weight,
            temperature,
            hard_weight,
            d_logits: d_logits.matrix(classes),
            row_losses: row_losses.matrix(2),
        }
        .launch(bench.device)?;
        let (soft_weight, temperature, hard_weight) =
            (f64::from(soft_weight), f64::from(temperature), f64::from(hard_weight));
        let mut gradients = vec![0.0; rows * classes];
        let mut losses = vec![0.0; rows * 2];
        for row in 0..rows {
            let span = row * classes..(row + 1) * classes;
            let gradient = &mut gradients[span.clone()];
            if with_teacher {
                let softened = log_softmax(&student.values[span.clone()], temperature);
                let goal = log_softmax(&teacher.values[span.clone()], temperature);
                for ((student, teacher), gradient) in softened.iter().zip(&goal).zip(&mut *gradient) {
                    losses[2 * row] += temperature * temperature * teacher.exp() * (teacher - student);
                    *gradient += soft_weight * temperature * (student.exp() - teacher.exp());
                }
            }
            if with_labels && labels[row] != u32::MAX {
                let log_probabilities = log_softmax(&student.values[span], 1.0);
                let label = labels[row] as usize;
                losses[2 * row + 1] -= log_probabilities[label];
                for (class, (log, gradient)) in log_probabilities.iter().zip(gradient).enumerate() {
                    *gradient += hard_weight * (log.exp() - if class == label { 1.0 } else { 0.0 });
                }
            }
        }
        bench.compare("soft_hard_loss", "d_logits", &shape, &d_logits, &gradients, LOSS_GRADIENT)?;
        bench.compare("soft_hard_loss", "row_losses", &shape, &row_losses, &losses, LOSS)?;
        let sums = bench.floats("sums", 2, 1.0)?;
        SumRows { x: row_losses.matrix(2), sums: sums.vector() }.launch(bench.device)?;
        let expected: Vec<f64> = sums.values.iter().zip(column_sums(&losses, 2)).map(|(a, b)| a + b).collect();
        bench.compare("sum_rows", "sums", &shape, &sums, &expected, FLOATS)?;
    }
    Ok(())
}
