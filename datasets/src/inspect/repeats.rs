//! Texts that stand in a data set twice, or in another split too, known by a hash.

use crate::record::Record;
use crate::rows::Row;
use crate::text_key::text_key;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Examples that are kept of each finding.
const EXAMPLES: usize = 5;

/// Texts so far, and what was found among them.
#[derive(Default)]
pub(super) struct Seen {
    texts: HashMap<u64, First>,
    /// By number.
    labels: Vec<String>,
    numbers: HashMap<String, u32>,
    pub(super) repeats: Repeats,
    pub(super) splits: Vec<Split>,
}

/// A text as it stood there first.
struct First {
    label: u32,
    repeated: bool,
}

/// Texts that stand in a data set more than once.
#[derive(Debug, Default, Serialize)]
pub struct Repeats {
    /// Rows whose texts stand in an earlier row.
    pub rows: usize,
    /// Texts that have such rows.
    pub texts: usize,
    /// Rows whose texts stand in an earlier row with another label.
    pub with_another_label: usize,
    /// Some of the latter, or else of the former.
    pub examples: Vec<Repeat>,
}

/// A text that stands there again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repeat {
    /// The line on which it stands again.
    pub line: usize,
    /// The text.
    pub text: String,
    /// Its label where it stood first, and on this line.
    pub labels: [String; 2],
}

/// Rows of another split.
pub(super) struct Split {
    name: String,
    rows: usize,
    /// Whether each of its texts was met.
    texts: HashMap<u64, bool>,
    met: usize,
    examples: Vec<String>,
}

/// Texts that stand in another split too.
#[derive(Debug, Serialize)]
pub struct Shared {
    /// Which split.
    pub split: String,
    /// How many rows it has.
    pub split_rows: usize,
    /// Rows of the data set whose texts it has.
    pub rows: usize,
    /// Texts that both have.
    pub texts: usize,
    /// Some of them.
    pub examples: Vec<String>,
}

impl Seen {
    pub(super) fn add_split(&mut self, name: &str, records: &[Record]) {
        let at = self.splits.iter().position(|split| split.name == name).unwrap_or_else(|| {
            let empty = Split { name: name.to_owned(), rows: 0, texts: HashMap::new(), met: 0, examples: Vec::new() };
            self.splits.push(empty);
            self.splits.len() - 1
        });
        let split = &mut self.splits[at];
        split.rows += records.len();
        split.texts.extend(hashes(records).into_iter().map(|hash| (hash, false)));
    }

    pub(super) fn add(&mut self, records: &[Record]) {
        for (record, hash) in records.iter().zip(hashes(records)) {
            let label = self.label(record.row.label.as_deref().unwrap_or_default());
            for split in &mut self.splits {
                split.meet(hash, &record.row);
            }
            let first = match self.texts.entry(hash) {
                Entry::Vacant(entry) => {
                    entry.insert(First { label, repeated: false });
                    continue;
                }
                Entry::Occupied(entry) => entry.into_mut(),
            };
            self.repeats.rows += 1;
            self.repeats.texts += usize::from(!std::mem::replace(&mut first.repeated, true));
            let differs = first.label != label;
            let labels = [first.label, label].map(|label| self.labels[label as usize].clone());
            let example = || Repeat { line: record.row.line, text: shown(&record.row), labels };
            self.repeats.keep(differs, example);
        }
    }

    /// The number of a label.
    fn label(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.labels.len() as u32;
        self.labels.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

impl Repeats {
    /// Keeps the first examples, those with another label before the others.
    fn keep(&mut self, differs: bool, example: impl FnOnce() -> Repeat) {
        let worse = self.examples.iter().rposition(|kept| kept.labels[0] == kept.labels[1]);
        match (self.examples.len() < EXAMPLES, worse) {
            (true, _) => {
                let at = if differs { self.with_another_label.min(self.examples.len()) } else { self.examples.len() };
                self.examples.insert(at, example());
            }
            (false, Some(_)) if differs => {
                self.examples.pop();
                self.examples.insert(self.with_another_label.min(self.examples.len()), example());
            }
            _ => {}
        }
        self.with_another_label += usize::from(differs);
    }
}

impl Split {
    fn meet(&mut self, hash: u64, row: &Row) {
        let Some(met) = self.texts.get_mut(&hash) else { return };
        self.met += 1;
        if !std::mem::replace(met, true) && self.examples.len() < EXAMPLES {
            self.examples.push(shown(row));
        }
    }

    pub(super) fn finish(self) -> Shared {
        Shared {
            split: self.name,
            split_rows: self.rows,
            rows: self.met,
            texts: self.texts.values().filter(|met| **met).count(),
            examples: self.examples,
        }
    }
}

/// A text, or both of a pair, on one line.
fn shown(row: &Row) -> String {
    match &row.text_b {
        Some(text_b) => format!("{} | {text_b}", row.text),
        None => row.text.clone(),
    }
}

/// Half of each key: among ten million texts two of them are the same by chance once in 370,000 data sets.
fn hashes(records: &[Record]) -> Vec<u64> {
    let half = |key: [u8; 16]| key[..8].iter().fold(0, |hash, byte| hash << 8 | u64::from(*byte));
    records.par_iter().map(|record| half(text_key(&record.row))).collect()
}
