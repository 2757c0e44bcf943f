//! Which weights a training keeps: the best by the validation rows, or the last.

use nn::Model;
use serde::{Deserialize, Serialize};

use crate::recipe::Keep;
use crate::scores::{Evaluated, Scores};

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
    /// On the validation rows; checkpoints of before it counted have none.
    #[serde(default)]
    pub(crate) loss: Option<f64>,
}

impl Kept {
    /// Starts with the best evaluation of a checkpoint, if there is one.
    pub(super) fn new(keep: Keep, best: Option<Best>, parameters: Option<Vec<f32>>) -> Self {
        Self { keep, best, parameters, last: None }
    }

    /// Takes the model's weights if its scores after this epoch are the best so far and that is what is kept.
    pub(super) fn offer(&mut self, model: &mut Model, epoch: usize, evaluated: Evaluated) -> anyhow::Result<()> {
        let Evaluated { scores, loss } = evaluated;
        let offered = Best { epoch, scores: scores.clone(), loss };
        if self.keep == Keep::Best && offered.is_at_least(self.best.as_ref()) {
            self.best = Some(offered);
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

impl Best {
    /// Whether this later evaluation is to be kept in place of the best before: for a better accuracy, or without labels
    /// agreement with the teacher; of equals, for a loss that is not higher.
    fn is_at_least(&self, before: Option<&Self>) -> bool {
        let merit = |best: &Self| best.scores.accuracy.or(best.scores.agreement);
        match (merit(self), before.and_then(|before| Some((merit(before)?, before.loss)))) {
            (Some(new), Some((old, old_loss))) if new == old => match (self.loss, old_loss) {
                (Some(new), Some(old)) => new <= old,
                _ => true,
            },
            (Some(new), Some((old, _))) => new > old,
            (new, None) => new.is_some(),
            (None, Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The epoch that is kept of evaluations by accuracy, agreement and loss.
    fn kept(evaluations: &[(Option<f64>, Option<f64>, Option<f64>)]) -> Option<usize> {
        let mut best: Option<Best> = None;
        for (epoch, &(accuracy, agreement, loss)) in (1..).zip(evaluations) {
            let scores = Scores { rows: 9, labelled: 9, accuracy, macro_f1: None, agreement, ece: None };
            let offered = Best { epoch, scores, loss };
            if offered.is_at_least(best.as_ref()) {
                best = Some(offered);
            }
        }
        best.map(|best| best.epoch)
    }

    #[test]
    fn of_equal_epochs_the_one_with_the_lower_loss_is_kept_then_the_later() {
        let of = |accuracy, loss| (Some(accuracy), Some(0.5), Some(loss));
        assert_eq!(kept(&[of(1.0, 0.9), of(1.0, 0.3), of(1.0, 0.4)]), Some(2));
        assert_eq!(kept(&[of(1.0, 0.9), of(1.0, 0.3), of(1.0, 0.3)]), Some(3));
        assert_eq!(kept(&[of(1.0, 0.9), of(0.9, 0.1)]), Some(1), "the score comes first");
        // By agreement where there are no labels, and as before where a checkpoint knows no loss.
        assert_eq!(
            kept(&[(None, Some(0.8), Some(0.2)), (None, Some(0.8), Some(0.1)), (None, Some(0.7), None)]),
            Some(2)
        );
        assert_eq!(kept(&[(Some(1.0), None, None), (Some(1.0), None, Some(0.4))]), Some(2));
        assert_eq!(kept(&[(None, None, Some(0.1))]), None);
    }
}
