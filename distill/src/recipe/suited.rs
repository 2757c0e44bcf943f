//! How long a training is and how fast it learns where nobody says: by the number of rows, the width of the model and what it
//! starts from. docs/measurements.md has what these rules come from.

use super::FitRecipe;
use crate::ui;

/// Learning rate of a trained model [`BASE_WIDTH`] wide: the highest that the authors of BERT fine-tune with (Devlin et al.,
/// 2019, appendix A.3).
const BASE_RATE: f64 = 5e-5;

/// Width of BERT-base.
const BASE_WIDTH: f64 = 768.0;

/// No learning rate is higher by itself.
const HIGHEST_RATE: f64 = 1e-3;

/// How long a training is by itself: enough epochs for so many steps, within bounds.
struct Length {
    steps: usize,
    least_epochs: usize,
    most_epochs: usize,
}

/// A training that starts from trained weights.
const TRAINED: Length = Length { steps: 1000, least_epochs: 3, most_epochs: 40 };

/// One that starts at random.
const RANDOM: Length = Length { steps: 2500, least_epochs: 5, most_epochs: 100 };

/// What a training is of, as far as its defaults depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    /// Training rows.
    pub(crate) rows: usize,
    /// Width of the hidden states.
    pub(crate) width: usize,
    /// Whether the encoder starts from trained weights.
    pub(crate) trained: bool,
}

impl Subject {
    /// The peak.
    fn learning_rate(self) -> f64 {
        let rate = match self.trained {
            true => (BASE_RATE * (BASE_WIDTH / self.width as f64).powi(2)).min(HIGHEST_RATE),
            false => HIGHEST_RATE,
        };
        rounded(rate, 2)
    }
}

impl FitRecipe {
    /// The same with the epochs and the learning rate that suit the training, where they are not given.
    pub(crate) fn suited_to(&self, subject: Subject) -> Self {
        let learning_rate = self.learning_rate.or(Some(subject.learning_rate()));
        Self { learning_rate, ..self.with_epochs_for(subject.rows, subject.trained) }
    }

    /// Passes over the rows; before they are [suited to the training](Self::suited_to), those of one on many rows.
    pub(crate) fn epochs(&self) -> usize {
        self.epochs.unwrap_or(TRAINED.least_epochs)
    }

    /// The peak of the learning rate; before it is suited to the training, that of BERT-base.
    pub(crate) fn learning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or(BASE_RATE)
    }

    /// The peak of the learning rate of projections, which start at random.
    pub(crate) fn projection_learning_rate(&self) -> f64 {
        self.projection_learning_rate.unwrap_or(HIGHEST_RATE)
    }

    /// The same with the epochs that suit so many rows, where none are given.
    pub(super) fn with_epochs_for(&self, rows: usize, trained: bool) -> Self {
        let Length { steps, least_epochs, most_epochs } = if trained { TRAINED } else { RANDOM };
        let epochs = steps.div_ceil(rows.div_ceil(self.batch_rows.max(1)).max(1)).clamp(least_epochs, most_epochs);
        Self { epochs: self.epochs.or(Some(epochs)), ..self.clone() }
    }

    /// The settings that nobody has given, in words; none if all are.
    pub(crate) fn suited_in_words(&self, subject: Subject) -> Option<String> {
        let suited = self.suited_to(subject);
        let Subject { rows, width, trained } = subject;
        let epochs = self.epochs.is_none() && self.max_steps.is_none();
        let of_rows = format!("--epochs {} for {} rows", suited.epochs(), ui::count(rows as u64));
        let start = if trained { "trained weights" } else { "random weights" };
        let of_width = format!("--learning-rate {} for {start} {width} wide", suited.learning_rate());
        let said = [(epochs, of_rows), (self.learning_rate.is_none(), of_width)];
        let said: Vec<String> = said.into_iter().filter(|(said, _)| *said).map(|(_, words)| words).collect();
        (!said.is_empty()).then(|| format!("by default: {}", said.join(", ")))
    }
}

/// So many significant digits, as they are written.
pub(crate) fn rounded(value: f64, digits: usize) -> f64 {
    format!("{value:.*e}", digits.saturating_sub(1)).parse().unwrap_or(value)
}
