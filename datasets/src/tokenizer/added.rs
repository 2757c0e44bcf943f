//! Tokens beside the vocabulary's own pieces: as their files write them, and as the `tokenizers` crate takes them.

use serde::Deserialize;
use tokenizers::AddedToken;

/// A token that is found in a text before the text is cut into pieces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Added {
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    /// Whether it is looked for in the normalised text; where nobody says, an ordinary one is and a special one is not.
    pub(super) normalized: Option<bool>,
    #[serde(default)]
    pub(super) special: bool,
}

/// A token is written as its text or as an object with that text in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Written {
    Text(String),
    Object(Added),
}

impl Added {
    /// A special token that says no more than its text.
    pub(super) fn special(content: &str) -> Self {
        Self {
            content: content.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: None,
            special: true,
        }
    }

    pub(super) fn token(&self) -> AddedToken {
        AddedToken {
            content: self.content.clone(),
            single_word: self.single_word,
            lstrip: self.lstrip,
            rstrip: self.rstrip,
            normalized: self.normalized.unwrap_or(!self.special),
            special: self.special,
        }
    }
}

impl Written {
    pub(super) fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Object(Added { content, .. }) => content,
        }
    }

    /// As a special token.
    pub(super) fn special(&self) -> Added {
        match self {
            Self::Text(content) => Added::special(content),
            Self::Object(added) => Added { special: true, ..added.clone() },
        }
    }

    /// As it is written; a text alone is that of a special token.
    pub(super) fn added(&self) -> Added {
        match self {
            Self::Text(content) => Added::special(content),
            Self::Object(added) => added.clone(),
        }
    }
}
