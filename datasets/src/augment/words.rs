//! Where the words of a text are.

use std::io::BufRead;
use std::ops::Range;

use jieba_rs::Jieba;
use unicode_segmentation::UnicodeSegmentation;

/// Cuts texts into words: by the Unicode word boundaries (UAX #29), by which each Chinese character is one; Chinese in words of a
/// dictionary where one is given.
#[derive(Debug, Default)]
pub struct WordCutter {
    chinese: Option<Jieba>,
}

impl WordCutter {
    /// With a dictionary of Chinese words as jieba's: on each line a word, how often it occurs, and what kind it is.
    pub fn with_dictionary(mut dictionary: impl BufRead) -> Result<Self, jieba_rs::Error> {
        let mut chinese = Jieba::empty();
        chinese.load_dict(&mut dictionary)?;
        Ok(Self { chinese: Some(chinese) })
    }

    /// The places of the words: what has a letter or a digit in it.
    fn words(&self, text: &str) -> Vec<Range<usize>> {
        let mut words: Vec<Range<usize>> = Vec::new();
        let mut push = |start: usize, word: &str| {
            if word.chars().any(char::is_alphanumeric) {
                words.push(start..start + word.len());
            }
        };
        match self.chinese.as_ref().filter(|_| text.chars().any(is_han)) {
            None => text.split_word_bound_indices().for_each(|(start, word)| push(start, word)),
            Some(chinese) => {
                let mut start = 0;
                for word in chinese.cut(text, false).into_iter().map(|token| token.word) {
                    push(start, word);
                    start += word.len();
                }
            }
        }
        words
    }
}

/// Whether a character is Chinese, as BERT's tokenizer has it.
fn is_han(c: char) -> bool {
    matches!(c as u32, 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x2FA1F)
}

/// A text and its words.
#[derive(Debug)]
pub struct Text<'a> {
    /// The text.
    pub text: &'a str,
    words: Vec<Range<usize>>,
}

impl<'a> Text<'a> {
    /// Cuts a text.
    pub fn new(text: &'a str, cutter: &WordCutter) -> Self {
        Self { text, words: cutter.words(text) }
    }

    /// The number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no word in it.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// A word by its number.
    pub fn word(&self, number: usize) -> &'a str {
        &self.text[self.words[number].clone()]
    }

    /// The place of a word, in bytes.
    pub fn place(&self, number: usize) -> Range<usize> {
        self.words[number].clone()
    }

    /// How many words a rate of them is, at least one.
    pub fn part(&self, rate: f64) -> usize {
        ((rate * self.len() as f64).round() as usize).max(1)
    }

    /// The text with other words: of each number what stands there instead. All else stays as it is.
    pub fn with<'w>(&self, word: impl Fn(usize) -> Option<&'w str>) -> String {
        let mut text = String::with_capacity(self.text.len() + 16);
        let mut end = 0;
        for (number, place) in self.words.iter().enumerate() {
            if let Some(word) = word(number) {
                text.push_str(&self.text[end..place.start]);
                text.push_str(word);
                end = place.end;
            }
        }
        text.push_str(&self.text[end..]);
        text
    }

    /// The text without some words, and without the space before each of them, or behind the first.
    pub fn without(&self, gone: impl Fn(usize) -> bool) -> String {
        let mut text = String::with_capacity(self.text.len());
        let mut end = 0;
        for (_, place) in self.words.iter().enumerate().filter(|(number, _)| gone(*number)) {
            let before = &self.text[end..place.start];
            let trimmed = before.trim_end();
            // Between two words that stay there is one space, as there were two.
            let rest = &self.text[place.end..];
            end = place.end;
            if trimmed.len() < before.len() || text.is_empty() && trimmed.is_empty() {
                text.push_str(trimmed);
                if text.is_empty() {
                    end += rest.len() - rest.trim_start().len();
                }
            } else {
                text.push_str(before);
            }
        }
        text.push_str(&self.text[end..]);
        text
    }

    /// Whether words stand beside each other without a space, as in Chinese.
    pub fn is_dense(&self, number: usize) -> bool {
        let place = &self.words[number];
        let next = self.text[place.end..].chars().next();
        self.text[place.clone()].chars().any(is_han) && next.is_none_or(|c| !c.is_whitespace())
    }
}
