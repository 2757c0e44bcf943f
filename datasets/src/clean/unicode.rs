//! Unicode normalisation: one spelling of what looks alike.

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfkc_quick};

/// A normal form of Unicode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnicodeForm {
    /// Composed: `e` with an accent behind it becomes `é`.
    Nfc,
    /// Also compatible characters: `ﬁ` becomes `fi`, `①` becomes `1`, full-width forms ordinary ones.
    Nfkc,
}

impl UnicodeForm {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Nfc, Self::Nfkc];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nfc => "nfc",
            Self::Nfkc => "nfkc",
        }
    }

    pub(super) fn apply(self, text: &str) -> Option<String> {
        if text.is_ascii() {
            return None;
        }
        let quick = match self {
            Self::Nfc => is_nfc_quick(text.chars()),
            Self::Nfkc => is_nfkc_quick(text.chars()),
        };
        if quick == IsNormalized::Yes {
            return None;
        }
        let normal: String = match self {
            Self::Nfc => text.nfc().collect(),
            Self::Nfkc => text.nfkc().collect(),
        };
        (normal != text).then_some(normal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_those_of_unicode() {
        assert_eq!(UnicodeForm::Nfc.apply("cafe\u{301}").as_deref(), Some("café"));
        assert_eq!(UnicodeForm::Nfc.apply("café ﬁ Ａ"), None);
        assert_eq!(UnicodeForm::Nfkc.apply("ﬁne ① Ａ，\u{a0}x").as_deref(), Some("fine 1 A, x"));
        assert_eq!(UnicodeForm::Nfkc.apply("plain"), None);
    }
}
