//! Traditional to simplified Chinese or the other way round, by the dictionaries of OpenCC, which are given as files.
//!
//! Crates that carry the dictionaries would put megabytes into the program for those who have no Chinese, and the largest of
//! them is under the GPL; the files are a line of text an entry, and looking entries up is the few lines below.

use crate::Error;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Spellings and what is to stand for them.
#[derive(Debug, Default)]
pub struct ChineseDictionary {
    /// By first character, the longest first.
    entries: HashMap<char, Vec<Entry>>,
}

/// A spelling, and what stands for it.
type Entry = (Box<str>, Box<str>);

impl ChineseDictionary {
    /// Reads dictionaries of OpenCC, such as `TSCharacters.txt` and `TSPhrases.txt`: on each line a spelling, a tab, and one or
    /// several others with spaces between them, of which the first is taken. Earlier files come before later ones.
    ///
    /// # Errors
    /// A file that cannot be read, or a line of another form.
    pub fn read<P: AsRef<Path>>(files: &[P]) -> Result<Self, Error> {
        let mut dictionary = Self::default();
        for path in files {
            let file = path.as_ref().display().to_string();
            let text = fs::read_to_string(path).map_err(|cause| Error::Open { file: file.clone(), cause })?;
            for (line, entry) in
                text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
            {
                let (from, to) = entry.split_once('\t').ok_or_else(|| Error::Dictionary {
                    file: file.clone(),
                    line: line + 1,
                    expected: "a spelling, a tab and another one, as in OpenCC's TSCharacters.txt",
                })?;
                dictionary.add(from, to.split(' ').next().unwrap_or_default());
            }
        }
        for entries in dictionary.entries.values_mut() {
            entries.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        }
        Ok(dictionary)
    }

    fn add(&mut self, from: &str, to: &str) {
        let Some(first) = from.chars().next().filter(|_| !to.is_empty()) else { return };
        let entries = self.entries.entry(first).or_default();
        if entries.iter().all(|(known, _)| **known != *from) {
            entries.push((from.into(), to.into()));
        }
    }

    pub(super) fn apply(&self, text: &str) -> Option<String> {
        if text.is_ascii() {
            return None;
        }
        let mut out = String::new();
        let (mut done, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            let entries = self.entries.get(&c).map(Vec::as_slice).unwrap_or_default();
            match entries.iter().find(|(from, _)| text[at..].starts_with(&**from)) {
                Some((from, to)) => {
                    if from != to {
                        out.push_str(&text[done..at]);
                        out.push_str(to);
                        done = at + from.len();
                    }
                    at += from.len();
                }
                None => at += c.len_utf8(),
            }
        }
        (done > 0).then(|| out + &text[done..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionary(characters: &str, phrases: &str) -> Result<ChineseDictionary, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let files = [folder.path().join("characters.txt"), folder.path().join("phrases.txt")];
        fs::write(&files[0], characters).expect("writes");
        fs::write(&files[1], phrases).expect("writes");
        ChineseDictionary::read(&files)
    }

    #[test]
    fn the_longest_entry_counts_and_of_several_spellings_the_first() {
        let found =
            dictionary("# 繁簡\n乾\t干 乾 漧\n這\t这\n個\t个\n錶\t表\n", "乾坤\t乾坤\n手錶\t手表\n").expect("reads");
        for (text, expected) in
            [("這個", "这个"), ("乾燥", "干燥"), ("乾坤乾", "乾坤干"), ("我的手錶。ok", "我的手表。ok")]
        {
            assert_eq!(found.apply(text).as_deref(), Some(expected));
        }
        for text in ["plain", "这个", "乾坤"] {
            assert_eq!(found.apply(text), None);
        }
    }

    #[test]
    fn another_file_is_refused_with_the_line() {
        let error = dictionary("這\t这\n這 这\n", "").expect_err("refused").to_string();
        assert!(error.contains("characters.txt, line 2: expected a spelling, a tab"), "{error}");
    }
}
