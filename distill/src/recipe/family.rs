//! The architectures that a student can have, as flags and recipes name them.

use std::fmt;

use nn::Family;
use serde::{Deserialize, Serialize};

/// The architecture of a student.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StudentFamily {
    /// No token types and no pooler.
    DistilBert,
    /// The structure of a BERT teacher; for smaller teachers.
    Bert,
    /// Narrow layers with a bottleneck.
    MobileBert,
}

impl StudentFamily {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::DistilBert, Self::Bert, Self::MobileBert];

    /// The word for it on the command line and in a recipe.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DistilBert => "distilbert",
            Self::Bert => "bert",
            Self::MobileBert => "mobilebert",
        }
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Self::DistilBert => Family::DISTILBERT,
            Self::Bert => Family::BERT,
            Self::MobileBert => Family::MOBILEBERT,
        }
    }
}

impl fmt::Display for StudentFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
