//! Tables as GLUE has them: a header, then cells between tabs (or commas), with no quoting of any kind.

use super::columns::{Columns, Quotes};
use super::header::Header;
use super::lines::Lines;
use super::row::{GuessedLabel, Sink};
use crate::Error;
use std::io::BufRead;
use std::ops::ControlFlow;

/// What to do about a row that may have been written with quotes.
const WAY_OUT: &str = "; if cells stand in quotes, as pandas writes them, read them with --quotes csv";

/// Reads a table. Unless it is said that quotes mean nothing, cells that are quoted all the same are refused: read as they
/// stand, they would be other texts than were written.
pub(super) fn read(
    file: &str,
    reader: impl BufRead,
    separator: char,
    columns: &Columns,
    sink: Sink<'_>,
) -> Result<GuessedLabel, Error> {
    let mut lines = Lines::new(file, reader);
    let Some(first) = lines.next()? else {
        return Ok(None);
    };
    let suspicious = columns.quotes != Some(Quotes::None);
    let quoted = |line| Error::QuotedCell { file: file.to_owned(), line };
    let names: Vec<_> = first.text.split(separator).collect();
    if suspicious && names.iter().any(|name| in_quotes(name).is_some()) {
        return Err(quoted(first.number));
    }
    let header = Header::find(file, &names, columns)?;
    let (mut seen, mut spans) = (Seen::default(), Spans::default());
    loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                columns.skipping.pass(error)?;
                continue;
            }
        };
        let cells: Vec<_> = line.text.split(separator).collect();
        let row = header.row(file, line.number, &cells).map_err(|error| match error {
            Error::ColumnCount { file, line, found, expected, .. }
                if suspicious && cells.iter().any(|cell| cell.starts_with('"') || cell.ends_with('"')) =>
            {
                Error::ColumnCount { file, line, found, expected, way_out: WAY_OUT }
            }
            error => error,
        });
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                columns.skipping.pass(error)?;
                continue;
            }
        };
        if suspicious && header.used(&cells).any(is_quoted) {
            return Err(quoted(line.number));
        }
        seen.see(line.number, header.used(&cells));
        spans.see(line.number, &cells);
        if let ControlFlow::Break(()) = sink(row, header.rest(&cells)) {
            return Ok(header.guessed_label());
        }
    }
    if let Some(line) = seen.quoted().or_else(|| spans.quoted()).filter(|_| suspicious) {
        return Err(quoted(line));
    }
    Ok(header.guessed_label())
}

/// Quotes that open a cell and close it further on, behind separators and line breaks, as RFC 4180 has them. Texts that merely
/// begin with a quote have others that close nowhere, or in the middle of a cell, and then none of the file means anything.
#[derive(Default)]
struct Spans {
    /// The line on which one has opened that is not closed yet.
    open: Option<usize>,
    /// The line of the first that was.
    first: Option<usize>,
    /// Whether one was not as the standard has it.
    broken: bool,
}

impl Spans {
    fn see(&mut self, line: usize, cells: &[&str]) {
        for cell in cells {
            let inner = match (self.open, cell.strip_prefix('"')) {
                (Some(_), _) => cell,
                (None, Some(inner)) => inner,
                (None, None) => continue,
            };
            match (closing(inner), self.open.take()) {
                (None, open) => self.open = open.or(Some(line)),
                (Some(""), open) => self.first = self.first.or(open),
                (Some(_), _) => self.broken = true,
            }
        }
    }

    /// The first line of such a cell, where every quote that opens one closes it.
    fn quoted(&self) -> Option<usize> {
        self.first.filter(|_| !self.broken && self.open.is_none())
    }
}

/// What stands behind the quote that closes a cell, of which quotes that are doubled are a part.
fn closing(inner: &str) -> Option<&str> {
    let mut rest = inner;
    loop {
        let (_, behind) = rest.split_once('"')?;
        match behind.strip_prefix('"') {
            Some(doubled) => rest = doubled,
            None => return Some(behind),
        }
    }
}

/// Cells that have been read, by whether they stand in quotes.
#[derive(Default)]
struct Seen {
    /// Of each column that rows are made of.
    columns: Vec<Cells>,
    /// Those with a comma in them.
    with_comma: Cells,
}

#[derive(Clone, Copy, Default)]
struct Cells {
    quoted: usize,
    plain: usize,
    /// The line of the first quoted one.
    first: usize,
}

impl Cells {
    fn see(&mut self, line: usize, quoted: bool) {
        match quoted {
            true if self.quoted == 0 => (self.quoted, self.first) = (1, line),
            true => self.quoted += 1,
            false => self.plain += 1,
        }
    }

    /// The first line of several, if all are quoted.
    fn all_quoted(self, least: usize) -> Option<usize> {
        (self.plain == 0 && self.quoted >= least).then_some(self.first)
    }
}

impl Seen {
    fn see<'c>(&mut self, line: usize, cells: impl Iterator<Item = &'c str>) {
        for (column, cell) in cells.enumerate() {
            if self.columns.len() <= column {
                self.columns.push(Cells::default());
            }
            if !cell.is_empty() {
                self.columns[column].see(line, in_quotes(cell).is_some());
            }
            if cell.contains(',') {
                self.with_comma.see(line, in_quotes(cell).is_some());
            }
        }
    }

    /// The first line with quotes, where they are a writer's: in a whole column, or around every cell with a comma, as a
    /// spreadsheet writes them between tabs too.
    fn quoted(&self) -> Option<usize> {
        let columns = self.columns.iter().find_map(|cells| cells.all_quoted(2));
        columns.or_else(|| self.with_comma.all_quoted(1))
    }
}

/// What stands between the quotes at a cell's ends.
fn in_quotes(cell: &str) -> Option<&str> {
    cell.strip_prefix('"')?.strip_suffix('"')
}

/// Whether a cell is what a writer of quotes makes of one with quotes in it: all that stand within are doubled. A text that
/// merely begins and ends with a quote has none within, or lone ones.
fn is_quoted(cell: &str) -> bool {
    in_quotes(cell).is_some_and(|inner| inner.contains('"') && !inner.replace("\"\"", "").contains('"'))
}
