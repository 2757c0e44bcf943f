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
    /// A BERT whose embeddings may be narrower than its hidden states.
    Electra,
}

impl StudentFamily {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::DistilBert, Self::Bert, Self::MobileBert, Self::Electra];

    /// The word for it on the command line and in a recipe.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DistilBert => "distilbert",
            Self::Bert => "bert",
            Self::MobileBert => "mobilebert",
            Self::Electra => "electra",
        }
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Self::DistilBert => Family::DISTILBERT,
            Self::Bert => Family::BERT,
            Self::MobileBert => Family::MOBILEBERT,
            Self::Electra => Family::ELECTRA,
        }
    }
}

impl fmt::Display for StudentFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
