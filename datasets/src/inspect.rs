//! Counts what a data set holds: labels, lengths, repeated texts, texts shared with other splits, unknown tokens, scripts and
//! languages. Rows are counted as they pass by; of their texts only hashes are kept.

mod lengths;
mod repeats;
mod writing;

pub use lengths::{Bin, Lengths};
pub use repeats::{Repeat, Repeats, Shared};
pub use writing::{Count, Writing};

use crate::Error;
use crate::record::Record;
use crate::rows::Row;
use crate::tokenizer::TextTokenizer;
use lengths::LengthCounts;
use rayon::prelude::*;
use repeats::Seen;
use serde::Serialize;
use std::collections::BTreeMap;
use writing::WritingCounts;

/// Counts the records of a data set, block by block.
pub struct Inspector<'a> {
    tokenizer: Option<&'a TextTokenizer>,
    max_length: Option<usize>,
    rows: usize,
    unlabelled: usize,
    pairs: usize,
    labels: BTreeMap<String, usize>,
    lengths: LengthCounts,
    unknown: Unknown,
    seen: Seen,
    writing: WritingCounts,
}

/// What a data set holds.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// How many rows.
    pub rows: usize,
    /// How many of them have no label.
    pub unlabelled: usize,
    /// How many of them have two texts.
    pub pairs: usize,
    /// The rows of each label, the most frequent first.
    pub labels: Vec<Count>,
    /// How long rows are.
    pub lengths: Lengths,
    /// Tokens that the tokenizer has no name for; absent without a tokenizer, and where it has a token for everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
    /// Texts that stand there more than once.
    pub duplicates: Repeats,
    /// Texts that stand in other splits too.
    pub shared: Vec<Shared>,
    /// Scripts and languages.
    #[serde(flatten)]
    pub writing: Writing,
}

/// Tokens that a tokenizer has no name for.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Unknown {
    /// All tokens of the texts, those that frame them left out.
    pub tokens: usize,
    /// Those of them that are unknown.
    pub unknown: usize,
    /// Rows with at least one of these.
    pub rows: usize,
}

impl<'a> Inspector<'a> {
    /// Counts in tokens where there is a tokenizer, else in characters; and what `max_length` tokens would cut.
    pub fn new(tokenizer: Option<&'a TextTokenizer>, max_length: Option<usize>) -> Self {
        Self {
            tokenizer,
            max_length,
            rows: 0,
            unlabelled: 0,
            pairs: 0,
            labels: BTreeMap::new(),
            lengths: LengthCounts::default(),
            unknown: Unknown::default(),
            seen: Seen::default(),
            writing: WritingCounts::default(),
        }
    }

    /// Adds rows of another split, of this name, that the rows to come are looked up in.
    pub fn add_split(&mut self, name: &str, records: &[Record]) {
        self.seen.add_split(name, records);
    }

    /// Counts these rows.
    ///
    /// # Errors
    /// A text that the tokenizer fails on.
    pub fn add(&mut self, records: &[Record]) -> Result<(), Error> {
        self.rows += records.len();
        for record in records {
            self.unlabelled += usize::from(record.labels.is_empty());
            self.pairs += usize::from(record.row.text_b.is_some());
            for label in &record.labels {
                match self.labels.get_mut(label) {
                    Some(count) => *count += 1,
                    None => _ = self.labels.insert(label.clone(), 1),
                }
            }
        }
        self.seen.add(records);
        self.writing.add(records);
        match self.tokenizer {
            Some(tokenizer) => self.add_tokens(tokenizer, records),
            None => {
                let lengths: Vec<usize> = records.par_iter().map(|record| characters(&record.row)).collect();
                lengths.into_iter().for_each(|length| self.lengths.add(length));
                Ok(())
            }
        }
    }

    fn add_tokens(&mut self, tokenizer: &TextTokenizer, records: &[Record]) -> Result<(), Error> {
        let rows: Vec<Row> = records.iter().map(|record| record.row.clone()).collect();
        let encodings = tokenizer.encode(&rows, usize::MAX)?;
        let unknown = tokenizer.unk_id();
        let framing = tokenizer.special_ids();
        for row in 0..encodings.len() {
            let ids = encodings.ids(row);
            self.lengths.add(ids.len());
            let of_text = |id: &&u32| Some(**id) == unknown || !framing.contains(id);
            let missing = ids.iter().filter(|id| Some(**id) == unknown).count();
            self.unknown.tokens += ids.iter().filter(of_text).count();
            self.unknown.unknown += missing;
            self.unknown.rows += usize::from(missing > 0);
        }
        Ok(())
    }

    /// What was counted.
    pub fn finish(self) -> Inspection {
        let labels = self.labels.into_iter().map(|(name, rows)| Count { name, rows }).collect();
        Inspection {
            rows: self.rows,
            unlabelled: self.unlabelled,
            pairs: self.pairs,
            labels: writing::most_frequent_first(labels),
            lengths: self.lengths.finish(self.tokenizer.is_some(), self.max_length),
            unknown: self.tokenizer.and_then(TextTokenizer::unk_id).map(|_| self.unknown),
            duplicates: self.seen.repeats,
            shared: self.seen.splits.into_iter().map(repeats::Split::finish).collect(),
            writing: self.writing.finish(),
        }
    }
}

/// The characters of both texts.
fn characters(row: &Row) -> usize {
    row.text.chars().count() + row.text_b.as_ref().map_or(0, |text| text.chars().count())
}

#[cfg(test)]
mod tests;
