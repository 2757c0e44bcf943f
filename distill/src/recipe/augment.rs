//! Ways to make new texts of those there are, for the teacher to answer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::checks::{Check, PART, refuse};

/// A way to make new texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub(crate) enum AugmentRecipe {
    /// Exchanges words.
    Swap(OfWords),
    /// Leaves words out.
    Delete(OfWords),
    /// Puts words of the data in.
    Insert(OfWords),
    /// Puts words of the data in the place of others.
    Replace(OfWords),
    /// Hides words behind the teacher's mask token.
    Mask(OfWords),
    /// Exchanges, leaves out and doubles characters.
    Characters(OfWords),
    /// Hits keys beside the right ones.
    Keyboard(OfWords),
    /// Takes characters for others that look alike.
    Ocr(OfWords),
    /// Takes some words that stand in a row.
    Fragment(OfTexts),
    /// Puts sentences in another order.
    Sentences(OfTexts),
    /// Puts the end of another text behind the beginning.
    Recombine(OfTexts),
    /// Puts synonyms in the place of words.
    Synonyms(OfSynonyms),
    /// Puts phrases in the place of others that mean the same.
    Rules(OfFile),
    /// Fills templates.
    Templates(OfTemplates),
}

/// Settings of a way that changes some words of a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfWords {
    /// Variants of each row.
    #[serde(default = "one")]
    pub(crate) copies: usize,
    /// Part of the words of a text, at least one word.
    #[serde(default = "a_tenth")]
    pub(crate) rate: f64,
}

/// Settings of a way that takes texts apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfTexts {
    #[serde(default = "one")]
    pub(crate) copies: usize,
}

/// Settings of replacement by synonyms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfSynonyms {
    /// A folder with WordNet's database, or a file with a word and its synonyms on each line.
    pub(crate) file: PathBuf,
    #[serde(default = "one")]
    pub(crate) copies: usize,
    #[serde(default = "a_tenth")]
    pub(crate) rate: f64,
}

/// Settings of replacement by rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfFile {
    /// In TOML, `rules`: lists of phrases that mean the same.
    pub(crate) file: PathBuf,
    #[serde(default = "one")]
    pub(crate) copies: usize,
}

/// Settings of templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfTemplates {
    /// In TOML, `templates` and `[slots]`.
    pub(crate) file: PathBuf,
    /// Texts to make at most.
    #[serde(default = "a_thousand")]
    pub(crate) count: usize,
}

const COPIES: &str = "data.augment.copies";

const fn one() -> usize {
    1
}

const fn a_tenth() -> f64 {
    0.1
}

const fn a_thousand() -> usize {
    1000
}

impl AugmentRecipe {
    /// Its name, as it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Swap(_) => "swap",
            Self::Delete(_) => "delete",
            Self::Insert(_) => "insert",
            Self::Replace(_) => "replace",
            Self::Mask(_) => "mask",
            Self::Characters(_) => "characters",
            Self::Keyboard(_) => "keyboard",
            Self::Ocr(_) => "ocr",
            Self::Fragment(_) => "fragment",
            Self::Sentences(_) => "sentences",
            Self::Recombine(_) => "recombine",
            Self::Synonyms(_) => "synonyms",
            Self::Rules(_) => "rules",
            Self::Templates(_) => "templates",
        }
    }

    /// Variants of each row; templates are no variants.
    pub(crate) fn copies(&self) -> usize {
        let (key, count, _) = self.settings();
        if key == COPIES { count } else { 0 }
    }

    /// The allowed values.
    pub(super) fn checks(&self) -> [Check; 2] {
        let (key, count, rate) = self.settings();
        [Check::Size(key, Some(count)), Check::Number("data.augment.rate", rate, PART)]
    }

    /// How many texts it makes, under which key, and of how large a part of the words.
    fn settings(&self) -> (&'static str, usize, f64) {
        match self {
            Self::Swap(words)
            | Self::Delete(words)
            | Self::Insert(words)
            | Self::Replace(words)
            | Self::Mask(words)
            | Self::Characters(words)
            | Self::Keyboard(words)
            | Self::Ocr(words) => (COPIES, words.copies, words.rate),
            Self::Fragment(texts) | Self::Sentences(texts) | Self::Recombine(texts) => {
                (COPIES, texts.copies, a_tenth())
            }
            Self::Synonyms(synonyms) => (COPIES, synonyms.copies, synonyms.rate),
            Self::Rules(rules) => (COPIES, rules.copies, a_tenth()),
            Self::Templates(templates) => ("data.augment.count", templates.count, a_tenth()),
        }
    }
}

/// Refuses values that are not allowed, and a way that is given twice, whose texts would be the same.
pub(crate) fn check(ways: &[AugmentRecipe]) -> anyhow::Result<()> {
    refuse(&ways.iter().flat_map(AugmentRecipe::checks).collect::<Vec<_>>())?;
    for (number, way) in ways.iter().enumerate() {
        if ways[..number].iter().any(|other| other.name() == way.name()) && !matches!(way, AugmentRecipe::Templates(_))
        {
            anyhow::bail!(
                "`{}` is given twice, and would make the same texts again: give it more `copies`",
                way.name()
            );
        }
    }
    Ok(())
}

impl FromStr for AugmentRecipe {
    type Err = String;

    /// The name with the keys of a recipe, such as `swap,copies=2,rate=0.2`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, keys) = text.split_once(',').unwrap_or((text, ""));
        let quoted = |pair: &str| match pair.split_once('=') {
            Some(("file", path)) if !path.starts_with(['"', '\'']) => format!("file={path:?}"),
            _ => pair.to_owned(),
        };
        let keys: Vec<String> = keys.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(quoted).collect();
        let keys: String = keys.iter().map(|pair| format!(", {pair}")).collect();
        let read =
            toml::from_str::<BTreeMap<String, Self>>(&format!("of_flag = {{ method = {:?}{keys} }}", name.trim()));
        let mut read = read.map_err(|error| error.message().to_owned())?;
        let method = read.remove("of_flag").ok_or_else(|| "no method".to_owned())?;
        refuse(&method.checks()).map_err(|error| error.to_string())?;
        Ok(method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_typed_as_they_stand_in_a_recipe() {
        let read = |text: &str| text.parse::<AugmentRecipe>();
        assert_eq!(read("swap"), Ok(AugmentRecipe::Swap(OfWords { copies: 1, rate: 0.1 })));
        assert_eq!(read("delete, copies=3,rate=0.2"), Ok(AugmentRecipe::Delete(OfWords { copies: 3, rate: 0.2 })));
        let file = PathBuf::from("a b/rules.toml");
        assert_eq!(read("rules,file=a b/rules.toml"), Ok(AugmentRecipe::Rules(OfFile { file, copies: 1 })));
        assert_eq!(check(&[]).map_err(|error| error.to_string()), Ok(()));
        let twice = check(&[read("swap").expect("a way"), read("swap,rate=0.5").expect("a way")]);
        assert!(twice.expect_err("twice").to_string().contains("`swap` is given twice"));
        for (text, expected) in [
            ("templates,file=a,count=0", "data.augment.count is 0"),
            ("swop", "unknown variant `swop`"),
            ("swap,rate=0", "data.augment.rate is 0"),
            ("swap,copies=0", "data.augment.copies is 0"),
            ("recombine,rate=0.1", "unknown field `rate`"),
            ("synonyms", "missing field `file`"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{error}");
        }
    }
}
