//! Rows from JSON objects, whatever they stand in. Other keys than the columns asked for are left alone.

use super::columns::{Columns, LabelColumn};
use super::row::{EXPECTED_LABEL, GuessedLabel, Row};
use crate::Error;
use serde_json::{Map, Value};

/// Rows from objects, one after another: those of JSON Lines, and of other formats whose rows are read as such.
pub struct Objects<'a> {
    file: &'a str,
    unit: Unit,
    columns: &'a Columns,
    named: NamedColumns<'a>,
    guessed: GuessedLabel,
}

/// What the numbers of rows count, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Lines of a file.
    Line,
    /// Objects or records, wherever their lines are.
    Row,
}

impl Unit {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Row => "row",
        }
    }
}

impl<'a> Objects<'a> {
    /// No rows yet; `file` is its name in messages.
    pub fn new(file: &'a str, unit: Unit, columns: &'a Columns) -> Self {
        Self { file, unit, columns, named: NamedColumns::new(columns), guessed: None }
    }

    /// Takes the row of this number out of an object, and leaves its other keys there.
    ///
    /// # Errors
    /// A missing text or a value of the wrong type; the message names file and row.
    pub fn take(&mut self, line: usize, object: &mut Map<String, Value>) -> Result<Row, Error> {
        self.named.see(object);
        let mut taken = Object {
            place: format!("{}, {} {line}", self.file, self.unit.name()),
            line,
            columns: self.columns,
            object,
        };
        let label_column = taken.label_column()?;
        if self.guessed.is_none() {
            self.guessed = label_column.clone().filter(|name| self.columns.label.is_guess(name));
        }
        taken.row(label_column)
    }

    /// The name of the label column so far, where nobody asked for it.
    pub(super) fn guessed(self) -> GuessedLabel {
        self.guessed
    }

    /// After the last row: the name of the label column, where nobody asked for it and it is not called `label`.
    ///
    /// # Errors
    /// A named pair or label column that no row has, or no rows at all.
    pub fn finish(self) -> Result<Option<String>, Error> {
        self.named.check(self.file)?;
        Ok(self.guessed)
    }
}

struct Object<'a> {
    /// As messages have it.
    place: String,
    line: usize,
    columns: &'a Columns,
    object: &'a mut Map<String, Value>,
}

impl Object<'_> {
    fn row(&mut self, label_column: Option<String>) -> Result<Row, Error> {
        let columns = self.columns;
        let text_column = columns.text.as_deref().unwrap_or("text");
        if !self.object.contains_key(text_column) {
            return Err(Error::NoColumn {
                file: self.place.clone(),
                column: text_column.to_owned(),
                found: self.object.keys().cloned().collect(),
            });
        }
        let text = self
            .string(text_column)?
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| Error::MissingText { place: self.place.clone(), column: text_column.to_owned() })?;
        let text_b = self.string(columns.pair.as_deref().unwrap_or("text_b"))?.filter(|text| !text.is_empty());
        let label = label_column.map(|column| self.label(&column)).transpose()?.flatten();
        Ok(Row { text, text_b, label, line: self.line })
    }

    /// Takes a value out of the object, or leaves it there where the object is to stay whole.
    fn value(&mut self, column: &str) -> Option<Value> {
        match self.columns.whole {
            true => self.object.get(column).cloned(),
            false => self.object.shift_remove(column),
        }
    }

    /// Takes a string out of the object; `null` and no such key are `None`.
    fn string(&mut self, column: &str) -> Result<Option<String>, Error> {
        match self.value(column) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(column, &other, "a string")),
        }
    }

    /// The key that the label stands under.
    fn label_column(&self) -> Result<Option<String>, Error> {
        let place = || self.place.clone();
        let position = self.columns.label.find(place, self.object.keys().map(String::as_str))?;
        Ok(position.and_then(|position| self.object.keys().nth(position)).cloned())
    }

    /// The label as a table would spell it.
    fn label(&mut self, column: &str) -> Result<Option<String>, Error> {
        match self.value(column) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) => Ok(self.columns.label(&name)),
            Some(Value::Number(number)) => Ok(self.columns.label(&number.to_string())),
            // As Python writes it into a table.
            Some(Value::Bool(truth)) => Ok(self.columns.label(if truth { "True" } else { "False" })),
            Some(other) => Err(self.wrong_type(column, &other, EXPECTED_LABEL)),
        }
    }

    fn wrong_type(&self, column: &str, value: &Value, expected: &'static str) -> Error {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("the truth value {value}"),
            Value::Number(number) => format!("the number {number}"),
            Value::String(_) => "a string".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        Error::WrongType { place: self.place.clone(), column: column.to_owned(), found, expected }
    }
}

/// A pair or label column that the user named must be somewhere in the file; one row may lack it.
struct NamedColumns<'a> {
    missing: Vec<&'a str>,
    first_keys: Option<Vec<String>>,
}

impl<'a> NamedColumns<'a> {
    fn new(columns: &'a Columns) -> Self {
        let label = match &columns.label {
            LabelColumn::Named(name) => Some(name.as_str()),
            LabelColumn::Usual | LabelColumn::Ignored => None,
        };
        let missing = columns.pair.as_deref().into_iter().chain(label).collect();
        Self { missing, first_keys: None }
    }

    fn see(&mut self, object: &Map<String, Value>) {
        self.first_keys.get_or_insert_with(|| object.keys().cloned().collect());
        self.missing.retain(|column| !object.contains_key(*column));
    }

    fn check(self, file: &str) -> Result<(), Error> {
        let found = self.first_keys.ok_or_else(|| Error::NoRows { file: file.to_owned() })?;
        match self.missing.first() {
            Some(column) => Err(Error::NoColumn { file: file.to_owned(), column: (*column).to_owned(), found }),
            None => Ok(()),
        }
    }
}
