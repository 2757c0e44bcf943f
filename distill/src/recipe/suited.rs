//! How long a training is and how fast it learns where nobody says: by the number of rows, the width of the model and what it
//! starts from. docs/measurements.md has what these rules come from.

use super::FitRecipe;
use crate::ui;

/// Learning rate of a trained model [`BASE_WIDTH`] wide: the highest that the authors of BERT fine-tune with (Devlin et al.,
/// 2019, appendix A.3).
const BASE_RATE: f64 = 5e-5;

/// Width of BERT-base.
const BASE_WIDTH: f64 = 768.0;

/// No learning rate is higher by itself. It is that of random weights up to [`NARROW`], and falls with the width above.
const HIGHEST_RATE: f64 = 1e-3;

const NARROW: f64 = 128.0;

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
            false => HIGHEST_RATE * (NARROW / self.width as f64).min(1.0),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn suited(rows: usize, width: usize, trained: bool) -> (usize, f64) {
        let fit = FitRecipe::DEFAULT.suited_to(Subject { rows, width, trained });
        (fit.epochs(), fit.learning_rate())
    }

    #[test]
    fn epochs_follow_the_rows_and_rates_the_width() {
        // 770 rows are 25 steps of 32, 9,000 are 282.
        assert_eq!(suited(770, 384, true), (40, 2e-4));
        assert_eq!(suited(9000, 768, true), (4, 5e-5));
        assert_eq!(suited(1_000_000, 1024, true), (3, 2.8e-5));
        assert_eq!(suited(1, 32, true), (40, 1e-3));
        assert_eq!(suited(9000, 128, false), (9, 1e-3));
        assert_eq!(suited(100, 384, false), (100, 3.3e-4));
        assert_eq!(suited(1_000_000, 768, false), (5, 1.7e-4));
    }

    #[test]
    fn what_is_given_stays_and_is_not_said() {
        let subject = Subject { rows: 1500, width: 384, trained: true };
        let given = FitRecipe { epochs: Some(2), learning_rate: Some(1e-5), ..FitRecipe::DEFAULT };
        assert_eq!((given.suited_to(subject), given.suited_in_words(subject)), (given.clone(), None));
        let rate = FitRecipe { epochs: None, ..given.clone() };
        assert_eq!(rate.suited_in_words(subject).expect("words"), "by default: --epochs 22 for 1,500 rows");
        let steps = FitRecipe { learning_rate: None, max_steps: Some(9), ..rate };
        let words = steps.suited_in_words(subject).expect("words");
        assert_eq!(words, "by default: --learning-rate 0.0002 for trained weights 384 wide");
    }
}
