//! What a training remembers besides weights, moments and the position in its data.

use serde::{Deserialize, Serialize};

use super::divergence::Divergence;
use super::patience::Patience;
use super::schedule::Plateau;
use super::skipped::Skipped;

/// Part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    /// Of the learning rate.
    pub(super) plateau: Plateau,
    /// Of early stopping.
    pub(super) patience: Patience,
    pub(super) skipped: Skipped,
    pub(super) divergence: Divergence,
    /// Whether it was said that every row is predicted to be of one class.
    pub(super) collapsed: bool,
    /// The share of each term in the gradient when it was last measured.
    pub(super) shares: Vec<(String, f64)>,
}
