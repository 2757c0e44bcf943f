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
    while let Some(line) = lines.next()? {
        let cells: Vec<_> = line.text.split(separator).collect();
        let row = header.row(file, line.number, &cells).map_err(|error| match error {
            Error::ColumnCount { file, line, found, expected, .. }
                if suspicious && cells.iter().any(|cell| cell.starts_with('"') || cell.ends_with('"')) =>
            {
                Error::ColumnCount { file, line, found, expected, way_out: WAY_OUT }
            }
            error => error,
        })?;
        if suspicious && header.used(&cells).any(is_quoted) {
            return Err(quoted(line.number));
        }
        if let ControlFlow::Break(()) = sink(row, header.rest(&cells)) {
            break;
        }
    }
    Ok(header.guessed_label())
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
