//! Makes new texts of those in data files, for `data augment`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use datasets::augment::Variant;
use datasets::{Columns, LabelColumn, Record, Row, Skipped, hold_out, reconcile};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::augment::Augmenting;
use super::inspect::skipped_text;
use super::writing::{check_output, write_records};
use crate::data::read_rows_as;
use crate::recipe::AugmentRecipe;
use crate::ui::{self, Table};

/// Which files to make new texts of, and how.
pub(crate) struct Making<'a> {
    pub(crate) files: &'a [PathBuf],
    /// No new text is one of these.
    pub(crate) validation: &'a [PathBuf],
    pub(crate) test: &'a [PathBuf],
    pub(crate) columns: &'a Columns,
    pub(crate) augmenting: Augmenting<'a>,
    /// Whether rows are varied too that a training holds out for validation.
    pub(crate) all_rows: bool,
    /// Whether a new text has the label of the one that it was made of.
    pub(crate) copy_labels: bool,
    pub(crate) output: &'a Path,
}

/// What was made.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    files: Vec<String>,
    output: String,
    /// Rows of the files.
    rows: usize,
    /// Of these, those that a training holds out, and of which nothing was made.
    held_out: usize,
    /// New texts.
    texts: usize,
    /// Of each way, in the order in which they were given.
    ways: Vec<OfWay>,
    /// Rows that could not be read, where those are skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
}

/// What was made in one way.
#[derive(Debug, Serialize)]
struct OfWay {
    method: &'static str,
    texts: usize,
    /// The first of them, with what it was made of.
    example: Option<[String; 2]>,
}

/// Records that are written at a time.
const BLOCK: usize = 4096;

impl Making<'_> {
    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        check_output(self.output, self.files.iter().chain(self.validation).chain(self.test))?;
        let mut rows = Vec::new();
        // The first row of each file.
        let mut starts = Vec::new();
        for file in self.files {
            starts.push(rows.len());
            rows.extend(read_rows_as(file, self.columns)?);
        }
        let file_of = |origin: usize| starts.partition_point(|start| *start <= origin).checked_sub(1);
        let mut files_of: Vec<Option<usize>> = (0..rows.len()).map(file_of).collect();
        let mut others = Vec::new();
        let texts_alone = Columns { label: LabelColumn::Ignored, ..self.columns.clone() };
        for file in self.validation.iter().chain(self.test) {
            others.extend(datasets::read_rows(file, &texts_alone)?);
        }
        let count = rows.len();
        let held_out = self.held_out(&mut rows, &mut files_of)?;
        let rows_held_out = held_out.len();
        others.extend(held_out);

        let methods = self.augmenting.ways.iter().map(|way| way.name());
        let mut ways: Vec<OfWay> = methods.map(|method| OfWay { method, texts: 0, example: None }).collect();
        let mut made = |method: &str, texts: [&str; 2]| {
            if let Some(way) = ways.iter_mut().find(|way| way.method == method) {
                way.texts += 1;
                way.example.get_or_insert_with(|| texts.map(str::to_owned));
            }
        };
        let mut texts = 0;
        write_records(self.output, |writer| {
            let (mut block, mut failed) = (Vec::new(), Ok(()));
            let mut write = |record: Option<Record>| {
                let is_last = record.is_none();
                texts += usize::from(!is_last);
                block.extend(record);
                if failed.is_ok() && (block.len() == BLOCK || is_last) {
                    failed = writer.write(std::mem::take(&mut block));
                }
            };
            let fills_templates = self.augmenting.ways.iter().any(|way| matches!(way, AugmentRecipe::Templates(_)));
            let mut known = Vec::new();
            self.augmenting.variants(&rows, &[&others], |variant| {
                let Variant { row, origin, way } = variant;
                let before = &rows[origin];
                match row.text_b == before.text_b {
                    true => made(way, [&row.text, &before.text]),
                    false => made(
                        way,
                        [row.text_b.as_deref().unwrap_or_default(), before.text_b.as_deref().unwrap_or_default()],
                    ),
                }
                write(Some(self.record(&row, way, Some((before.line, files_of[origin])))));
                if fills_templates {
                    known.push(row);
                }
            })?;
            for row in self.augmenting.filled(&[&rows, &others, &known])? {
                made("templates", [&row.text, ""]);
                write(Some(self.record(&row, "templates", None)));
            }
            write(None);
            failed?;
            if texts == 0 {
                bail!(
                    "no new text could be made of {count} rows: they are too short, or have nothing that the methods change"
                );
            }
            Ok(())
        })?;
        let output = self.output.display().to_string();
        let files = self.files.iter().map(|file| file.display().to_string()).collect();
        Ok(Report {
            files,
            output,
            rows: count,
            held_out: rows_held_out,
            texts,
            ways,
            skipped: self.columns.skipping.skipped(),
        })
    }

    /// Takes the rows out that a training on these files holds out for validation.
    fn held_out(&self, rows: &mut Vec<Row>, files: &mut Vec<Option<usize>>) -> anyhow::Result<Vec<Row>> {
        if self.all_rows || !self.validation.is_empty() {
            return Ok(Vec::new());
        }
        let labels = match rows.iter().any(|row| row.label.is_some()) {
            true => reconcile(rows, None)?.1,
            false => vec![None; rows.len()],
        };
        let chosen = hold_out(rows, &labels);
        let mut kept = chosen.iter();
        files.retain(|_| !kept.next().copied().unwrap_or(false));
        let mut chosen = chosen.into_iter();
        let (held_out, kept) = std::mem::take(rows).into_iter().partition(|_| chosen.next().unwrap_or(false));
        *rows = kept;
        Ok(held_out)
    }

    fn record(&self, row: &Row, method: &str, origin: Option<(usize, Option<usize>)>) -> Record {
        let label = row.label.clone().filter(|_| self.copy_labels);
        let mut columns: Map<String, Value> = Map::new();
        columns.insert("text".to_owned(), json!(row.text));
        if let Some(text_b) = &row.text_b {
            columns.insert("text_b".to_owned(), json!(text_b));
        }
        if self.copy_labels {
            columns.insert("label".to_owned(), json!(label));
        }
        columns.insert("method".to_owned(), json!(method));
        columns.insert("origin".to_owned(), json!(origin.map(|(line, _)| line)));
        if self.files.len() > 1 {
            let file = origin.and_then(|(_, file)| self.files.get(file?));
            columns.insert("origin_file".to_owned(), json!(file.map(|file| file.display().to_string())));
        }
        Record { labels: label.iter().cloned().collect(), row: Row { label, ..row.clone() }, columns }
    }
}

impl Report {
    /// A table with a row for each way, and an example of each.
    pub(crate) fn text(&self) -> String {
        let count = |count: usize| ui::count(count as u64);
        let mut table = Table::new(["method".to_owned(), "texts".to_owned()]);
        for way in &self.ways {
            table.row([way.method.to_owned(), count(way.texts)]);
        }
        let examples: String = self
            .ways
            .iter()
            .filter_map(|way| {
                let [new, old] = way.example.as_ref()?;
                let of = if old.is_empty() { String::new() } else { format!("\n    of: {old}") };
                Some(format!("\n  {}: {new}{of}", way.method))
            })
            .collect();
        let held_out = match self.held_out {
            0 => String::new(),
            held_out => format!(
                ", without the {} that a training holds out for validation (--all-rows takes them too)",
                count(held_out)
            ),
        };
        let skipped = skipped_text(self.skipped.as_ref()).map_or(String::new(), |skipped| skipped + "\n");
        format!(
            "{skipped}{} new texts of {} rows{held_out}\n{table}{examples}\nwritten: {}",
            count(self.texts),
            count(self.rows),
            self.output
        )
    }
}
