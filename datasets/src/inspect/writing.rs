//! Scripts and languages of texts.

use crate::detect::detect;
use crate::record::Record;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::HashMap;
use std::hash::Hash;
use whatlang::{Lang, Script};

#[derive(Debug, Default)]
pub(super) struct WritingCounts {
    scripts: HashMap<Option<Script>, usize>,
    languages: HashMap<Lang, usize>,
    unsure: usize,
}

/// Scripts and languages of the rows.
#[derive(Debug, Serialize)]
pub struct Writing {
    /// The script that most letters of a row are of.
    pub scripts: Vec<Count>,
    /// Languages, of the rows whose language can be told.
    pub languages: Vec<Count>,
    /// Rows whose language cannot be told: too short, or too much like several.
    pub unsure: usize,
}

/// A name and how many rows have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The name.
    pub name: String,
    /// How many rows.
    pub rows: usize,
}

impl WritingCounts {
    pub(super) fn add(&mut self, records: &[Record]) {
        let told: Vec<_> = records.par_iter().map(|record| told(&record.row.text)).collect();
        for (script, language) in told {
            *self.scripts.entry(script).or_default() += 1;
            match language {
                Some(language) => *self.languages.entry(language).or_default() += 1,
                None => self.unsure += 1,
            }
        }
    }

    pub(super) fn finish(self) -> Writing {
        let script = |script: Option<Script>| script.map_or("none".to_owned(), |script| script.name().to_owned());
        Writing {
            scripts: named(self.scripts, script),
            languages: named(self.languages, |language| language.eng_name().to_owned()),
            unsure: self.unsure,
        }
    }
}

fn named<T: Eq + Hash>(counts: HashMap<T, usize>, name: impl Fn(T) -> String) -> Vec<Count> {
    most_frequent_first(counts.into_iter().map(|(what, rows)| Count { name: name(what), rows }).collect())
}

/// The script of a text, and its language where it can be told.
fn told(text: &str) -> (Option<Script>, Option<Lang>) {
    match detect(text) {
        Some(info) => (Some(info.script()), info.is_reliable().then(|| info.lang())),
        None => (None, None),
    }
}

/// Those of many rows first; of as many, by name.
pub(super) fn most_frequent_first(mut counts: Vec<Count>) -> Vec<Count> {
    counts.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.name.cmp(&b.name)));
    counts
}
