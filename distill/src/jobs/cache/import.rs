//! A cache of answers that something else computed: a language model, an ensemble, scikit-learn. Their rows go by their
//! texts, so that neither a teacher nor its tokenizer is needed.

mod answers;
mod layout;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use cache::{CacheWriter, Captured, Dtype, NewCache, Quantity};
use datasets::{Key, LabelNames, Rest, Row, for_each_record, text_key};
use serde::Serialize;

use super::writing::{self, COMMITTED_ROWS};
use crate::data;
use crate::fingerprint;
use crate::hint::HintExt;
use crate::interrupt;
use crate::jobs::capture::TOKENIZER;
use crate::recipe::ColumnsRecipe;
use crate::scores::{accuracy, predictions};
use crate::ui::{self, Table};
use layout::Layout;

/// Class names that the report shows: a column that is none of a class would stand among them.
const SHOWN_CLASSES: usize = 8;

/// What is imported, and where to.
pub(crate) struct Importing<'a> {
    pub(crate) data: &'a [PathBuf],
    pub(crate) columns: &'a ColumnsRecipe,
    /// What the numbers are.
    pub(crate) given: Quantity,
    /// The column that holds them, or the columns: see [`Layout::find`].
    pub(crate) column: &'a str,
    pub(crate) output: &'a Path,
    /// Removes a cache that is there.
    pub(crate) overwrite: bool,
    /// Takes answers that are no better than chance, and logits that look like probabilities.
    pub(crate) force: bool,
}

/// What `cache import` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: usize,
    /// Different texts, or pairs of texts.
    unique: usize,
    /// That the cache did not have before.
    new: usize,
    imported: Quantity,
    labels: Vec<String>,
    /// Rows with a label, and how often the answers are right about them.
    labelled: usize,
    accuracy: Option<f64>,
    bytes: u64,
    output: String,
}

impl Importing<'_> {
    /// Reads all answers, refuses what is wrong with one of them, and writes the cache.
    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        if self.columns.max_length.is_some() {
            bail!("--max-length: answers are imported for whole texts; leave it out");
        }
        let names = self.columns.label_names.clone();
        let names = if names.is_empty() { None } else { Some(LabelNames::new(names)?) };
        let mut answers = Answers { names, ..Answers::default() };
        for path in self.data {
            answers.read(path, self)?;
        }
        let Some(names) = answers.names.take() else { bail!("no rows") };
        let accuracy = answers.check(&names, self)?;
        let captured = Captured::dense(names.len(), Dtype::F32);
        let fingerprint = fingerprint::of_imported(answers.content(), names.names().to_vec(), self.given, captured);
        if self.overwrite {
            cache::remove(self.output, &[TOKENIZER])?;
        }
        let new = NewCache { fingerprint: &fingerprint, batch_tokens: 0, attachments: &[] };
        let there = "a cache of other answers is there; choose another --output, or give --overwrite";
        let mut writer = writing::create(self.output, &new, there)?;
        let before = writer.rows();
        answers.write(&mut writer)?;
        Ok(Report {
            rows: answers.rows.len(),
            unique: answers.keys.len(),
            new: writer.rows() - before,
            imported: self.given,
            labels: names.names().to_vec(),
            labelled: answers.labelled,
            accuracy,
            bytes: writer.bytes(),
            output: self.output.display().to_string(),
        })
    }
}

/// All answers, one for each text.
#[derive(Default)]
struct Answers {
    /// Known from the first row on.
    names: Option<LabelNames>,
    /// Of the different texts, in the order in which they came.
    keys: Vec<Key>,
    /// `[keys, classes]`
    logits: Vec<f32>,
    /// Where each was read.
    places: Vec<Place>,
    by_key: HashMap<Key, u32>,
    /// For each row, which of the texts it is.
    rows: Vec<u32>,
    /// The rows without their texts, each with its file.
    labels: Vec<(PathBuf, Vec<Row>)>,
    labelled: usize,
    /// A row that cannot be probabilities was there.
    no_probabilities: bool,
}

/// A line of one of the files.
#[derive(Clone)]
struct Place {
    file: u32,
    line: u32,
}

impl Answers {
    fn read(&mut self, path: &Path, how: &Importing<'_>) -> anyhow::Result<()> {
        let file = self.labels.len() as u32;
        self.labels.push((path.to_owned(), Vec::new()));
        let mut layout = None;
        let mut each = |row: Row, rest: Rest<'_>| {
            let place = Place { file, line: row.line as u32 };
            self.take(row, &rest, &place, &mut layout, how).with_context(|| self.named(&place))
        };
        let columns = data::columns_of(how.columns);
        let mut result = Ok(());
        let label_column = for_each_record(path, &columns, |row, rest| {
            result = each(row, rest);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        data::say_label_column(path, label_column.as_deref());
        Ok(())
    }

    /// Takes a row, or says what is wrong with it.
    fn take(
        &mut self,
        row: Row,
        rest: &Rest<'_>,
        place: &Place,
        layout: &mut Option<Layout>,
        how: &Importing<'_>,
    ) -> anyhow::Result<()> {
        if self.rows.len().is_multiple_of(4096) {
            interrupt::check()?;
        }
        let layout = match layout {
            Some(layout) => layout,
            None => layout.insert(Layout::find(how.column, rest)?),
        };
        let answer = layout.read(rest)?.in_order_of(layout, self.names.as_ref());
        let names = match &mut self.names {
            Some(names) => names,
            unknown => unknown.insert(answers::classes_of(&answer, matches!(layout, Layout::Several { .. }))?),
        };
        if names.len() < 2 {
            bail!("answers for one class; a classifier needs at least two");
        }
        let numbers = answers::in_order(answer, names)?;
        let logits = answers::logits(how.given, &numbers, names)?;
        self.no_probabilities |= !answers::sum_to_one(&numbers);
        let (key, width) = (text_key(&row), names.len());
        let text = match self.by_key.get(&key) {
            Some(&text) => {
                let at = text as usize;
                if self.logits[at * width..(at + 1) * width] != logits {
                    let first = self.named(&self.places[at]);
                    bail!("the same text as in {first}, with another answer; keep one of them, or their mean");
                }
                text
            }
            None => {
                let text = u32::try_from(self.keys.len()).context("more rows than a cache holds")?;
                self.by_key.insert(key, text);
                self.keys.push(key);
                self.logits.extend_from_slice(&logits);
                self.places.push(place.clone());
                text
            }
        };
        self.rows.push(text);
        let row = Row { text: String::new(), text_b: None, ..row };
        if let Some((_, labels)) = self.labels.last_mut() {
            labels.push(row);
        }
        Ok(())
    }

    /// A place as messages have it.
    fn named(&self, place: &Place) -> String {
        let file = self.labels.get(place.file as usize).map_or(Path::new(""), |(path, _)| path);
        format!("{}, {} {}", file.display(), datasets::unit_of(file).name(), place.line)
    }

    /// Refuses answers that look wrong as a whole; returns how often they are right about the labels.
    fn check(&mut self, names: &LabelNames, how: &Importing<'_>) -> anyhow::Result<Option<f64>> {
        if how.given == Quantity::Logits && !self.no_probabilities && !how.force {
            return Err(anyhow!("the numbers of each row sum to 1, as probabilities do, and are to be logits"))
                .hint("give --probabilities; if they are logits all the same, go on with --force");
        }
        let mut labels = Vec::with_capacity(self.rows.len());
        for (path, rows) in std::mem::take(&mut self.labels) {
            labels.extend(data::labels_of(&rows, names, &path)?);
        }
        self.labelled = labels.iter().flatten().count();
        if self.labelled == 0 {
            return Ok(None);
        }
        let of_texts = predictions(&self.logits, names.len());
        let predicted: Vec<u32> = self.rows.iter().map(|&text| of_texts[text as usize]).collect();
        let accuracy = accuracy(&predicted, &labels);
        if !how.force {
            data::refuse_chance(accuracy, self.labelled, names.len())?;
        }
        Ok(Some(accuracy))
    }

    /// A hash over all answers, in whatever order and format they came.
    fn content(&self) -> String {
        let width = self.logits.len() / self.keys.len().max(1);
        let mut order: Vec<usize> = (0..self.keys.len()).collect();
        order.sort_unstable_by_key(|&text| self.keys[text]);
        let mut hasher = blake3::Hasher::new();
        for text in order {
            hasher.update(&self.keys[text]);
            for logit in &self.logits[text * width..(text + 1) * width] {
                hasher.update(&logit.to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    fn write(&self, writer: &mut CacheWriter) -> anyhow::Result<()> {
        let width = self.logits.len() / self.keys.len().max(1);
        for (keys, logits) in self.keys.chunks(COMMITTED_ROWS).zip(self.logits.chunks(COMMITTED_ROWS * width.max(1))) {
            interrupt::check()?;
            writing::commit(writer, keys.iter().copied().zip(logits.chunks(width.max(1))))?;
        }
        Ok(writer.finish()?)
    }
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(["import", ""]);
        for (what, number) in [("rows", self.rows), ("unique", self.unique), ("new", self.new)] {
            table.row([what.to_string(), ui::count(number as u64)]);
        }
        let more = if self.labels.len() > SHOWN_CLASSES { ", ..." } else { "" };
        let shown: Vec<&str> = self.labels.iter().take(SHOWN_CLASSES).map(String::as_str).collect();
        table.row([
            "classes".to_string(),
            format!("{}: {}{more}", ui::count(self.labels.len() as u64), shown.join(", ")),
        ]);
        table.row(["given as".to_string(), self.imported.to_string()]);
        if let Some(accuracy) = self.accuracy {
            table.row([
                "accuracy".to_string(),
                format!("{accuracy:.4} on {} labelled rows", ui::count(self.labelled as u64)),
            ]);
        }
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        format!("{table}\nwritten: {}", self.output)
    }
}
