//! Steps that changed nothing, since their gradient or loss was not finite.

use serde::{Deserialize, Serialize};

use super::step::Outcome;
use crate::ui;

/// So many in a row are no accident.
const MOST_IN_A_ROW: usize = 10;

/// Nothing but skipped steps any more.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "step {step}: the {what} is {value}, for the {MOST_IN_A_ROW}th time in a row; lower --learning-rate, or check the data"
)]
pub(crate) struct Diverged {
    /// From 1.
    step: usize,
    what: &'static str,
    value: f64,
}

/// Skipped steps so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    total: usize,
    in_a_row: usize,
}

impl Skipped {
    /// Counts a step if it was skipped; says so of the first, and ends a training in which nothing else happens.
    pub(super) fn count(&mut self, outcome: &Outcome) -> Result<(), Diverged> {
        let figures = [("gradient's norm", outcome.gradient_norm), ("loss", outcome.loss.total())];
        let Some((what, value)) = figures.into_iter().find(|(_, value)| !value.is_finite()) else {
            self.in_a_row = 0;
            return Ok(());
        };
        self.total += 1;
        self.in_a_row += 1;
        let step = outcome.step + 1;
        if self.in_a_row >= MOST_IN_A_ROW {
            return Err(Diverged { step, what, value });
        }
        if self.total == 1 {
            ui::say(format!("step {step}: the {what} is {value}; such steps are skipped and counted"));
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn total(&self) -> usize {
        self.total
    }
}
