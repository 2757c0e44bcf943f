//! Tables with quotes after RFC 4180: a header, quoted cells, line breaks within quotes, which stay as they are.

use super::columns::Columns;
use super::header::Header;
use super::row::{GuessedLabel, Sink};
use crate::Error;
use csv::{ByteRecord, ReaderBuilder, Terminator};
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

/// A line that is added behind the last one: it comes back as a record of its own, unless a quote is still open. It is no
/// UTF-8, so no row that can be read is like it.
const END: &[u8] = b"\xffend";

pub(super) fn read(
    file: &str,
    reader: impl BufRead,
    separator: u8,
    columns: &Columns,
    sink: Sink<'_>,
) -> Result<GuessedLabel, Error> {
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        // Flexible, so that the error for a short row is ours.
        .flexible(true)
        .terminator(Terminator::Any(b'\n'))
        .from_reader(UnixLineEnds { reader, separator, line: Vec::new(), read: 0, open: false, ended: false });
    let mut record = ByteRecord::new();
    let mut header: Option<Header<'_>> = None;
    while reader.read_byte_record(&mut record).map_err(|error| read_error(file, error))? {
        // The reader's own start of a record is off by the empty lines before it, so go back from its end.
        let breaks = count_breaks(record.as_slice());
        let end = reader.position().line() as usize;
        let last = &record[record.len() - 1];
        if last.ends_with(END) && !reader.read_byte_record(&mut ByteRecord::new()).map_err(|e| read_error(file, e))? {
            if record.len() == 1 && last == END {
                break;
            }
            // The quote opens where the last cell begins.
            return Err(Error::UnclosedQuote { file: file.to_owned(), line: end - count_breaks(last) });
        }
        let line = end.saturating_sub(1 + breaks);
        let cells: Vec<&str> = record
            .iter()
            .map(std::str::from_utf8)
            .collect::<Result<_, _>>()
            .map_err(|_| Error::InvalidUtf8 { file: file.to_owned(), line })?;
        match &header {
            None => header = Some(Header::find(file, &cells, columns)?),
            Some(header) => {
                if let ControlFlow::Break(()) = sink(header.row(file, line, &cells)?, header.rest(&cells)) {
                    break;
                }
            }
        }
    }
    Ok(header.and_then(|header| header.guessed_label()))
}

fn read_error(file: &str, error: csv::Error) -> Error {
    Error::Read { file: file.to_owned(), cause: error.into() }
}

fn count_breaks(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Ends every line with `\n` alone, the last one too, so that lines can be counted, and adds [`END`]. Breaks within quotes
/// are part of a text and stay.
struct UnixLineEnds<R> {
    reader: R,
    separator: u8,
    line: Vec<u8>,
    read: usize,
    /// Whether a quote is open.
    open: bool,
    ended: bool,
}

impl<R> UnixLineEnds<R> {
    /// Follows the quotes of the line, as the reader behind this one does.
    fn follow(&mut self) {
        let mut begins = true;
        let mut bytes = self.line.iter().peekable();
        while let Some(&byte) = bytes.next() {
            if self.open && byte == b'"' && bytes.next_if(|next| **next == b'"').is_none() {
                self.open = false;
            } else if !self.open && byte == b'"' && begins {
                self.open = true;
            }
            begins = byte == self.separator;
        }
    }
}

impl<R: BufRead> Read for UnixLineEnds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.line.len() && !self.ended {
            self.line.clear();
            self.read = 0;
            if self.reader.read_until(b'\n', &mut self.line)? == 0 {
                self.ended = true;
                self.line.extend_from_slice(END);
            } else {
                self.follow();
                if !self.open {
                    let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
                    let text = text.strip_suffix(b"\r").unwrap_or(text).len();
                    self.line.truncate(text);
                    self.line.push(b'\n');
                }
            }
        }
        let count = (&self.line[self.read..]).read(buffer)?;
        self.read += count;
        Ok(count)
    }
}
