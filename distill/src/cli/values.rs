//! Values of flags: each is checked as it is read, so that a bad one is refused before any work starts. What is allowed is
//! said where the values are used: in the recipe for most.

use std::fmt;

use cache::{Dtype, Quantity};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::recipe::Numbers;

/// What a model is to tell of a text, as it is typed; [`Task`](crate::tasks::Task) is what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskName {
    /// Which of several classes it belongs to.
    SingleLabel,
    /// What stood at tokens that are masked.
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

/// A number that is one of these.
pub(super) fn number(numbers: Numbers) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| (text.parse().ok()).filter(|&value| (numbers.allow)(value)).ok_or_else(|| numbers.flag.to_owned())
}

/// A whole number, 1 or more.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    (text.parse().ok()).filter(|&count| count >= 1).ok_or("must be a whole number, at least 1".to_owned())
}

/// A whole number, 3 or more: what a text needs between its two special tokens.
pub(super) fn at_least_three(text: &str) -> Result<usize, String> {
    (text.parse().ok())
        .filter(|&count| count >= 3)
        .ok_or("must be a whole number, at least 3: one token between two special ones".to_owned())
}
