//! R-Drop (Liang et al., 2021, "R-Drop: Regularized Dropout for Neural Networks"): a row is in a step twice, with
//! different dropout masks, and both predictions should be the same. [`Objective`](super::Objective) averages the other
//! terms over both views and handles weights and division by counts.

use serde::{Deserialize, Serialize};

use super::softmax::log_softmax;
use super::term::{Term, TermRow};

/// `weight * 1/2 * (KL(p || q) + KL(q || p))` between two views of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RDrop {
    /// Weight of the term, the authors' alpha.
    pub(crate) weight: f64,
}

impl Term for RDrop {
    fn name(&self) -> &'static str {
        "r_drop"
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn add_row(&self, row: &TermRow<'_>, scale: f64, gradient: &mut [f64]) -> f64 {
        add_row(row.student, scale, gradient)
    }

    fn words(&self) -> String {
        format!("{} × R-Drop", self.weight)
    }
}

/// Adds `scale` times the gradient of one row to `gradient`, and returns the row's loss,
/// `1/2 * (KL(p || q) + KL(q || p))` with `p` and `q` the softmax of its two views, summed over classes.
///
/// This is the authors' code (<https://github.com/dropreg/R-Drop>), which also averages the cross-entropy over both
/// views; the paper's formula sums it, so that its alpha is worth half as much. Neither view is held constant:
/// with `d = log(p) - log(q)` the gradient is `1/2 * (p * (d - KL(p || q)) + p - q)` for the first view, and for the
/// second the same with `p` and `q` exchanged.
///
/// # Shapes
/// - `views`: `[2, K]`, before softmax, finite
/// - `gradient`: `[2, K]`
fn add_row(views: &[f32], scale: f64, gradient: &mut [f64]) -> f64 {
    let (first, second) = views.split_at(views.len() / 2);
    let (d_first, d_second) = gradient.split_at_mut(first.len());
    let [log_p, log_q]: [Vec<f64>; 2] = [first, second].map(|logits| log_softmax(logits, 1.0).collect());
    add_divergence(&log_p, &log_q, scale, d_first, d_second) + add_divergence(&log_q, &log_p, scale, d_second, d_first)
}

/// Half of `KL(p || q)`, and its gradients with respect to the logits of both.
fn add_divergence(log_p: &[f64], log_q: &[f64], scale: f64, d_p: &mut [f64], d_q: &mut [f64]) -> f64 {
    let pairs = || log_p.iter().zip(log_q);
    let divergence: f64 = pairs().map(|(log_p, log_q)| log_p.exp() * (log_p - log_q)).sum();
    for ((log_p, log_q), (d_p, d_q)) in pairs().zip(d_p.iter_mut().zip(d_q)) {
        *d_p += 0.5 * scale * log_p.exp() * (log_p - log_q - divergence);
        *d_q += 0.5 * scale * (log_q.exp() - log_p.exp());
    }
    0.5 * divergence
}
