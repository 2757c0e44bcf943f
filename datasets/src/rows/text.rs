//! Plain text: one text a line, without labels. Blank lines are left out.

use super::columns::{Columns, LabelColumn};
use super::lines::Lines;
use super::rest::Rest;
use super::row::{GuessedLabel, Row, Sink};
use crate::Error;
use std::io::BufRead;
use std::ops::ControlFlow;

pub(super) fn read(file: &str, reader: impl BufRead, columns: &Columns, sink: Sink<'_>) -> Result<GuessedLabel, Error> {
    let label = match &columns.label {
        LabelColumn::Named(name) => Some(name),
        LabelColumn::Usual | LabelColumn::Ignored => None,
    };
    if let Some(column) = columns.text.iter().chain(&columns.pair).chain(label).next() {
        return Err(Error::NoColumn { file: file.to_owned(), column: column.clone(), found: Vec::new() });
    }
    let mut lines = Lines::new(file, reader);
    loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                columns.skipping.pass(error)?;
                continue;
            }
        };
        let text = line.text.trim();
        if text.is_empty() {
            continue;
        }
        let row = Row { text: text.to_owned(), text_b: None, label: None, line: line.number };
        if let ControlFlow::Break(()) = sink(row, Rest::none()) {
            break;
        }
    }
    Ok(None)
}
