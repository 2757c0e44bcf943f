//! Tables with quotes after RFC 4180: a header, quoted cells, line breaks within quotes, which stay as they are.

use super::columns::Columns;
use super::header::Header;
use super::row::{GuessedLabel, Sink};
use crate::Error;
use csv::{ByteRecord, ReaderBuilder, Terminator};
use std::collections::HashSet;
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

/// A line that is added behind the last one: it comes back as a record of its own, unless a quote is still open. It is no
/// UTF-8, so no row that can be read is like it.
const END: &[u8] = b"\xffend";

/// What to do about a row with more cells than the header has.
const WAY_OUT: &str = "; a text with a separator in it stands in quotes";

pub(super) fn read(
    file: &str,
    reader: impl BufRead,
    separator: u8,
    columns: &Columns,
    sink: Sink<'_>,
) -> Result<GuessedLabel, Error> {
    let mut swallowed = columns.quotes.is_none().then(Swallowed::default);
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        // Flexible, so that the error for a short row is ours.
        .flexible(true)
        .terminator(Terminator::Any(b'\n'))
        .from_reader(UnixLineEnds::new(reader, separator));
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
        let cells: Result<Vec<&str>, _> = record.iter().map(std::str::from_utf8).collect();
        let cells = match cells.map_err(|_| Error::InvalidUtf8 { file: file.to_owned(), line }) {
            Ok(cells) => cells,
            Err(error) if header.is_some() => {
                columns.skipping.pass(error)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        match &header {
            None => header = Some(Header::find(file, &cells, columns)?),
            Some(header) => {
                if let Some(swallowed) = &mut swallowed {
                    swallowed.see(line, &cells, header, separator);
                }
                let row = header.row(file, line, &cells).map_err(|error| match error {
                    Error::ColumnCount { file, line, found, expected, .. } if found > expected => {
                        Error::ColumnCount { file, line, found, expected, way_out: WAY_OUT }
                    }
                    error => error,
                });
                match row {
                    Ok(row) => {
                        if let ControlFlow::Break(()) = sink(row, header.rest(&cells)) {
                            break;
                        }
                    }
                    Err(error) => columns.skipping.pass(error)?,
                }
            }
        }
    }
    if let Some((line, lines)) = swallowed.and_then(|swallowed| swallowed.found()) {
        return Err(Error::RowsWithinQuotes { file: file.to_owned(), line, lines });
    }
    Ok(header.and_then(|header| header.guessed_label()))
}

fn read_error(file: &str, error: csv::Error) -> Error {
    let cause = match error.into_kind() {
        csv::ErrorKind::Io(cause) => cause,
        other => io::Error::other(format!("{other:?}")),
    };
    match cause.get_ref().and_then(|inner| inner.downcast_ref::<TextBehindQuote>()) {
        Some(&TextBehindQuote { line, closed }) => Error::TextBehindQuote { file: file.to_owned(), line, closed },
        None => Error::Read { file: file.to_owned(), cause },
    }
}

/// Cells over several lines, each of which is a row by itself: what stands between a quote that nobody closed and one that
/// happens to stand at the end of a later cell. A text may look so by chance, but hardly with a label in the right place.
#[derive(Default)]
struct Swallowed {
    /// The first labels of the file; enough to know those of a classifier.
    labels: HashSet<String>,
    /// The line, and the labels that its lines would have.
    suspects: Vec<(usize, Vec<String>)>,
}

impl Swallowed {
    const MOST_LABELS: usize = 10_000;

    fn see(&mut self, line: usize, cells: &[&str], header: &Header<'_>, separator: u8) {
        let Some(label) = header.label_of(cells) else { return };
        if self.labels.len() < Self::MOST_LABELS && !self.labels.contains(label) {
            self.labels.insert(label.to_owned());
        }
        if !cells.iter().any(|cell| cell.contains('\n')) {
            return;
        }
        let separator = char::from(separator).to_string();
        let joined = cells.join(&separator);
        let labels = joined.lines().map(|line| {
            let cells: Vec<&str> = line.split(&separator).collect();
            Some(header.label_of(&cells).filter(|_| cells.len() == header.width())?.to_owned())
        });
        let labels: Option<Vec<String>> = labels.collect();
        self.suspects.extend(labels.filter(|labels| labels.len() > 1).map(|labels| (line, labels)));
    }

    /// The first of such cells whose lines all have labels of the file: its line, and over how many it goes.
    fn found(&self) -> Option<(usize, usize)> {
        let known = |labels: &Vec<String>| labels.iter().all(|label| self.labels.contains(label));
        let (line, labels) = self.suspects.iter().find(|(_, labels)| known(labels))?;
        Some((*line, labels.len()))
    }
}

/// A quote that closes a cell of several lines and has text behind it.
#[derive(Debug, thiserror::Error)]
#[error("text behind the quote that closes the cell of line {line}")]
struct TextBehindQuote {
    line: usize,
    closed: usize,
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
    /// The number of the line.
    number: usize,
    /// The line on which a quote has opened that is still open.
    open: Option<usize>,
    ended: bool,
}

impl<R> UnixLineEnds<R> {
    fn new(reader: R, separator: u8) -> Self {
        Self { reader, separator, line: Vec::new(), read: 0, number: 0, open: None, ended: false }
    }

    /// Follows the quotes of the line, as the reader behind this one does, which takes text behind a closing quote as part of
    /// the cell. Where the cell has several lines, that quote was rather to open another one, and is refused.
    fn follow(&mut self) -> Result<(), TextBehindQuote> {
        self.number += 1;
        let mut begins = true;
        let mut bytes = self.line.iter().peekable();
        while let Some(&byte) = bytes.next() {
            match self.open {
                Some(line) if byte == b'"' && bytes.next_if(|next| **next == b'"').is_none() => {
                    self.open = None;
                    let ends = bytes.peek().is_none_or(|next| [self.separator, b'\r', b'\n'].contains(next));
                    if !ends && line < self.number {
                        return Err(TextBehindQuote { line, closed: self.number });
                    }
                }
                None if byte == b'"' && begins => self.open = Some(self.number),
                _ => {}
            }
            begins = byte == self.separator;
        }
        Ok(())
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
                self.follow().map_err(io::Error::other)?;
                if self.open.is_none() {
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
