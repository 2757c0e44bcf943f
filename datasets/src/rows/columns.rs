//! How a file is to be read: which columns hold what, what stands for no label, and whether quotes mean anything.

use super::skipping::Skipping;
use crate::Error;
use crate::whole::whole_number;
use serde::{Deserialize, Serialize};

/// Which columns hold what, and how their cells are read; the default is what most files have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The text, by default `text`.
    pub text: Option<String>,
    /// The second text of a pair, by default `text_b` where there is such a column.
    pub pair: Option<String>,
    /// The label.
    pub label: LabelColumn,
    /// What stands in the label's column of a row that has none, besides nothing at all: `-1` in many data sets.
    pub unlabelled: Option<String>,
    /// Quotes in TSV and CSV; by default none in TSV and those of RFC 4180 in CSV.
    pub quotes: Option<Quotes>,
    /// Whether the other columns that come with a row are all that the file has, those of the row too.
    pub whole: bool,
    /// Whether rows that cannot be read are skipped.
    pub skipping: Skipping,
}

/// Which column holds the label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LabelColumn {
    /// `label`, or where there is none of that name, the one column called `labels` or either of them in other letters.
    #[default]
    Usual,
    /// The column of this name, which must be there.
    Named(String),
    /// None: labels do not matter.
    Ignored,
}

/// What quotes mean in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quotes {
    /// Nothing: they are part of a cell, as in the files of GLUE.
    None,
    /// A cell in quotes may hold separators and line breaks, and quotes that are doubled: RFC 4180, and what pandas and
    /// spreadsheets write.
    Csv,
}

impl Quotes {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::None, Self::Csv];

    /// The word for it on a command line and in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Csv => "csv",
        }
    }
}

impl Columns {
    /// The label of a cell; an empty or blank one is none.
    pub(crate) fn label(&self, cell: &str) -> Option<String> {
        let same = |value: &str| {
            let (cell, value) = (cell.trim(), value.trim());
            cell == value || whole_number(cell).is_some_and(|number| whole_number(value) == Some(number))
        };
        let trimmed = cell.trim();
        let labelled = !trimmed.is_empty() && !self.unlabelled.as_deref().is_some_and(same);
        // A number is the same one with spaces around it.
        let label = if whole_number(trimmed).is_some() { trimmed } else { cell };
        labelled.then(|| label.to_owned())
    }
}

impl LabelColumn {
    /// Whether a column of this name is one that nobody asked for by it.
    pub(super) fn is_guess(&self, name: &str) -> bool {
        *self == Self::Usual && name != "label"
    }

    /// The column among these; refuses a choice between several that may be meant.
    pub(crate) fn find<'a>(
        &self,
        place: impl Fn() -> String,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Option<usize>, Error> {
        let position = |wanted: &str| names.clone().position(|name| name == wanted);
        match self {
            Self::Ignored => return Ok(None),
            Self::Named(name) => return Ok(position(name)),
            Self::Usual => {}
        }
        if let Some(column) = position("label") {
            return Ok(Some(column));
        }
        let is_usual = |name: &str| ["label", "labels"].iter().any(|usual| name.trim().eq_ignore_ascii_case(usual));
        let mut usual = names.clone().enumerate().filter(|(_, name)| is_usual(name));
        match (usual.next(), usual.next()) {
            (Some((_, one)), Some((_, other))) => {
                Err(Error::SeveralLabelColumns { place: place(), one: one.to_owned(), other: other.to_owned() })
            }
            (column, _) => Ok(column.map(|(column, _)| column)),
        }
    }
}
