//! Cleans data files into one, for `data clean` and for the stage of that name of a recipe.

use std::path::{Path, PathBuf};

use anyhow::bail;
use datasets::{
    ChineseDictionary, CleanReport, Cleaner, Columns, Example, LabelRows, Language, Limits, Links, RowSteps, Skipped,
    Spelling, StepReport, TextStep, TextTokenizer,
};
use serde::Serialize;

use super::blocks::each_block;
use super::inspect::{counted, shortened, skipped_text};
use super::writing::{check_output, write_records};
use crate::recipe::CleanRecipe;
use crate::ui;

/// Which files to clean, and how.
pub(crate) struct Cleaning<'a> {
    pub(crate) files: &'a [PathBuf],
    /// Rows that stand here, too, are dropped.
    pub(crate) validation: &'a [PathBuf],
    pub(crate) test: &'a [PathBuf],
    pub(crate) columns: &'a Columns,
    pub(crate) steps: &'a CleanRecipe,
    /// Whose tokens are counted, and whose whole words are no misspellings.
    pub(crate) tokenizer: Option<&'a TextTokenizer>,
    pub(crate) output: &'a Path,
}

/// What was done.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    files: Vec<String>,
    output: String,
    /// Rows that could not be read, where those are skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
    #[serde(flatten)]
    pub(crate) report: CleanReport,
}

impl Cleaning<'_> {
    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        check_output(self.output, self.files.iter().chain(self.validation).chain(self.test))?;
        let mut cleaner = self.cleaner()?.with_files(self.files.len());
        for (split, files) in [("validation", self.validation), ("test", self.test)] {
            each_block(files, self.columns, |block| {
                cleaner.add_split(split, block.records);
                Ok(())
            })?;
        }
        write_records(self.output, |writer| {
            let mut kept = 0;
            each_block(self.files, self.columns, |block| {
                let records = cleaner.clean(block.file, block.records)?;
                kept += records.len();
                Ok(writer.write(records)?)
            })?;
            if kept == 0 {
                bail!("no row is left, and nothing is written{}", most_dropped(&cleaner.report()));
            }
            Ok(())
        })?;
        let output = self.output.display().to_string();
        let files = self.files.iter().map(|file| file.display().to_string()).collect();
        Ok(Report { files, output, skipped: self.columns.skipping.skipped(), report: cleaner.finish() })
    }

    fn cleaner(&self) -> anyhow::Result<Cleaner<'_>> {
        let steps = self.steps.resolved();
        steps.check()?;
        if steps.counts_tokens() && self.tokenizer.is_none() {
            bail!("limits in tokens and on unknown tokens need a model's tokenizer; name it with --model");
        }
        let mut text = Vec::new();
        for (asked, step) in [
            (steps.html, TextStep::Html),
            (steps.mojibake, TextStep::Mojibake),
            (steps.control_characters, TextStep::ControlCharacters),
            (steps.full_width, TextStep::FullWidth),
            (steps.whitespace, TextStep::Whitespace),
        ] {
            text.extend(asked.then_some(step));
        }
        text.extend(steps.unicode.map(TextStep::Unicode));
        if !steps.chinese.is_empty() {
            text.push(TextStep::Chinese(ChineseDictionary::read(&steps.chinese)?));
        }
        if steps.urls.is_some() || steps.emails.is_some() {
            text.push(TextStep::Links(Links { url: steps.urls, email: steps.emails }));
        }
        if let Some(words) = &steps.spelling {
            text.push(TextStep::Spelling(Box::new(Spelling::read(words, self.tokenizer.cloned())?)));
        }
        let between = |least: Option<usize>, most: Option<usize>| {
            least.or(most).map(|_| least.unwrap_or(0)..=most.unwrap_or(usize::MAX))
        };
        let languages = steps.languages.iter().map(|name| Language::named(name)).collect::<Result<_, _>>()?;
        let rows = RowSteps {
            limits: Limits {
                characters: between(steps.min_characters, steps.max_characters),
                tokens: between(steps.min_tokens, steps.max_tokens),
                unknown: steps.max_unknown,
                tokenizer: self.tokenizer,
            },
            languages,
            duplicates: steps.duplicates,
            near_duplicates: steps.near_duplicates,
        };
        Ok(Cleaner::new(text, rows, self.columns))
    }
}

/// The step that has dropped most, for a message.
fn most_dropped(report: &CleanReport) -> String {
    let most = report.drops.iter().max_by_key(|step| step.rows);
    most.map_or(String::new(), |step| {
        format!(
            "; the step `{}` has dropped {} of {} rows",
            step.step,
            ui::count(step.rows as u64),
            ui::count(report.rows as u64)
        )
    })
}

/// Examples that are printed of a step; `--json` has all that are kept. Characters of an example.
const EXAMPLES: usize = 3;
const WIDTH: usize = 100;

impl Report {
    /// Counts of all steps, then examples, and what is left of each label that has lost most.
    pub(crate) fn text(&self) -> String {
        let several = self.files.len() > 1;
        let place = |example: &Example| match several {
            true => format!("{}, line {}", self.files[example.file], example.line),
            false => format!("line {}", example.line),
        };
        let skipped = skipped_text(self.skipped.as_ref()).map_or(String::new(), |skipped| skipped + "\n");
        format!("{skipped}{}\nwritten: {}", text(&self.report, place), self.output)
    }
}

/// What a report says, with the place of each example.
pub(super) fn text(report: &CleanReport, place: impl Fn(&Example) -> String) -> String {
    let CleanReport { rows, kept, changed, changes, drops, labels } = report;
    let mut table = ui::Table::new(["step", "", "rows", ""]);
    let cells = |what: &str, step: &StepReport| {
        [
            step.step.clone(),
            what.to_owned(),
            ui::count(step.rows as u64),
            ui::percent(step.rows as f64 / (*rows).max(1) as f64),
        ]
    };
    changes.iter().for_each(|step| _ = table.row(cells("changed", step)));
    drops.iter().for_each(|step| _ = table.row(cells("dropped", step)));
    let mut text = format!(
        "{} rows: {} changed, {} kept\n\n{table}",
        ui::count(*rows as u64),
        counted(*changed, *rows),
        counted(*kept, *rows)
    );
    for step in changes.iter().chain(drops).filter(|step| !step.examples.is_empty()) {
        text += &format!("\n{}\n", step.step);
        for example in step.examples.iter().take(EXAMPLES) {
            let why = if example.why.is_empty() { String::new() } else { format!(" ({})", example.why) };
            text += &format!("  {}{why}: {}\n", place(example), shortened(&example.before, WIDTH));
            if let Some(after) = &example.after {
                text += &format!(
                    "  {:>width$}: {}\n",
                    "now",
                    shortened(after, WIDTH),
                    width = place(example).chars().count()
                );
            }
        }
    }
    text + &labels_text(labels)
}

/// Labels whose rows are all gone, and those that have lost more than half.
fn labels_text(labels: &[LabelRows]) -> String {
    let mut text = String::new();
    for label in labels.iter().filter(|label| label.after * 2 < label.before) {
        let [before, after] = [label.before, label.after].map(|rows| ui::count(rows as u64));
        text += &match label.after {
            0 => format!("\nwarning: no row of `{}` is left, of {before}", label.label),
            _ => format!("\nwarning: of `{}` {after} rows are left, of {before}", label.label),
        };
    }
    if text.is_empty() { text } else { text + "\n" }
}
