//! Where a header puts the columns, for the formats that have one.

use super::columns::{Columns, LabelColumn};
use super::rest::Rest;
use super::row::{EXPECTED_LABEL, GuessedLabel, Row};
use crate::Error;
use serde_json::Value;

pub(super) struct Header<'a> {
    names: Vec<String>,
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
    text_name: String,
    columns: &'a Columns,
}

impl<'a> Header<'a> {
    pub(super) fn find(file: &str, names: &[&str], columns: &'a Columns) -> Result<Self, Error> {
        let position = |wanted: &str| names.iter().position(|name| *name == wanted);
        let missing = |wanted: &str| Error::NoColumn {
            file: file.to_owned(),
            column: wanted.to_owned(),
            found: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let named = |wanted: &str| position(wanted).ok_or_else(|| missing(wanted));
        let pair = match &columns.pair {
            Some(wanted) => Some(named(wanted)?),
            None => position("text_b"),
        };
        let text_name = columns.text.clone().unwrap_or_else(|| "text".to_owned());
        let text = named(&text_name)?;
        let label = match (columns.label.find(|| file.to_owned(), names.iter().copied())?, &columns.label) {
            (None, LabelColumn::Named(wanted)) => return Err(missing(wanted)),
            (label, _) => label,
        };
        for column in [Some(text), pair, label].into_iter().flatten() {
            if names.iter().filter(|name| **name == names[column]).count() > 1 {
                return Err(Error::SameColumn { file: file.to_owned(), column: names[column].to_owned() });
            }
        }
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Ok(Self { names, text, pair, label, text_name, columns })
    }

    /// The label's column where it was not asked for by its name.
    pub(super) fn guessed_label(&self) -> GuessedLabel {
        let name = &self.names[self.label?];
        self.columns.label.is_guess(name).then(|| name.clone())
    }

    /// What a row has in the label's column, without blanks around it.
    pub(super) fn label_of<'c>(&self, cells: &[&'c str]) -> Option<&'c str> {
        cells.get(self.label?).map(|cell| cell.trim()).filter(|label| !label.is_empty())
    }

    /// How many columns there are.
    pub(super) fn width(&self) -> usize {
        self.names.len()
    }

    /// The cells that no row is made of.
    pub(super) fn rest<'c>(&'c self, cells: &'c [&'c str]) -> Rest<'c> {
        let taken = if self.columns.whole { [None; 3] } else { [Some(self.text), self.pair, self.label] };
        Rest::of_table(&self.names, cells, taken)
    }

    /// The cells that a row is made of, or all where they are asked for.
    pub(super) fn used<'c>(&self, cells: &'c [&'c str]) -> impl Iterator<Item = &'c str> {
        let columns = [Some(self.text), self.pair, self.label];
        let all = if self.columns.whole { cells } else { &[] };
        let few = if self.columns.whole { [None; 3] } else { columns };
        few.into_iter().flatten().filter_map(|column| cells.get(column).copied()).chain(all.iter().copied())
    }

    /// A row from its cells; an empty pair or label is none.
    pub(super) fn row(&self, file: &str, line: usize, cells: &[&str]) -> Result<Row, Error> {
        if cells.len() != self.width() {
            let (found, expected) = (cells.len(), self.width());
            return Err(Error::ColumnCount { file: file.to_owned(), line, found, expected, way_out: "" });
        }
        if cells[self.text].trim().is_empty() {
            return Err(Error::MissingText { place: format!("{file}, line {line}"), column: self.text_name.clone() });
        }
        let label = self.label.and_then(|column| Some((column, self.columns.label(cells[column])?)));
        if let Some((column, label)) = &label
            && is_list(label)
        {
            return Err(Error::WrongType {
                place: format!("{file}, line {line}"),
                column: self.names[*column].clone(),
                found: "a list".to_owned(),
                expected: EXPECTED_LABEL,
            });
        }
        Ok(Row {
            text: cells[self.text].to_owned(),
            text_b: self.pair.map(|column| cells[column]).filter(|cell| !cell.is_empty()).map(str::to_owned),
            label: label.map(|(_, label)| label),
            line,
        })
    }
}

/// Whether a label is a list in JSON, or of strings as Python writes them.
fn is_list(label: &str) -> bool {
    label.trim_start().starts_with('[') && serde_json::from_str::<Vec<Value>>(&label.replace('\'', "\"")).is_ok()
}
