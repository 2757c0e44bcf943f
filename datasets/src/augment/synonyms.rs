//! Synonyms, of WordNet or of a list, in the place of words.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::{Draw, Text, Vary};

/// What stands for each word. Words are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synonyms(HashMap<String, Vec<String>>);

/// Why synonyms cannot be read.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum SynonymError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{path}: holds none of WordNet's data.noun, data.verb, data.adj and data.adv; name the folder that does (often `dict`), \
         or a file with a word and its synonyms on each line, separated by tabs"
    )]
    NotWordNet { path: PathBuf },
    #[error("{path}, line {line}: {found:?} is no line of WordNet's")]
    Line { path: PathBuf, line: usize, found: String },
    #[error("{path}, line {line}: {found:?} has no tab: a line is a word and its synonyms, separated by tabs")]
    NoTab { path: PathBuf, line: usize, found: String },
    #[error("{path}: has no synonyms")]
    Empty { path: PathBuf },
}

impl Synonyms {
    /// Reads WordNet's database, if `path` is a folder, or a list with a word and its synonyms on each line, separated by tabs.
    pub fn read(path: &Path) -> Result<Self, SynonymError> {
        let mut synonyms = Self::default();
        if path.is_dir() {
            let files = ["noun", "verb", "adj", "adv"].map(|part| path.join(format!("data.{part}")));
            let there: Vec<&PathBuf> = files.iter().filter(|file| file.exists()).collect();
            if there.is_empty() {
                return Err(SynonymError::NotWordNet { path: path.to_owned() });
            }
            there
                .into_iter()
                .try_for_each(|file| lines(file, |line, number| synonyms.of_word_net(line, file, number)))?;
        } else {
            lines(path, |line, number| synonyms.of_list(line, path, number))?;
        }
        // The same ones in the same order, whatever the order of the files' lines.
        for of_word in synonyms.0.values_mut() {
            of_word.sort_unstable();
            of_word.dedup();
        }
        if synonyms.0.is_empty() {
            return Err(SynonymError::Empty { path: path.to_owned() });
        }
        Ok(synonyms)
    }

    /// A line of WordNet's `data.*`: offset, file and part of speech, the number of words in hexadecimal, and the words, each
    /// with a number behind it; see `wndb(5WN)`. The licence in front of them is indented.
    fn of_word_net(&mut self, line: &str, path: &Path, number: usize) -> Result<(), SynonymError> {
        if line.starts_with(' ') || line.is_empty() {
            return Ok(());
        }
        let words = || {
            let mut fields = line.split(' ').skip(3);
            let count = usize::from_str_radix(fields.next()?, 16).ok()?;
            let words: Vec<String> = fields.step_by(2).take(count).map(plain).collect();
            (words.len() == count && count > 0).then_some(words)
        };
        let words = words().ok_or_else(|| {
            let found = line.chars().take(60).collect();
            SynonymError::Line { path: path.to_owned(), line: number, found }
        })?;
        for word in &words {
            let others = words.iter().filter(|other| *other != word).cloned();
            self.add(word, others);
        }
        Ok(())
    }

    fn of_list(&mut self, line: &str, path: &Path, number: usize) -> Result<(), SynonymError> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let Some((word, synonyms)) = line.split_once('\t') else {
            return Err(SynonymError::NoTab { path: path.to_owned(), line: number, found: line.to_owned() });
        };
        let synonyms = synonyms.split('\t').map(|word| word.trim().to_owned());
        self.add(&word.trim().to_lowercase(), synonyms.filter(|word| !word.is_empty()));
        Ok(())
    }

    fn add(&mut self, word: &str, synonyms: impl Iterator<Item = String>) {
        let mut synonyms = synonyms.peekable();
        if synonyms.peek().is_some() {
            self.0.entry(word.to_owned()).or_default().extend(synonyms);
        }
    }

    /// The synonyms of a word, in any case.
    fn of(&self, word: &str) -> Option<&[String]> {
        self.0.get(&word.to_lowercase()).map(Vec::as_slice)
    }
}

/// A word of WordNet's as it is written in a text: `_` is a space, and a mark behind an adjective, such as `(a)`, is not part of it.
fn plain(word: &str) -> String {
    word.split('(').next().unwrap_or_default().replace('_', " ").to_lowercase()
}

fn lines(path: &Path, mut take: impl FnMut(&str, usize) -> Result<(), SynonymError>) -> Result<(), SynonymError> {
    let read = |source| SynonymError::Read { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path).map_err(read)?);
    for (number, line) in file.lines().enumerate() {
        take(&line.map_err(read)?, number + 1)?;
    }
    Ok(())
}

/// Puts synonyms in the place of so large a part of the words, of those that have any; capital letters stay.
#[derive(Debug, Clone, Copy)]
pub struct SynonymReplacement<'a> {
    /// Part of the words.
    pub rate: f64,
    /// Those there are.
    pub synonyms: &'a Synonyms,
}

impl Vary for SynonymReplacement<'_> {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        let with_any: Vec<(usize, &[String])> =
            (0..text.len()).filter_map(|number| Some((number, self.synonyms.of(text.word(number))?))).collect();
        if with_any.is_empty() {
            return None;
        }
        let mut words: Vec<Option<String>> = vec![None; text.len()];
        for place in draw.several(text.part(self.rate), with_any.len()) {
            let (number, synonyms) = with_any[place];
            words[number] = Some(in_case_of(text.word(number), draw.one::<String>(synonyms)));
        }
        Some(text.with(|number| words[number].as_deref()))
    }
}

/// A synonym in capitals if the word is, or with a capital if the word has one.
fn in_case_of(word: &str, synonym: &str) -> String {
    let mut characters = word.chars();
    let capital = characters.next().is_some_and(char::is_uppercase);
    match capital {
        true if word.chars().count() > 1 && characters.all(|c| !c.is_lowercase()) => synonym.to_uppercase(),
        true => {
            let mut characters = synonym.chars();
            characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
        }
        false => synonym.to_owned(),
    }
}
