//! Which weights a training keeps: the best by the validation rows, or the last.

use nn::Model;
use serde::{Deserialize, Serialize};

use crate::recipe::Keep;
use crate::scores::Scores;

/// The weights to keep so far.
pub(super) struct Kept {
    keep: Keep,
    best: Option<Best>,
    /// Those of the best evaluation.
    parameters: Option<Vec<f32>>,
    last: Option<Scores>,
}

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// From 1.
    pub(crate) epoch: usize,
    pub(crate) scores: Scores,
}

impl Kept {
    /// Starts with the best evaluation of a checkpoint, if there is one.
    pub(super) fn new(keep: Keep, best: Option<Best>, parameters: Option<Vec<f32>>) -> Self {
        Self { keep, best, parameters, last: None }
    }

    /// Keeps the model's weights if the best are to be kept and these scores are the best so far.
    pub(super) fn offer(&mut self, model: &mut Model, epoch: usize, scores: Scores) -> anyhow::Result<()> {
        if self.keep == Keep::Best && is_better(&scores, self.best.as_ref()) {
            self.best = Some(Best { epoch, scores: scores.clone() });
            self.parameters = Some(model.settle()?.flat().to_vec());
        }
        self.last = Some(scores);
        Ok(())
    }

    /// The best evaluation, for a checkpoint, and its weights.
    pub(super) fn best(&self) -> (Option<Best>, Option<&[f32]>) {
        (self.best.clone(), self.parameters.as_deref())
    }

    /// Gives the model the weights to keep; returns their epoch and scores.
    pub(super) fn settle(self, model: &mut Model, epochs: usize) -> anyhow::Result<(usize, Option<Scores>)> {
        match (self.best, self.parameters) {
            (Some(best), Some(parameters)) => {
                model.set_parameters(&parameters)?;
                Ok((best.epoch, Some(best.scores)))
            }
            _ => {
                model.settle()?;
                Ok((epochs, self.last))
            }
        }
    }
}

/// Whether these scores beat the best ones: by accuracy, or without labels by agreement with the teacher.
fn is_better(scores: &Scores, best: Option<&Best>) -> bool {
    let merit = |scores: &Scores| scores.accuracy.or(scores.agreement);
    match (merit(scores), best.and_then(|best| merit(&best.scores))) {
        (Some(new), Some(old)) => new > old,
        (new, None) => new.is_some(),
        (None, Some(_)) => false,
    }
}
