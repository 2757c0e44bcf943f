//! Parsers for the values of flags, so that a bad value is refused before any work starts. Most of the allowed ranges
//! are defined in `recipe`.

use std::fmt;

use cache::{Dtype, Quantity};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::recipe::{MOST_SETTINGS, Numbers};

/// The value of `--task`; becomes a [`Task`](crate::tasks::Task).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskName {
    /// One class per text.
    SingleLabel,
    /// The original token at masked positions.
    MaskedLm,
}

impl TaskName {
    pub(super) const ALL: [Self; 2] = [Self::SingleLabel, Self::MaskedLm];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SingleLabel => "single-label",
            Self::MaskedLm => "masked-lm",
        }
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The number formats of stored logits.
pub(super) const STORED_DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

pub(super) fn stored_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        Dtype::Bf16 => "bf16",
    }
}

/// What a mean may be taken of.
pub(super) const QUANTITIES: [Quantity; 2] = [Quantity::Probabilities, Quantity::Logits];

/// The word for it.
pub(super) fn quantity_name(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Probabilities => "probabilities",
        Quantity::Logits => "logits",
    }
}

/// One of several values, each by its name.
pub(super) fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let names = PossibleValuesParser::new(all.iter().map(|&value| name(value)));
    names.try_map(move |word| all.iter().copied().find(|&value| name(value) == word).ok_or("is none of them"))
}

/// A parser for a number in this range.
pub(super) fn number(numbers: Numbers) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| (text.parse().ok()).filter(|&value| (numbers.allow)(value)).ok_or_else(|| numbers.flag.to_owned())
}

/// A whole number, 1 or more.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    (text.parse().ok()).filter(|&count| count >= 1).ok_or("must be a whole number, at least 1".to_owned())
}

/// A whole number of settings that can be searched.
pub(super) fn settings(text: &str) -> Result<usize, String> {
    (text.parse().ok())
        .filter(|count| (2..=MOST_SETTINGS).contains(count))
        .ok_or(format!("must be a whole number from 2 to {MOST_SETTINGS}: the settings that are tried"))
}

/// A whole number, 3 or more: a text needs at least one token between its two special tokens.
pub(super) fn at_least_three(text: &str) -> Result<usize, String> {
    (text.parse().ok())
        .filter(|&count| count >= 3)
        .ok_or("must be a whole number, at least 3: one token between two special ones".to_owned())
}
