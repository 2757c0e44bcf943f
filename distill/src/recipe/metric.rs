//! What tells a better evaluation from a worse one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A figure of an evaluation on the validation rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    Accuracy,
    MacroF1,
    /// With the teacher.
    Agreement,
    /// Cross-entropy with the labels, or without labels with the teacher's choices.
    Loss,
    /// Expected calibration error.
    Ece,
}

impl Metric {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Accuracy, Self::MacroF1, Self::Agreement, Self::Loss, Self::Ece];

    /// The word for it on the command line and in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro-f1",
            Self::Agreement => "agreement",
            Self::Loss => "loss",
            Self::Ece => "ece",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
