//! How many steps a training takes, at which learning rates, and when it evaluates.

use anyhow::Context;

use super::schedule::Schedule;
use crate::recipe::FitRecipe;

/// Number of steps and learning rates.
pub(super) struct Plan {
    pub(super) steps_per_epoch: usize,
    pub(super) total_steps: usize,
    pub(super) schedule: Schedule,
}

impl Plan {
    pub(super) fn new(steps_per_epoch: usize, recipe: &FitRecipe) -> anyhow::Result<Self> {
        let total_steps = match recipe.max_steps {
            Some(steps) => Some(steps),
            None => steps_per_epoch.checked_mul(recipe.epochs()),
        };
        let total_steps = total_steps.filter(|&steps| steps < 1 << 40);
        let total_steps = total_steps.context("so many steps never end; lower --epochs or --max-steps")?;
        if let Some(warmup) = recipe.warmup_steps.filter(|&warmup| warmup > total_steps) {
            anyhow::bail!(
                "--warmup-steps is {warmup}, and the whole training has {total_steps} steps; lower it, or train for longer"
            );
        }
        let schedule = Schedule::new(recipe.schedule(), recipe.learning_rate(), recipe.warmup_ratio, total_steps);
        Ok(Self { steps_per_epoch, total_steps, schedule })
    }

    /// The epoch that the last of so many steps belongs to, from 1.
    pub(super) fn epoch(&self, steps: usize) -> usize {
        steps.div_ceil(self.steps_per_epoch)
    }

    /// Whether there is an evaluation after so many steps.
    pub(super) fn evaluates(&self, steps: usize, recipe: &FitRecipe) -> bool {
        steps.is_multiple_of(self.evaluated_every(recipe)) || steps == self.total_steps
    }

    /// Steps from one evaluation to the next.
    pub(super) fn evaluated_every(&self, recipe: &FitRecipe) -> usize {
        recipe.evaluated_every(self.steps_per_epoch)
    }
}
