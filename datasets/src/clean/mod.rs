//! Cleans a data set, block by block: steps that change a text, then steps that drop a row. Every change and every drop is
//! counted, and the first of each step are kept as examples.
//!
//! The steps run in one order, whichever are asked for: HTML, mojibake, control characters, full-width forms, Unicode, Chinese,
//! links, white space and spelling, again and again until nothing changes, so that cleaning twice is cleaning once; then what is
//! empty goes, what is too short or too long, in another language, mostly unknown to the tokenizer, in another split, there
//! already, or nearly there already. Mojibake comes before Unicode, which would spell its signs otherwise.

mod chinese;
mod control;
mod full_width;
mod html;
mod language;
mod links;
mod mojibake;
mod near;
mod report;
mod spelling;
mod unicode;
mod whitespace;

pub use chinese::ChineseDictionary;
pub use language::Language;
pub use links::Links;
pub use report::{CleanReport, Example, LabelRows, StepReport};
pub use spelling::Spelling;
pub use unicode::UnicodeForm;

use crate::Error;
use crate::encodings::Key;
use crate::record::Record;
use crate::rows::{Columns, Row};
use crate::text_key::text_key;
use crate::tokenizer::TextTokenizer;
use near::{NearTexts, Signature};
use rayon::prelude::*;
use report::{Counter, Drop, excerpts};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

/// A step that changes texts.
pub enum TextStep {
    /// Tags go, entities are decoded.
    Html,
    /// Misread UTF-8 is repaired.
    Mojibake,
    /// What cannot be seen goes.
    ControlCharacters,
    /// Full-width letters, digits and signs become ordinary ones.
    FullWidth,
    /// One spelling of what looks alike.
    Unicode(UnicodeForm),
    /// Other characters by OpenCC's dictionaries.
    Chinese(ChineseDictionary),
    /// Tokens for URLs and e-mail addresses.
    Links(Links),
    /// One space between words.
    Whitespace,
    /// Misspelt words are corrected.
    Spelling(Box<Spelling>),
}

/// Steps that drop rows; what is not asked for drops none.
#[derive(Default)]
pub struct RowSteps<'a> {
    /// Texts that are too short or too long.
    pub limits: Limits<'a>,
    /// Texts whose language is told to be none of these. No language at all: any will do.
    pub languages: Vec<Language>,
    /// Texts that an earlier row has.
    pub duplicates: bool,
    /// Texts that are as similar as this to those of an earlier row with the same label, from 0 to 1.
    pub near_duplicates: Option<f64>,
}

/// How long texts may be, and how much of them may be unknown. Of a pair, both texts together.
#[derive(Default)]
pub struct Limits<'a> {
    /// Characters.
    pub characters: Option<RangeInclusive<usize>>,
    /// Tokens, special ones included.
    pub tokens: Option<RangeInclusive<usize>>,
    /// The share of tokens that may be unknown.
    pub unknown: Option<f64>,
    /// Whose tokens they are; needed for the two limits in tokens.
    pub tokenizer: Option<&'a TextTokenizer>,
}

/// Rounds after which the text steps end even if they still change something, as dictionaries that go in circles do.
const ROUNDS: usize = 8;

/// Cleans records, block by block in their order.
pub struct Cleaner<'a> {
    steps: Vec<TextStep>,
    rows: RowSteps<'a>,
    /// The columns that hold the texts.
    columns: [String; 2],
    splits: Vec<(String, HashSet<Key>)>,
    kept: HashMap<Key, Kept>,
    near: Option<Near>,
    labels: HashMap<String, u32>,
    counter: Counter,
}

/// A row that was kept.
#[derive(Clone, Copy)]
struct Kept {
    label: u32,
    file: u32,
    line: u32,
}

struct Near {
    texts: NearTexts,
    /// By number.
    rows: Vec<Kept>,
}

/// What the parallel part makes of a record.
struct Cleaned {
    record: Record,
    /// One bit for each step that has changed it.
    changed: u32,
    /// Before and after the steps that still want examples.
    examples: Vec<(usize, [String; 2])>,
    fate: Result<Looked, (Drop, String)>,
}

/// What is looked up of a row that stays so far.
struct Looked {
    key: Key,
    signature: Option<Signature>,
}

impl TextStep {
    /// Its name, as the recipe has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Mojibake => "mojibake",
            Self::ControlCharacters => "control_characters",
            Self::FullWidth => "full_width",
            Self::Unicode(_) => "unicode",
            Self::Chinese(_) => "chinese",
            Self::Links(_) => "links",
            Self::Whitespace => "whitespace",
            Self::Spelling(_) => "spelling",
        }
    }

    /// Its place among the others.
    fn place(&self) -> usize {
        match self {
            Self::Html => 0,
            Self::Mojibake => 1,
            Self::ControlCharacters => 2,
            Self::FullWidth => 3,
            Self::Unicode(_) => 4,
            Self::Chinese(_) => 5,
            Self::Links(_) => 6,
            Self::Whitespace => 7,
            Self::Spelling(_) => 8,
        }
    }

    /// The text as it should be; `None` where it is so.
    pub fn apply(&self, text: &str) -> Option<String> {
        match self {
            Self::Html => html::apply(text),
            Self::Mojibake => mojibake::apply(text),
            Self::ControlCharacters => control::apply(text),
            Self::FullWidth => full_width::apply(text),
            Self::Unicode(form) => form.apply(text),
            Self::Chinese(dictionary) => dictionary.apply(text),
            Self::Links(links) => links.apply(text),
            Self::Whitespace => whitespace::apply(text),
            Self::Spelling(spelling) => spelling.apply(text),
        }
    }
}

impl<'a> Cleaner<'a> {
    /// With these steps, in whichever order they are given; `columns` says which columns hold the texts.
    pub fn new(mut steps: Vec<TextStep>, rows: RowSteps<'a>, columns: &Columns) -> Self {
        steps.sort_by_key(TextStep::place);
        let near = rows.near_duplicates.map(|threshold| Near { texts: NearTexts::new(threshold), rows: Vec::new() });
        let column = |named: &Option<String>, usual: &str| named.clone().unwrap_or_else(|| usual.to_owned());
        let counter = Counter::new(steps.iter().map(TextStep::name));
        let columns = [column(&columns.text, "text"), column(&columns.pair, "text_b")];
        Self { steps, rows, columns, splits: Vec::new(), kept: HashMap::new(), near, labels: HashMap::new(), counter }
    }

    /// Drops what these rows of another split have, too: they are compared as the text steps make them.
    pub fn add_split(&mut self, name: &str, records: Vec<Record>) {
        let keys: Vec<Key> = records
            .into_par_iter()
            .map(|mut record| {
                self.change(&mut record.row, 0);
                text_key(&record.row)
            })
            .collect();
        match self.splits.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.extend(keys),
            None => self.splits.push((name.to_owned(), keys.into_iter().collect())),
        }
    }

    /// The records that stay, with their texts cleaned, in their order; `file` numbers their file, for the examples.
    ///
    /// # Errors
    /// A text that the tokenizer fails on.
    pub fn clean(&mut self, file: usize, records: Vec<Record>) -> Result<Vec<Record>, Error> {
        let wanted = self.counter.wanted();
        let mut cleaned: Vec<Cleaned> = records.into_par_iter().map(|record| self.cleaned(record, wanted)).collect();
        self.measure_tokens(&mut cleaned)?;
        let mut stay = Vec::with_capacity(cleaned.len());
        for Cleaned { record, changed, examples, fate } in cleaned {
            let line = record.row.line;
            let label = self.label(record.row.label.as_deref());
            self.counter.read(&record.labels, changed);
            for (step, texts) in examples {
                self.counter.example(step, || Example::changed(file, line, excerpts(&texts)));
            }
            let here = Kept { label, file: file as u32, line: u32::try_from(line).unwrap_or(u32::MAX) };
            match fate.and_then(|looked| self.look_up(looked, here)) {
                Ok(()) => {
                    self.counter.kept(&record.labels);
                    stay.push(record);
                }
                Err((drop, why)) => {
                    let text = shown(&record.row);
                    self.counter.dropped(drop, || Example::dropped(file, line, &text, why));
                }
            }
        }
        Ok(stay)
    }

    /// Names the file of each row in the report's reasons, where there are several.
    pub fn with_files(mut self, files: usize) -> Self {
        self.counter.files = files;
        self
    }

    /// What was done so far.
    pub fn report(&self) -> CleanReport {
        self.counter.clone().finish()
    }

    /// What was done.
    pub fn finish(self) -> CleanReport {
        self.counter.finish()
    }

    /// Everything that a row can be asked by itself.
    fn cleaned(&self, mut record: Record, wanted: u32) -> Cleaned {
        let (changed, examples) = self.change(&mut record.row, wanted);
        if changed != 0 {
            for (column, text) in self.columns.iter().zip([Some(&record.row.text), record.row.text_b.as_ref()]) {
                if let (Some(value), Some(text)) = (record.columns.get_mut(column), text) {
                    *value = Value::String(text.clone());
                }
            }
        }
        let fate = self.alone(&record.row);
        Cleaned { record, changed, examples, fate }
    }

    /// Runs the text steps over a row; which of them changed it, and examples of those that are wanted.
    fn change(&self, row: &mut Row, wanted: u32) -> (u32, Vec<(usize, [String; 2])>) {
        let mut changed = 0;
        let mut examples = Vec::new();
        for text in std::iter::once(&mut row.text).chain(&mut row.text_b) {
            for _ in 0..ROUNDS {
                let before = changed;
                let mut stable = true;
                for (number, step) in self.steps.iter().enumerate() {
                    let Some(next) = step.apply(text) else { continue };
                    stable = false;
                    let first = before & 1 << number == 0 && changed & 1 << number == 0;
                    if first && wanted & 1 << number != 0 {
                        examples.push((number, [text.clone(), next.clone()]));
                    }
                    changed |= 1 << number;
                    *text = next;
                }
                if stable {
                    break;
                }
            }
        }
        (changed, examples)
    }

    /// Whether a row stays, by itself.
    fn alone(&self, row: &Row) -> Result<Looked, (Drop, String)> {
        if row.text.trim().is_empty() {
            return Err((Drop::Empty, String::new()));
        }
        if let Some(allowed) = &self.rows.limits.characters {
            let characters = row.text.chars().count() + row.text_b.as_ref().map_or(0, |text| text.chars().count());
            if !allowed.contains(&characters) {
                return Err((Drop::Length, format!("{characters} characters")));
            }
        }
        if !self.rows.languages.is_empty()
            && let Some(language) = Language::of(&row.text)
            && !self.rows.languages.contains(&language)
        {
            return Err((Drop::Language, language.name().to_owned()));
        }
        let key = text_key(row);
        if let Some((split, _)) = self.splits.iter().find(|(_, keys)| keys.contains(&key)) {
            return Err((Drop::Shared, split.clone()));
        }
        let signature = self.near.as_ref().map(|_| Signature::of(&row.text, row.text_b.as_deref()));
        Ok(Looked { key, signature })
    }

    /// Drops what is too long or too unknown in tokens.
    fn measure_tokens(&self, cleaned: &mut [Cleaned]) -> Result<(), Error> {
        let limits = &self.rows.limits;
        let Some(tokenizer) = limits.tokenizer.filter(|_| limits.tokens.is_some() || limits.unknown.is_some()) else {
            return Ok(());
        };
        let stay: Vec<&mut Cleaned> = cleaned.iter_mut().filter(|cleaned| cleaned.fate.is_ok()).collect();
        let rows: Vec<Row> = stay.iter().map(|cleaned| cleaned.record.row.clone()).collect();
        let encodings = tokenizer.encode(&rows, usize::MAX)?;
        let (unknown, special) = (tokenizer.unk_id(), tokenizer.special_ids());
        for (number, cleaned) in stay.into_iter().enumerate() {
            let ids = encodings.ids(number);
            let missing = ids.iter().filter(|id| Some(**id) == unknown).count();
            let of_text = ids.iter().filter(|id| Some(**id) == unknown || !special.contains(id)).count();
            let share = missing as f64 / of_text.max(1) as f64;
            if limits.tokens.as_ref().is_some_and(|allowed| !allowed.contains(&ids.len())) {
                cleaned.fate = Err((Drop::Length, format!("{} tokens", ids.len())));
            } else if limits.unknown.is_some_and(|most| share > most) {
                cleaned.fate = Err((Drop::Unknown, format!("{missing} of {of_text} tokens")));
            }
        }
        Ok(())
    }

    /// Whether a row stays beside the others; if so, those to come are compared with it.
    fn look_up(&mut self, looked: Looked, here: Kept) -> Result<(), (Drop, String)> {
        let files = self.counter.files;
        let place = |kept: Kept| {
            if files > 1 {
                format!("file {}, line {}", kept.file + 1, kept.line)
            } else {
                format!("line {}", kept.line)
            }
        };
        match self.kept.get(&looked.key) {
            Some(known) if known.label != here.label => {
                return Err((Drop::Contradiction, format!("as {}, with another label", place(*known))));
            }
            Some(known) => return Err((Drop::Duplicate, format!("as {}", place(*known)))),
            None => {}
        }
        if let (Some(near), Some(signature)) = (&mut self.near, looked.signature) {
            // With another label, a small difference is one that counts.
            if let Some(like) = near.texts.like(&signature, |text| near.rows[text as usize].label == here.label) {
                return Err((Drop::NearDuplicate, format!("like {}", place(near.rows[like as usize]))));
            }
            near.texts.add(signature);
            near.rows.push(here);
        }
        if self.rows.duplicates {
            self.kept.insert(looked.key, here);
        }
        Ok(())
    }

    /// The number of a label; rows without one are alike.
    fn label(&mut self, label: Option<&str>) -> u32 {
        let next = self.labels.len() as u32;
        let label = label.unwrap_or_default();
        match self.labels.get(label) {
            Some(number) => *number,
            None => *self.labels.entry(label.to_owned()).or_insert(next),
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

#[cfg(test)]
mod tests;
