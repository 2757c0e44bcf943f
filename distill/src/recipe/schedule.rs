//! The curve of the learning rate.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScheduleKind {
    /// Stays at its peak.
    Constant,
    /// Falls along a line.
    #[default]
    Linear,
    /// Falls along half a cosine, again after each restart.
    Cosine,
    /// Falls with the inverse square root of the step.
    InverseSqrt,
    /// Rises and falls along cosines, far below where it started (Smith and Topin, 2018).
    OneCycle,
    /// Stays until an evaluation's score no longer rises, and falls by a factor.
    Plateau,
}

impl ScheduleKind {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Constant, Self::Linear, Self::Cosine, Self::InverseSqrt, Self::OneCycle, Self::Plateau];

    /// The word for it on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::InverseSqrt => "inverse-sqrt",
            Self::OneCycle => "one-cycle",
            Self::Plateau => "plateau",
        }
    }
}

impl fmt::Display for ScheduleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A curve with all that shapes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ScheduleRecipe {
    pub(crate) kind: ScheduleKind,
    /// Part of the peak that the rate never falls below.
    pub(crate) floor: f64,
    /// Of a cosine.
    pub(crate) restarts: usize,
    /// `None` for a ratio of all steps.
    pub(crate) warmup_steps: Option<usize>,
    /// Evaluations without a gain that a plateau has before the rate falls.
    pub(crate) plateau_patience: usize,
    /// What the rate is multiplied by then.
    pub(crate) plateau_factor: f64,
}
