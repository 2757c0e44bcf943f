//! Counts what the steps do, and keeps the first examples of each.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Examples that are kept of a step.
const EXAMPLES: usize = 5;

/// Characters of an example before and from the first difference on.
const BEFORE: usize = 30;
const AFTER: usize = 70;

/// Why a row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drop {
    Empty,
    Length,
    Language,
    Unknown,
    Shared,
    Duplicate,
    Contradiction,
    NearDuplicate,
}

/// In the order in which rows are asked.
pub(super) const DROPS: [Drop; 8] = [
    Drop::Empty,
    Drop::Length,
    Drop::Language,
    Drop::Shared,
    Drop::Unknown,
    Drop::Duplicate,
    Drop::Contradiction,
    Drop::NearDuplicate,
];

impl Drop {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Length => "length",
            Self::Language => "language",
            Self::Unknown => "unknown_tokens",
            Self::Shared => "shared",
            Self::Duplicate => "duplicates",
            Self::Contradiction => "duplicates_with_another_label",
            Self::NearDuplicate => "near_duplicates",
        }
    }
}

/// What cleaning did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CleanReport {
    /// Rows that were read.
    pub rows: usize,
    /// Those that are left.
    pub kept: usize,
    /// Rows whose texts were changed, whether they are left or not.
    pub changed: usize,
    /// What each step changed, in their order: all steps that were asked for.
    pub changes: Vec<StepReport>,
    /// What each step dropped: those that dropped something.
    pub drops: Vec<StepReport>,
    /// The rows of each label that has lost some.
    pub labels: Vec<LabelRows>,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step.
    pub step: String,
    /// How many rows it changed or dropped.
    pub rows: usize,
    /// The first of them.
    pub examples: Vec<Example>,
}

/// A row that a step changed or dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Which of the files, from 0.
    pub file: usize,
    /// The line on which it begins.
    pub line: usize,
    /// Its text before the step, from shortly before the first difference.
    pub before: String,
    /// The same afterwards; absent of a row that was dropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
    /// Why it was dropped, where the step's name does not say it.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub why: String,
}

/// The rows of a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRows {
    /// The label.
    pub label: String,
    /// How many rows had it.
    pub before: usize,
    /// How many are left.
    pub after: usize,
}

/// Counts as rows pass by.
#[derive(Clone)]
pub(super) struct Counter {
    rows: usize,
    kept: usize,
    changed: usize,
    changes: Vec<StepReport>,
    drops: Vec<StepReport>,
    labels: BTreeMap<String, [usize; 2]>,
    /// How many files there are.
    pub(super) files: usize,
}

impl Counter {
    pub(super) fn new(steps: impl Iterator<Item = &'static str>) -> Self {
        let report = |step: &str| StepReport { step: step.to_owned(), rows: 0, examples: Vec::new() };
        Self {
            rows: 0,
            kept: 0,
            changed: 0,
            changes: steps.map(report).collect(),
            drops: DROPS.iter().map(|drop| report(drop.name())).collect(),
            labels: BTreeMap::new(),
            files: 1,
        }
    }

    /// One bit for each step that has too few examples.
    pub(super) fn wanted(&self) -> u32 {
        let few = self.changes.iter().enumerate().filter(|(_, step)| step.examples.len() < EXAMPLES);
        few.fold(0, |wanted, (number, _)| wanted | 1 << number)
    }

    pub(super) fn read(&mut self, labels: &[String], changed: u32) {
        self.rows += 1;
        self.changed += usize::from(changed != 0);
        for (number, step) in self.changes.iter_mut().enumerate() {
            step.rows += (changed >> number & 1) as usize;
        }
        labels.iter().for_each(|label| self.of_label(label)[0] += 1);
    }

    pub(super) fn kept(&mut self, labels: &[String]) {
        self.kept += 1;
        labels.iter().for_each(|label| self.of_label(label)[1] += 1);
    }

    fn of_label(&mut self, label: &str) -> &mut [usize; 2] {
        if !self.labels.contains_key(label) {
            self.labels.insert(label.to_owned(), [0; 2]);
        }
        self.labels.get_mut(label).expect("it was put in")
    }

    pub(super) fn example(&mut self, step: usize, example: impl FnOnce() -> Example) {
        keep(&mut self.changes[step].examples, example);
    }

    pub(super) fn dropped(&mut self, drop: Drop, example: impl FnOnce() -> Example) {
        let number = DROPS.iter().position(|known| *known == drop).expect("all are listed");
        self.drops[number].rows += 1;
        keep(&mut self.drops[number].examples, example);
    }

    pub(super) fn finish(self) -> CleanReport {
        let lost = self.labels.into_iter().filter(|(_, [before, after])| after < before);
        CleanReport {
            rows: self.rows,
            kept: self.kept,
            changed: self.changed,
            changes: self.changes,
            drops: self.drops.into_iter().filter(|step| step.rows > 0).collect(),
            labels: lost.map(|(label, [before, after])| LabelRows { label, before, after }).collect(),
        }
    }
}

fn keep(examples: &mut Vec<Example>, example: impl FnOnce() -> Example) {
    if examples.len() < EXAMPLES {
        examples.push(example());
    }
}

impl Example {
    pub(super) fn changed(file: usize, line: usize, [before, after]: [String; 2]) -> Self {
        Self { file, line, before, after: Some(after), why: String::new() }
    }

    pub(super) fn dropped(file: usize, line: usize, text: &str, why: String) -> Self {
        Self { file, line, before: cut(text, 0), after: None, why }
    }
}

/// Both texts from shortly before their first difference.
pub(super) fn excerpts([before, after]: &[String; 2]) -> [String; 2] {
    let same = before.chars().zip(after.chars()).take_while(|(before, after)| before == after).count();
    let start = same.saturating_sub(BEFORE);
    [before, after].map(|text| cut(text, start))
}

fn cut(text: &str, start: usize) -> String {
    let mut characters = text.chars().skip(start);
    let mut excerpt: String = if start > 0 { "…".to_owned() } else { String::new() };
    excerpt.extend(characters.by_ref().take(BEFORE + AFTER));
    if characters.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}
