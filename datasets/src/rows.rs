//! Reads text and its labels: one [`Row`] for each line of a TSV, CSV, JSONL or text file, plain or gzipped.
//!
//! How each format is written is in the modules below; which classes the labels stand for is settled by
//! [`reconcile`](crate::reconcile).

mod csv;
mod jsonl;
mod lines;
mod rest;
mod text;
mod tsv;

pub use jsonl::take_row;
pub use rest::{Cell, Rest};

use crate::Error;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::ops::ControlFlow;
use std::path::Path;

/// One labelled text, or a pair of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The text, or the first of two. Never blank.
    pub text: String,
    /// The second text where the task is about pairs.
    pub text_b: Option<String>,
    /// The label as the file has it.
    pub label: Option<RawLabel>,
    /// The line of the file that the row starts on, from 1.
    pub line: usize,
}

/// A label as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawLabel {
    /// A string. One of digits alone may still turn out to be a class id: see [`reconcile`](crate::reconcile).
    Name(String),
    /// A JSON integer.
    Id(u32),
}

/// Which columns hold what; `None` stands for the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The text, by default `text`.
    pub text: Option<String>,
    /// The second text of a pair, by default `text_b` where there is such a column.
    pub pair: Option<String>,
    /// The label, by default `label` where there is such a column.
    pub label: Option<String>,
}

/// Reads a file; its extension says the format (`.tsv`, `.csv`, `.jsonl`, `.json`, `.txt`, and each with `.gz`).
pub fn read_rows(path: &Path, columns: &Columns) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for_each_row(path, columns, |row| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// As [`read_rows`], one row at a time, so that a file may be larger than memory; `each` may end it early.
pub fn for_each_row(path: &Path, columns: &Columns, mut each: impl FnMut(Row) -> ControlFlow<()>) -> Result<(), Error> {
    for_each_record(path, columns, |row, _| each(row))
}

/// As [`for_each_row`], each row with the other columns that the file has.
pub fn for_each_record(
    path: &Path,
    columns: &Columns,
    mut each: impl FnMut(Row, Rest<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    let name = path.display().to_string();
    let format = Format::of(&name)?;
    let file = File::open(path).map_err(|cause| Error::Open { file: name.clone(), cause })?;
    format.read(&name, BufReader::new(file), columns, &mut each)
}

/// As [`read_rows`], from memory; the extension of `name` says the format.
pub fn parse_rows(name: &str, bytes: &[u8], columns: &Columns) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    Format::of(name)?.read(name, bytes, columns, &mut |row, _| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// What takes a file's rows, one after the other.
type Sink<'a> = &'a mut dyn FnMut(Row, Rest<'_>) -> ControlFlow<()>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Format {
    kind: Kind,
    gzipped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tsv,
    Csv,
    Jsonl,
    Text,
}

impl Format {
    fn of(name: &str) -> Result<Self, Error> {
        let lower = name.to_ascii_lowercase();
        let (stem, gzipped) = match lower.strip_suffix(".gz") {
            Some(stem) => (stem, true),
            None => (lower.as_str(), false),
        };
        let kind = match Path::new(stem).extension().and_then(|extension| extension.to_str()) {
            Some("tsv") => Kind::Tsv,
            Some("csv") => Kind::Csv,
            Some("jsonl" | "json") => Kind::Jsonl,
            Some("txt") => Kind::Text,
            _ => return Err(Error::UnknownFormat { file: name.to_owned() }),
        };
        Ok(Self { kind, gzipped })
    }

    fn read(self, file: &str, reader: impl BufRead, columns: &Columns, sink: Sink<'_>) -> Result<(), Error> {
        let mut none = true;
        let mut sink = |row, rest: Rest<'_>| {
            none = false;
            sink(row, rest)
        };
        if self.gzipped {
            self.read_plain(file, BufReader::new(MultiGzDecoder::new(reader)), columns, &mut sink)
        } else {
            self.read_plain(file, reader, columns, &mut sink)
        }?;
        if none {
            return Err(Error::NoRows { file: file.to_owned() });
        }
        Ok(())
    }

    fn read_plain(self, file: &str, reader: impl BufRead, columns: &Columns, sink: Sink<'_>) -> Result<(), Error> {
        let reader = without_byte_order_mark(reader).map_err(|cause| Error::Read { file: file.to_owned(), cause })?;
        match self.kind {
            Kind::Tsv => tsv::read(file, reader, columns, sink),
            Kind::Csv => csv::read(file, reader, columns, sink),
            Kind::Jsonl => jsonl::read(file, reader, columns, sink),
            Kind::Text => text::read(file, reader, columns, sink),
        }
    }
}

fn without_byte_order_mark(mut reader: impl BufRead) -> io::Result<impl BufRead> {
    let mut head = Vec::new();
    reader.by_ref().take(3).read_to_end(&mut head)?;
    if head == b"\xef\xbb\xbf" {
        head.clear();
    }
    Ok(Cursor::new(head).chain(reader))
}

/// Where a header puts the columns, for the formats that have one.
struct Header {
    names: Vec<String>,
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
    text_name: String,
}

impl Header {
    fn find(file: &str, names: &[&str], columns: &Columns) -> Result<Self, Error> {
        let position = |wanted: &str| names.iter().position(|name| *name == wanted);
        let named = |wanted: &str| {
            position(wanted).ok_or_else(|| Error::NoColumn {
                file: file.to_owned(),
                column: wanted.to_owned(),
                found: names.iter().map(|name| (*name).to_owned()).collect(),
            })
        };
        let optional = |wanted: &Option<String>, default: &str| match wanted {
            Some(wanted) => named(wanted).map(Some),
            None => Ok(position(default)),
        };
        let text_name = columns.text.clone().unwrap_or_else(|| "text".to_owned());
        Ok(Self {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            text: named(&text_name)?,
            pair: optional(&columns.pair, "text_b")?,
            label: optional(&columns.label, "label")?,
            text_name,
        })
    }

    /// A row from its cells; an empty pair or label is none.
    fn row(&self, file: &str, line: usize, cells: &[&str]) -> Result<Row, Error> {
        let expected = self.names.len();
        if cells.len() != expected {
            return Err(Error::ColumnCount { file: file.to_owned(), line, found: cells.len(), expected });
        }
        let filled = |column: Option<usize>| column.map(|column| cells[column]).filter(|cell| !cell.is_empty());
        if cells[self.text].trim().is_empty() {
            return Err(Error::MissingText { file: file.to_owned(), line, column: self.text_name.clone() });
        }
        Ok(Row {
            text: cells[self.text].to_owned(),
            text_b: filled(self.pair).map(str::to_owned),
            label: filled(self.label).map(|label| RawLabel::Name(label.to_owned())),
            line,
        })
    }

    /// The cells that no row has.
    fn rest<'a>(&'a self, cells: &'a [&'a str]) -> Rest<'a> {
        Rest::of_table(&self.names, cells, [Some(self.text), self.pair, self.label])
    }
}

#[cfg(test)]
mod tests;
