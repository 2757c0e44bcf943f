//! Reads text and its labels: one [`Row`] for each line of a TSV, CSV, JSONL or text file, plain or compressed, for each object of
//! a JSON array and for each row of a Parquet file.
//!
//! How each format is written is in the modules below; which classes the labels stand for is settled by
//! [`reconcile`](crate::reconcile).

mod array;
mod columns;
mod header;
mod jsonl;
mod lines;
mod objects;
mod parquet;
mod quoted;
mod rest;
mod row;
mod skipping;
mod text;
mod unquoted;

pub use columns::{Columns, LabelColumn, Quotes};
pub use objects::{Objects, Unit};
pub use rest::{Cell, Rest};
pub use row::Row;
pub use skipping::{Skipped, Skipping};

use crate::Error;
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use row::{GuessedLabel, Sink};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::ops::ControlFlow;
use std::path::Path;

/// Reads a file; its extension says the format (`.tsv`, `.csv`, `.jsonl`, `.json`, `.txt`, each also with `.gz` or `.zst`, and
/// `.parquet`).
pub fn read_rows(path: &Path, columns: &Columns) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for_each_row(path, columns, |row| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// As [`read_rows`], one row at a time, so that a file may be larger than memory; `each` may end it early. Returns the name of
/// the labels' column where it was found under another name than `label`.
pub fn for_each_row(
    path: &Path,
    columns: &Columns,
    mut each: impl FnMut(Row) -> ControlFlow<()>,
) -> Result<Option<String>, Error> {
    for_each_record(path, columns, |row, _| each(row))
}

/// As [`for_each_row`], each row with the other columns that the file has.
pub fn for_each_record(
    path: &Path,
    columns: &Columns,
    mut each: impl FnMut(Row, Rest<'_>) -> ControlFlow<()>,
) -> Result<Option<String>, Error> {
    let name = path.display().to_string();
    let format = Format::of(&name)?;
    let file = File::open(path).map_err(|cause| Error::Open { file: name.clone(), cause })?;
    match format {
        Format::Stream(stream) => stream.read(&name, BufReader::new(file), columns, &mut each),
        Format::Parquet => parquet::read(&name, file, columns, &mut each),
    }
}

/// As [`for_each_record`]; `-.jsonl`, `-.tsv` and the like are standard input in that format. That can be read once alone, which
/// is enough for some.
pub(crate) fn for_each_record_or_stdin(
    path: &Path,
    columns: &Columns,
    mut each: impl FnMut(Row, Rest<'_>) -> ControlFlow<()>,
) -> Result<Option<String>, Error> {
    let name = path.display().to_string();
    if !name.starts_with("-.") {
        return for_each_record(path, columns, each);
    }
    match Format::of(&name)? {
        Format::Stream(stream) => stream.read("standard input", io::stdin().lock(), columns, &mut each),
        Format::Parquet => Err(Error::ParquetStdin),
    }
}

/// As [`read_rows`], from memory; the extension of `name` says the format.
pub fn parse_rows(name: &str, bytes: &[u8], columns: &Columns) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    let mut push = |row, _: Rest<'_>| {
        rows.push(row);
        ControlFlow::Continue(())
    };
    match Format::of(name)? {
        Format::Stream(stream) => stream.read(name, bytes, columns, &mut push)?,
        Format::Parquet => parquet::read(name, Bytes::copy_from_slice(bytes), columns, &mut push)?,
    };
    Ok(rows)
}

/// What the numbers of a file's rows count: lines, or where these mean nothing, rows. A file that cannot be read has lines.
pub fn unit_of(path: &Path) -> Unit {
    let first = |stream: Stream| {
        let file = BufReader::new(File::open(path).ok()?);
        match stream.compression {
            Compression::None => begins_array(file).ok().map(|(array, _)| array),
            Compression::Gzip => begins_array(BufReader::new(MultiGzDecoder::new(file))).ok().map(|(array, _)| array),
            Compression::Zstd => {
                begins_array(BufReader::new(zstd::Decoder::with_buffer(file).ok()?)).ok().map(|(array, _)| array)
            }
        }
    };
    match Format::of(&path.display().to_string()) {
        Ok(Format::Parquet) => Unit::Row,
        Ok(Format::Stream(stream)) if stream.kind == Kind::Json && first(stream) == Some(true) => Unit::Row,
        _ => Unit::Line,
    }
}

/// Whether a file of this name has columns to choose from, as all but plain text have: also one of a kind that is not read,
/// whose lines would be anything but texts.
pub fn has_columns(path: &Path) -> bool {
    let name = path.display().to_string().to_ascii_lowercase();
    let stem = [".gz", ".zst", ".bz2", ".xz"].into_iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
    match Format::of(&name) {
        Ok(format) => !matches!(format, Format::Stream(Stream { kind: Kind::Text, .. })),
        Err(_) => OTHER_TABLES.iter().any(|extension| stem.ends_with(extension)),
    }
}

/// Tables of other programs, or compressed in other ways.
const OTHER_TABLES: [&str; 14] = [
    ".parquet", ".arrow", ".feather", ".orc", ".avro", ".xlsx", ".xls", ".ods", ".pkl", ".npy", ".npz", ".csv", ".tsv",
    ".jsonl",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Read from its beginning to its end.
    Stream(Stream),
    Parquet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    kind: Kind,
    compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// With a header.
    Table {
        separator: char,
        /// What they mean where nobody says.
        quotes: Quotes,
    },
    /// Objects, one a line or in an array.
    Json,
    Text,
}

impl Format {
    fn of(name: &str) -> Result<Self, Error> {
        let lower = name.to_ascii_lowercase();
        let compressed = [(".gz", Compression::Gzip), (".zst", Compression::Zstd)];
        let found = compressed.into_iter().find_map(|(suffix, how)| Some((lower.strip_suffix(suffix)?, how)));
        let (stem, compression) = found.unwrap_or((lower.as_str(), Compression::None));
        let kind = match Path::new(stem).extension().and_then(|extension| extension.to_str()) {
            Some("tsv") => Kind::Table { separator: '\t', quotes: Quotes::None },
            Some("csv") => Kind::Table { separator: ',', quotes: Quotes::Csv },
            Some("jsonl" | "json") => Kind::Json,
            Some("txt") => Kind::Text,
            Some("parquet") if compression == Compression::None => return Ok(Self::Parquet),
            _ => return Err(Error::UnknownFormat { file: name.to_owned() }),
        };
        Ok(Self::Stream(Stream { kind, compression }))
    }
}

impl Stream {
    fn read(self, file: &str, reader: impl BufRead, columns: &Columns, sink: Sink<'_>) -> Result<GuessedLabel, Error> {
        let mut none = true;
        let mut sink = |row: Row, rest: Rest<'_>| {
            none = false;
            sink(row, rest)
        };
        let guessed = match self.compression {
            Compression::None => self.read_plain(file, reader, columns, &mut sink),
            Compression::Gzip => self.read_plain(file, BufReader::new(MultiGzDecoder::new(reader)), columns, &mut sink),
            Compression::Zstd => {
                let decoder = zstd::Decoder::with_buffer(reader);
                let decoder = decoder.map_err(|cause| Error::Read { file: file.to_owned(), cause })?;
                self.read_plain(file, BufReader::new(decoder), columns, &mut sink)
            }
        }?;
        if none {
            let skipped = columns.skipping.skipped().unwrap_or_default();
            return Err(match skipped.first.into_iter().next() {
                Some(first) => Error::AllSkipped { file: file.to_owned(), rows: skipped.rows, first },
                None => Error::NoRows { file: file.to_owned() },
            });
        }
        Ok(guessed)
    }

    fn read_plain(
        self,
        file: &str,
        reader: impl BufRead,
        columns: &Columns,
        sink: Sink<'_>,
    ) -> Result<GuessedLabel, Error> {
        let unreadable = |cause| Error::Read { file: file.to_owned(), cause };
        let (head, reader) = without_byte_order_mark(reader).map_err(unreadable)?;
        if is_utf16(&head) {
            return Err(Error::Utf16 { file: file.to_owned() });
        }
        let reader = with_line_ends(reader).map_err(unreadable)?;
        let reader = BufReader::new(reader);
        match self.kind {
            Kind::Table { separator, quotes } => match columns.quotes.unwrap_or(quotes) {
                Quotes::None => unquoted::read(file, reader, separator, columns, sink),
                Quotes::Csv => quoted::read(file, reader, separator as u8, columns, sink),
            },
            Kind::Json => {
                let begins = begins_array(reader).map_err(|cause| Error::Read { file: file.to_owned(), cause });
                let (array, reader) = begins?;
                match array {
                    true => array::read(file, reader, columns, sink),
                    false => jsonl::read(file, reader, columns, sink),
                }
            }
            Kind::Text => text::read(file, reader, columns, sink),
        }
    }
}

/// How much of a file is looked at for its line ends.
const HEAD_BYTES: u64 = 1 << 16;

/// A file whose lines all end in `\r`, as old Macs and some spreadsheets write it, with `\n` instead. Where there is any `\n`,
/// a lone `\r` is part of a text.
fn with_line_ends(mut reader: impl BufRead) -> io::Result<BareReturns<impl BufRead>> {
    let mut head = Vec::new();
    reader.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    let bare = head.contains(&b'\r') && !head.contains(&b'\n');
    Ok(BareReturns { reader: Cursor::new(head).chain(reader), bare })
}

/// Reads `\r` as `\n` where it is `bare`.
struct BareReturns<R> {
    reader: R,
    bare: bool,
}

impl<R: Read> Read for BareReturns<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if self.bare {
            buffer[..count].iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        }
        Ok(count)
    }
}

/// Whether the first thing in a file is the bracket of an array; with the file from its beginning.
fn begins_array(mut reader: impl BufRead) -> io::Result<(bool, impl BufRead)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while head.last().is_none_or(u8::is_ascii_whitespace) && reader.read(&mut byte)? == 1 {
        head.extend(byte);
    }
    Ok((head.last() == Some(&b'['), Cursor::new(head).chain(reader)))
}

/// The file from behind its byte order mark, with its first bytes.
fn without_byte_order_mark(mut reader: impl BufRead) -> io::Result<(Vec<u8>, impl BufRead)> {
    let mut head = Vec::new();
    reader.by_ref().take(3).read_to_end(&mut head)?;
    if head == b"\xef\xbb\xbf" {
        head.clear();
    }
    Ok((head.clone(), Cursor::new(head).chain(reader)))
}

/// Whether these are the first bytes of UTF-16: its byte order mark, or every other byte is 0.
fn is_utf16(head: &[u8]) -> bool {
    matches!(head, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, _] | [0, _, 0])
}

#[cfg(test)]
mod tests;
