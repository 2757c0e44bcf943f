//! A JSON array of objects, read one object at a time.

use super::columns::Columns;
use super::objects::Objects;
use super::rest::Rest;
use super::row::{GuessedLabel, Sink};
use crate::Error;
use serde::Deserializer;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::io::BufRead;
use std::ops::ControlFlow;

/// The first object counts as line 1.
pub(super) fn read(file: &str, reader: impl BufRead, columns: &Columns, sink: Sink<'_>) -> Result<GuessedLabel, Error> {
    let mut elements = Elements { objects: Objects::new(file, columns), sink, count: 0, end: None };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let read = json.deserialize_seq(&mut elements).and_then(|()| json.end());
    let Elements { objects, count, end, .. } = elements;
    match (end, read) {
        (Some(End::Refused(error)), _) => Err(error),
        (Some(End::Enough), _) => Ok(objects.guessed()),
        (None, Err(error)) => {
            Err(Error::JsonArray { file: file.to_owned(), row: count + 1, reason: error.to_string() })
        }
        (None, Ok(())) => objects.finish(),
    }
}

struct Elements<'a, 's> {
    objects: Objects<'a>,
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
            self.end = match taken {
                Ok(ControlFlow::Continue(())) => continue,
                Ok(ControlFlow::Break(())) => Some(End::Enough),
                Err(error) => Some(End::Refused(error)),
            };
            return Err(A::Error::custom("no more is read"));
        }
        Ok(())
    }
}
