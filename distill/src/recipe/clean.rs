//! `[data.clean]`: which steps clean the training rows.

use std::path::PathBuf;

use anyhow::bail;
use datasets::{Language, Links, UnicodeForm};
use serde::{Deserialize, Serialize};

use crate::default::is_default;

/// The steps that are asked for; the flags of `data clean` mean the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CleanRecipe {
    /// Rows that cannot be read are skipped, instead of the first being an error.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) skip_bad_rows: bool,
    /// What suits nearly any data set: see [`CleanRecipe::resolved`].
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) usual: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) html: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mojibake: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) control_characters: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) full_width: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) unicode: Option<UnicodeForm>,
    /// Dictionaries of OpenCC.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) chinese: Vec<PathBuf>,
    /// What stands for a URL.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) urls: Option<String>,
    /// What stands for an e-mail address.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) emails: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) whitespace: bool,
    /// A frequency dictionary.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) spelling: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) min_characters: Option<usize>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max_characters: Option<usize>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) min_tokens: Option<usize>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max_unknown: Option<f64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) languages: Vec<String>,
    /// Rows that stand in the validation or test data too.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) shared: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) duplicates: bool,
    /// The similarity from which on a row is dropped.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) near_duplicates: Option<f64>,
}

impl CleanRecipe {
    /// With what `usual` stands for: everything that repairs a text without changing what it says, and rows that stand there
    /// already or in another split.
    pub(crate) fn resolved(&self) -> Self {
        let usual = self.usual;
        Self {
            usual: false,
            html: usual || self.html,
            mojibake: usual || self.mojibake,
            control_characters: usual || self.control_characters,
            unicode: self.unicode.or(usual.then_some(UnicodeForm::Nfc)),
            whitespace: usual || self.whitespace,
            shared: usual || self.shared,
            duplicates: usual || self.duplicates,
            ..self.clone()
        }
    }

    /// Whether a step counts tokens.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.min_tokens.or(self.max_tokens).is_some() || self.max_unknown.is_some()
    }

    /// An error where no step is asked for, or one that makes no sense.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.resolved() == (Self { skip_bad_rows: self.skip_bad_rows, ..Self::default() }) {
            bail!("no step of cleaning is asked for; --usual (`usual = true`) has those that suit nearly any data set");
        }
        for (what, least, most) in
            [("characters", self.min_characters, self.max_characters), ("tokens", self.min_tokens, self.max_tokens)]
        {
            if let (Some(least), Some(most)) = (least, most)
                && least > most
            {
                bail!("at least {least} and at most {most} {what}: no text is both; swap the two");
            }
        }
        for (name, part) in [("max_unknown", self.max_unknown), ("near_duplicates", self.near_duplicates)] {
            if let Some(part) = part.filter(|part| !(0.0..=1.0).contains(part)) {
                bail!("{name} is {part}, expected a number from 0 to 1");
            }
        }
        if self.near_duplicates.is_some_and(|part| part < 0.3) {
            bail!("near_duplicates below 0.3 finds texts that have little in common; 0.8 suits most data sets");
        }
        if let Some(token) = [&self.urls, &self.emails].into_iter().flatten().find(|token| Links::is_link(token)) {
            bail!("`{token}` is itself a link, which nothing can stand for; choose a word such as [URL]");
        }
        Ok(self.languages.iter().try_for_each(|name| Language::named(name).map(|_| ()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str) -> String {
        toml::from_str::<CleanRecipe>(toml).expect("parses").check().expect_err("refused").to_string()
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(refused("").contains("no step of cleaning is asked for; --usual"));
        assert!(refused("min_tokens = 9\nmax_tokens = 8").contains("at least 9 and at most 8 tokens"));
        assert!(refused("near_duplicates = 1.5").contains("near_duplicates is 1.5, expected a number from 0 to 1"));
        assert!(refused("near_duplicates = 0.1").contains("0.8 suits most"));
        assert!(refused("urls = 'http://x.org'").contains("is itself a link"));
        assert!(refused("languages = ['klingon']").contains("`klingon` cannot be told"));
        assert!(CleanRecipe { usual: true, ..CleanRecipe::default() }.check().is_ok());
    }
}
