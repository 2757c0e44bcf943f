//! JSON lines: one object a line.

use super::columns::Columns;
use super::lines::Lines;
use super::objects::{Objects, Unit};
use super::rest::Rest;
use super::row::{GuessedLabel, Sink};
use crate::Error;
use serde_json::{Map, Value};
use std::io::BufRead;
use std::ops::ControlFlow;

pub(super) fn read(file: &str, reader: impl BufRead, columns: &Columns, sink: Sink<'_>) -> Result<GuessedLabel, Error> {
    let mut lines = Lines::new(file, reader);
    let mut objects = Objects::new(file, Unit::Line, columns);
    loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                columns.skipping.pass(error)?;
                continue;
            }
        };
        if line.text.trim().is_empty() {
            continue;
        }
        let object = serde_json::from_str::<Map<String, Value>>(line.text).map_err(|error| Error::Json {
            file: file.to_owned(),
            line: line.number,
            reason: explained(line.text, &error),
        });
        let taken = object.and_then(|mut object| Ok((objects.take(line.number, &mut object)?, object)));
        let (row, object) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                columns.skipping.pass(error)?;
                continue;
            }
        };
        if let ControlFlow::Break(()) = sink(row, Rest::of_object(&object)) {
            return Ok(objects.guessed());
        }
    }
    objects.finish()
}

/// What is wrong with a line. NaN and Infinity are named: Python writes them, and no other reader takes them.
fn explained(line: &str, error: &serde_json::Error) -> String {
    // Behind a sign the column is one further.
    let starts = [error.column().saturating_sub(1), error.column().saturating_sub(2)];
    let words = ["NaN", "-Infinity", "Infinity"];
    let found = words.into_iter().find(|word| {
        starts.iter().any(|&start| line.as_bytes().get(start..).is_some_and(|rest| rest.starts_with(word.as_bytes())))
    });
    match found {
        Some(word) => format!("{word} at column {} is no JSON; null stands for what is missing", error.column()),
        None if error.is_eof() => {
            format!("{error}; an object that spans several lines is read from an array, between [ and ]")
        }
        None => error.to_string(),
    }
}
