//! Which weights a training keeps: the best by the validation rows, or the last.

use nn::Model;
use serde::{Deserialize, Serialize};

use crate::recipe::{Keep, Metric};
use crate::scores::{Evaluated, Scores};
use std::sync::Arc;

/// The weights to keep so far.
pub(super) struct Kept {
    keep: Keep,
    metric: Option<Metric>,
    best: Option<Best>,
    /// Those of the best evaluation.
    parameters: Option<Arc<Vec<f32>>>,
    last: Option<(Scores, Option<f64>)>,
}

/// The weights that were kept.
pub(super) struct Settled {
    /// From 1.
    pub(super) epoch: usize,
    /// Optimiser steps taken until then.
    pub(super) step: usize,
    pub(super) scores: Option<Scores>,
    /// On the validation rows.
    pub(super) loss: Option<f64>,
}

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// From 1.
    pub(crate) epoch: usize,
    /// Optimiser steps taken; older checkpoints do not say.
    #[serde(default)]
    pub(crate) step: usize,
    pub(crate) scores: Scores,
    /// On the validation rows; checkpoints of before it counted have none.
    #[serde(default)]
    pub(crate) loss: Option<f64>,
}

impl Kept {
    /// Starts with the best evaluation of a checkpoint, if there is one.
    pub(super) fn new(keep: Keep, metric: Option<Metric>, best: Option<Best>, parameters: Option<Vec<f32>>) -> Self {
        Self { keep, metric, best, parameters: parameters.map(Arc::new), last: None }
    }

    /// Takes the model's weights if its scores after so many steps, in this epoch, are the best so far and that is what is
    /// kept.
    pub(super) fn offer(
        &mut self,
        model: &mut Model,
        [step, epoch]: [usize; 2],
        evaluated: Evaluated,
    ) -> anyhow::Result<()> {
        let Evaluated { scores, loss, .. } = evaluated;
        let offered = Best { epoch, step, scores: scores.clone(), loss };
        if self.keep == Keep::Best && offered.is_at_least(self.best.as_ref(), self.metric) {
            self.best = Some(offered);
            let weights = model.settle()?.flat();
            // In the place of those before, unless a checkpoint of them is being written.
            match self.parameters.as_mut().and_then(Arc::get_mut) {
                Some(kept) => kept.copy_from_slice(weights),
                None => self.parameters = Some(Arc::new(weights.to_vec())),
            }
        }
        self.last = Some((scores, loss));
        Ok(())
    }

    /// The best evaluation, for a checkpoint, and its weights.
    pub(super) fn best(&self) -> (Option<Best>, Option<Arc<Vec<f32>>>) {
        (self.best.clone(), self.parameters.clone())
    }

    /// Gives the model the weights to keep. It is after `step` now, in `epoch`.
    pub(super) fn settle(self, model: &mut Model, [step, epoch]: [usize; 2]) -> anyhow::Result<Settled> {
        match (self.best, self.parameters) {
            (Some(best), Some(parameters)) => {
                model.set_parameters(&parameters)?;
                let Best { step, epoch, scores, loss } = best;
                Ok(Settled { step, epoch, scores: Some(scores), loss })
            }
            _ => {
                model.settle()?;
                let (scores, loss) = self.last.map_or((None, None), |(scores, loss)| (Some(scores), loss));
                Ok(Settled { step, epoch, scores, loss })
            }
        }
    }
}

/// How good an evaluation is by a metric, more for a better one; `None` where it does not have it.
pub(crate) fn merit(metric: Option<Metric>, scores: &Scores, loss: Option<f64>) -> Option<f64> {
    match metric {
        None => scores.accuracy.or(scores.agreement),
        Some(Metric::Loss) => loss.map(|loss| -loss),
        Some(Metric::Ece) => scores.ece.map(|error| -error),
        Some(metric) => scores.get(metric),
    }
}

impl Best {
    /// Whether this later evaluation is to be kept in place of the best before: for a better score; of equals, for a loss
    /// that is not higher.
    fn is_at_least(&self, before: Option<&Self>, metric: Option<Metric>) -> bool {
        let merit = |best: &Self| merit(metric, &best.scores, best.loss);
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
        kept_by(None, evaluations)
    }

    fn kept_by(metric: Option<Metric>, evaluations: &[(Option<f64>, Option<f64>, Option<f64>)]) -> Option<usize> {
        let mut best: Option<Best> = None;
        for (epoch, &(accuracy, agreement, loss)) in (1..).zip(evaluations) {
            let step = 10 * epoch;
            let scores = Scores { rows: 9, labelled: 9, accuracy, macro_f1: None, agreement, ece: None };
            let offered = Best { epoch, step, scores, loss };
            if offered.is_at_least(best.as_ref(), metric) {
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
        let evaluations = [of(0.8, 0.3), of(0.9, 0.5), (Some(0.7), Some(0.9), Some(0.2)), of(0.6, 0.4)];
        assert_eq!(kept_by(Some(Metric::Loss), &evaluations), Some(3), "a lower loss is better");
        assert_eq!(kept_by(Some(Metric::Agreement), &evaluations), Some(3));
        assert_eq!(kept_by(Some(Metric::Accuracy), &evaluations), Some(2));
        assert_eq!(kept_by(Some(Metric::MacroF1), &evaluations), None, "nobody measured it");
    }
}
