//! What data files hold, for `data inspect`.

use std::path::PathBuf;

use anyhow::bail;
use datasets::{Columns, Count, Inspection, Inspector, Lengths, Repeats, Shared, Skipped};
use serde::Serialize;
use teacher::HubOptions;

use super::blocks::each_block;
use crate::model;
use crate::ui;

/// Which files to look at, and with whose eyes.
pub(crate) struct Inspecting<'a> {
    pub(crate) files: &'a [PathBuf],
    pub(crate) validation: &'a [PathBuf],
    pub(crate) test: &'a [PathBuf],
    pub(crate) columns: &'a Columns,
    /// Tokens kept of a text, to see what that cuts.
    pub(crate) max_length: Option<usize>,
    /// Whose tokens are counted; characters are where there is none.
    pub(crate) model: Option<&'a str>,
    pub(crate) hub: &'a HubOptions,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    files: Vec<String>,
    /// Rows that could not be read, where those are skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
    #[serde(flatten)]
    inspection: Inspection,
}

impl Inspecting<'_> {
    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        let asked = self.max_length;
        let described = self.model.map(|name| model::describe(name, self.hub)).transpose()?;
        let max_length = match &described {
            Some((config, tokenizer)) => {
                let limit = model::max_length(&config.encoder, asked)?;
                Some(asked.unwrap_or(tokenizer.model_max_length().map_or(limit, |declared| limit.min(declared))))
            }
            None if asked.is_some() => {
                bail!("--max-length counts tokens, and those are a model's; give it with --model")
            }
            None => None,
        };
        let mut inspector = Inspector::new(described.as_ref().map(|(_, tokenizer)| tokenizer), max_length);
        for (split, files) in [("validation", self.validation), ("test", self.test)] {
            each_block(files, self.columns, |block| {
                inspector.add_split(split, &block.records);
                Ok(())
            })?;
        }
        each_block(self.files, self.columns, |block| Ok(inspector.add(&block.records)?))?;
        let files = self.files.iter().map(|file| file.display().to_string()).collect();
        Ok(Report { files, skipped: self.columns.skipping.skipped(), inspection: inspector.finish() })
    }
}

/// Labels, scripts and languages that are listed; `--json` has all.
const LISTED: usize = 20;

/// Characters of a bar, and of an example.
const BAR: usize = 24;
const EXAMPLE: usize = 90;

impl Report {
    /// One part after another: rows, labels, lengths, repeats, other splits, unknown tokens, writing.
    pub(crate) fn text(&self) -> String {
        let Inspection { rows, unlabelled, pairs, labels, lengths, unknown, duplicates, shared, writing } =
            &self.inspection;
        let rows = *rows;
        let mut parts = vec![format!("{} rows in {}", ui::count(rows as u64), self.files.join(", "))];
        if *pairs > 0 {
            parts[0] += &format!(", {} of them pairs of texts", counted(*pairs, rows));
        }
        parts.extend(skipped_text(self.skipped.as_ref()));
        parts.push(labels_text(labels, *unlabelled, rows));
        parts.push(lengths_text(lengths, rows));
        if let Some(unknown) = unknown {
            parts.push(format!(
                "unknown tokens: {} of {}, in {} rows",
                counted(unknown.unknown, unknown.tokens),
                ui::count(unknown.tokens as u64),
                counted(unknown.rows, rows)
            ));
        }
        parts.push(repeats_text(duplicates, rows));
        parts.extend(shared.iter().map(|shared| shared_text(shared, rows)));
        parts.push(counts_text("script", &writing.scripts, rows));
        let mut languages = writing.languages.clone();
        if writing.unsure > 0 {
            languages.push(Count { name: "cannot be told".to_owned(), rows: writing.unsure });
        }
        parts.push(counts_text("language", &languages, rows));
        parts.join("\n\n")
    }
}

fn labels_text(labels: &[Count], unlabelled: usize, rows: usize) -> String {
    if labels.is_empty() {
        return "no row has a label".to_owned();
    }
    let mut labels = labels.to_vec();
    let count = labels.len();
    if unlabelled > 0 {
        labels.push(Count { name: "no label".to_owned(), rows: unlabelled });
    }
    counts_text(&format!("label ({})", ui::count(count as u64)), &labels, rows)
}

/// A table of counts with bars, the longest bar for the largest.
fn counts_text(heading: &str, counts: &[Count], rows: usize) -> String {
    let most = counts.iter().map(|count| count.rows).max().unwrap_or(1);
    let mut table = ui::Table::new([heading, "rows", "", ""]);
    for count in counts.iter().take(LISTED) {
        table.row([
            shortened(&count.name, 40),
            ui::count(count.rows as u64),
            ui::percent(share(count.rows, rows)),
            ui::bar(share(count.rows, most), BAR),
        ]);
    }
    let mut text = table.to_string().trim_end().to_owned();
    if let Some(rest) = counts.len().checked_sub(LISTED).filter(|rest| *rest > 0) {
        let below: Vec<usize> = counts[LISTED..].iter().map(|count| count.rows).collect();
        let fewest = below.iter().min().copied().unwrap_or(0);
        text += &format!("\nand {rest} more, the smallest with {} rows; --json lists all", ui::count(fewest as u64));
    }
    text
}

fn lengths_text(lengths: &Lengths, rows: usize) -> String {
    let most = lengths.histogram.iter().map(|bin| bin.rows).max().unwrap_or(1);
    let mut table = ui::Table::new([lengths.unit, "rows", "", ""]);
    for bin in &lengths.histogram {
        let span = if bin.from == bin.to { bin.from.to_string() } else { format!("{} to {}", bin.from, bin.to) };
        let cells =
            [ui::count(bin.rows as u64), ui::percent(share(bin.rows, rows)), ui::bar(share(bin.rows, most), BAR)];
        table.row(std::iter::once(span).chain(cells));
    }
    let mut text = format!(
        "{table}half of the rows have at most {} {}, 90 % at most {}, 99 % at most {}, the longest {}; {} in all",
        lengths.median,
        lengths.unit,
        lengths.p90,
        lengths.p99,
        lengths.longest,
        ui::count(lengths.total as u64)
    );
    if let Some(cut) = lengths.cut {
        text += &format!(
            "\n--max-length {} cuts {} rows, which lose {} tokens",
            cut.max_length,
            counted(cut.rows, rows),
            counted(cut.tokens, lengths.total)
        );
    }
    text
}

fn repeats_text(repeats: &Repeats, rows: usize) -> String {
    if repeats.rows == 0 {
        return "no text stands there twice".to_owned();
    }
    let mut text = format!(
        "repeated: {} rows have a text that an earlier row has ({} texts), {} of them with another label",
        counted(repeats.rows, rows),
        ui::count(repeats.texts as u64),
        ui::count(repeats.with_another_label as u64)
    );
    for example in &repeats.examples {
        let [first, again] = &example.labels;
        let labels = match first == again {
            true => String::new(),
            false => format!("  ({first} first, then {again})"),
        };
        text += &format!("\n  line {}: {}{labels}", example.line, shortened(&example.text, EXAMPLE));
    }
    text
}

fn shared_text(shared: &Shared, rows: usize) -> String {
    let mut text = format!(
        "shared with the {} rows of {}: {} rows ({} texts)",
        ui::count(shared.split_rows as u64),
        shared.split,
        counted(shared.rows, rows),
        ui::count(shared.texts as u64)
    );
    for example in &shared.examples {
        text += &format!("\n  {}", shortened(example, EXAMPLE));
    }
    text
}

/// Rows that were skipped, if any were.
pub(super) fn skipped_text(skipped: Option<&Skipped>) -> Option<String> {
    let skipped = skipped.filter(|skipped| skipped.rows > 0)?;
    let first = skipped.first.iter().map(|reason| format!("\n  {reason}"));
    Some(format!("skipped: {} rows that cannot be read{}", ui::count(skipped.rows as u64), first.collect::<String>()))
}

/// A count with its share of the whole.
pub(super) fn counted(part: usize, whole: usize) -> String {
    format!("{} ({})", ui::count(part as u64), ui::percent(share(part, whole)))
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// A text on one line, cut where it is too long for one.
pub(super) fn shortened(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { '\u{2423}' } else { c }).collect();
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
