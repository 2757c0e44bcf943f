//! Spelling: a word that no dictionary has becomes the most frequent one that is like it, with care.
//!
//! Touched are words of four and more small Latin letters that stand by themselves. Left alone is what the dictionary or the
//! tokenizer knows as a whole word, and names, abbreviations and all else with a capital, a digit, an apostrophe or a hyphen in it.

use crate::Error;
use crate::tokenizer::TextTokenizer;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use symspell::{SymSpell, SymSpellBuilder, UnicodeStringStrategy, Verbosity};

/// Letters of a word that is corrected at all, and of one in which two letters may be wrong.
const SHORTEST: usize = 4;
const LONG: usize = 7;
const LONGEST: usize = 32;

/// Words whose correction is remembered, so that a misspelling is looked up once and not in each of its rows.
const SHARDS: usize = 64;
const REMEMBERED: usize = 4096;

/// A frequency dictionary, and what is remembered of it.
pub struct Spelling {
    dictionary: SymSpell<UnicodeStringStrategy>,
    words: HashSet<Box<str>>,
    tokenizer: Option<TextTokenizer>,
    remembered: [Mutex<Remembered>; SHARDS],
}

/// Words, with their corrections where there are any.
type Remembered = HashMap<Box<str>, Option<Box<str>>>;

impl Spelling {
    /// Reads a dictionary: on each line a word, a blank or a tab, and how often it occurs. With a tokenizer, words that are one
    /// token of it count as known.
    ///
    /// # Errors
    /// A file that cannot be read, or a line of another form.
    pub fn read(path: &Path, tokenizer: Option<TextTokenizer>) -> Result<Self, Error> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|cause| Error::Open { file: file.clone(), cause })?;
        // Two letters may be wrong; prefixes of seven are what the authors of SymSpell recommend.
        let mut dictionary: SymSpell<UnicodeStringStrategy> = SymSpellBuilder::default()
            .max_dictionary_edit_distance(2)
            .prefix_length(7)
            .count_threshold(1)
            .build()
            .unwrap_or_default();
        let mut words = HashSet::new();
        for (line, entry) in text.lines().enumerate() {
            let entry = entry.trim_start_matches('\u{feff}').trim();
            if entry.is_empty() {
                continue;
            }
            let split = entry.rsplit_once([' ', '\t']).map(|(word, count)| (word.trim(), count.trim()));
            let counted = split.filter(|(word, count)| !word.is_empty() && count.parse::<u64>().is_ok());
            let (word, count) = counted.ok_or_else(|| Error::Dictionary {
                file: file.clone(),
                line: line + 1,
                expected: "a word, a blank or a tab, and how often it occurs",
            })?;
            let word = word.to_lowercase();
            // Nothing else would be a correction of a Latin word.
            if word.chars().all(is_latin) {
                dictionary.load_dictionary_line(&format!("{word}\t{count}"), 0, 1, "\t");
            }
            words.insert(word.into_boxed_str());
        }
        if words.is_empty() {
            return Err(Error::NoRows { file });
        }
        Ok(Self { dictionary, words, tokenizer, remembered: std::array::from_fn(|_| Mutex::default()) })
    }

    pub(super) fn apply(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut done = 0;
        for (start, word) in words(text) {
            if let Some(correction) = self.correction(word) {
                out.push_str(&text[done..start]);
                out.push_str(&correction);
                done = start + word.len();
            }
        }
        (done > 0).then(|| out + &text[done..])
    }

    /// What a word should be; `None` where it is left alone.
    fn correction(&self, word: &str) -> Option<Box<str>> {
        if self.words.contains(word) {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        word.hash(&mut hasher);
        let shard = &self.remembered[hasher.finish() as usize % SHARDS];
        let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(word) {
            return known.clone();
        }
        let found = self.look_up(word);
        let mut remembered = lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(word.into(), found.clone());
        found
    }

    fn look_up(&self, word: &str) -> Option<Box<str>> {
        if self.tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.is_whole_word(word)) {
            return None;
        }
        let wrong = if word.chars().count() < LONG { 1 } else { 2 };
        let found = self.dictionary.lookup(word, Verbosity::Top, wrong);
        found.first().filter(|found| found.term != word).map(|found| found.term.clone().into())
    }
}

/// The words of a text that may be corrected, with where they begin. Between spaces nothing but punctuation may stand around
/// one, so that neither parts of addresses nor of `and/or` are words.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_whitespace().filter_map(|chunk| {
        let word = chunk
            .trim_matches(|c: char| matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '"' | '(' | ')' | '“' | '”' | '…'));
        let length = word.chars().count();
        let plain = (SHORTEST..=LONGEST).contains(&length) && word.chars().all(|c| is_latin(c) && c.is_lowercase());
        plain.then(|| (word.as_ptr() as usize - text.as_ptr() as usize, word))
    })
}

fn is_latin(c: char) -> bool {
    c.is_alphabetic() && (c.is_ascii() || matches!(c, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::TokenizerFiles;

    const WORDS: &str =
        "the 1000\nplease 50\ncard 400\narrived 90\nbalance 80\nbalances 3\ntransfer 70\nwhere 60\nüber 20\n";

    fn spelling(words: &str, tokenizer: Option<TextTokenizer>) -> Result<Spelling, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("words.txt");
        fs::write(&path, words).expect("writes");
        Spelling::read(&path, tokenizer)
    }

    #[test]
    fn misspelt_words_are_corrected_and_nothing_else() {
        let found = spelling(WORDS, None).expect("reads");
        for (text, expected) in [
            ("wehre is my carrd? plaese!", "where is my card? please!"),
            ("the balence, and my tranfser.", "the balance, and my transfer."),
            ("(arived)", "(arrived)"),
        ] {
            assert_eq!(found.apply(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "the card arrived",
            "Carrd CARRD carrD",
            "card5 4card 12345",
            "don'y car-d",
            "x/carrd carrd.com @carrd",
            "crd teh",
            "карта 卡片",
            "xylophone",
            // Two letters may be wrong in a long word, one in a short one.
            "caxxd",
        ] {
            assert_eq!(found.apply(text), None, "{text}");
        }
    }

    #[test]
    fn what_the_tokenizer_knows_as_a_word_is_known() {
        let vocabulary = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncarrd\nbalen\n##ce\n";
        let files = TokenizerFiles {
            vocab_txt: Some(std::borrow::Cow::Borrowed(&vocabulary[..])),
            ..TokenizerFiles::default()
        };
        let tokenizer = TextTokenizer::from_files(&files).expect("a tokenizer");
        let found = spelling(WORDS, Some(tokenizer)).expect("reads");
        assert_eq!(found.apply("carrd balence"), Some("carrd balance".to_owned()));
    }

    #[test]
    fn other_files_are_refused_with_the_line() {
        let refused = |words: &str| spelling(words, None).err().expect("refused").to_string();
        assert!(refused("the 10\nword\n").contains("words.txt, line 2: expected a word, a blank or a tab"));
        assert!(refused("the many\n").contains("line 1"));
        assert!(refused("\n").contains("holds no rows"));
    }
}
