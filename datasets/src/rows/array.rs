//! A JSON array of objects, read one object at a time.

use super::columns::Columns;
use super::objects::{Objects, Unit};
use super::rest::Rest;
use super::row::{GuessedLabel, Sink};
use super::skipping::Skipping;
use crate::Error;
use serde::Deserializer;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

pub(super) fn read(file: &str, reader: impl BufRead, columns: &Columns, sink: Sink<'_>) -> Result<GuessedLabel, Error> {
    let mut reader = Last { reader, bytes: [0; 2] };
    let mut elements = Elements {
        objects: Objects::new(file, Unit::Row, columns),
        skipping: &columns.skipping,
        sink,
        count: 0,
        end: None,
    };
    let mut json = serde_json::Deserializer::from_reader(&mut reader);
    let read = json.deserialize_seq(&mut elements).and_then(|()| json.end());
    let Elements { objects, count, end, .. } = elements;
    match (end, read) {
        (Some(End::Refused(error)), _) => Err(error),
        (Some(End::Enough), _) => Ok(objects.guessed()),
        (None, Err(error)) if error.is_io() => Err(Error::Read { file: file.to_owned(), cause: error.into() }),
        (None, Err(error)) => {
            let reason = explained(&error, reader.bytes);
            Err(Error::JsonArray { file: file.to_owned(), row: count + 1, reason })
        }
        (None, Ok(())) => objects.finish(),
    }
}

/// What is wrong with an array, where these bytes were the last that were read of it. NaN and Infinity are named: Python writes
/// them, and no other reader takes them.
fn explained(error: &serde_json::Error, last: [u8; 2]) -> String {
    let word = match last {
        [_, b'N'] => "NaN",
        // Behind a sign the parser has taken the first letter, and looks at the next one.
        [_, b'I'] | [b'I', b'n'] => "Infinity",
        _ if error.is_eof() => return format!("{error}; the file was cut short: fetch or write it again"),
        _ => return error.to_string(),
    };
    let (line, column) = (error.line(), error.column());
    format!("{word} at line {line} column {column} is no JSON; null stands for what is missing")
}

/// A file, and the last bytes that were read of it.
struct Last<R> {
    reader: R,
    bytes: [u8; 2],
}

impl<R: Read> Read for Last<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        for &byte in &buffer[..count] {
            self.bytes = [self.bytes[1], byte];
        }
        Ok(count)
    }
}

struct Elements<'a, 's> {
    objects: Objects<'a>,
    skipping: &'a Skipping,
    sink: Sink<'s>,
    /// Read so far.
    count: usize,
    end: Option<End>,
}

/// Why an array is not read to its end.
enum End {
    Enough,
    Refused(Error),
}

impl<'de> Visitor<'de> for &mut Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(mut object) = elements.next_element::<Map<String, Value>>()? {
            let row = self.objects.take(self.count + 1, &mut object);
            self.count += 1;
            let taken = row.map(|row| (self.sink)(row, Rest::of_object(&object)));
            self.end = match taken.or_else(|error| self.skipping.pass(error).map(ControlFlow::Continue)) {
                Ok(ControlFlow::Continue(())) => continue,
                Ok(ControlFlow::Break(())) => Some(End::Enough),
                Err(error) => Some(End::Refused(error)),
            };
            return Err(A::Error::custom("no more is read"));
        }
        Ok(())
    }
}
