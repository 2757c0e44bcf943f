//! Tab-separated values as GLUE has them: a header, then cells between tabs, with no quoting of any kind.

use super::lines::Lines;
use super::{Columns, Header, Row};
use crate::Error;
use std::io::BufRead;

pub(super) fn read(file: &str, reader: impl BufRead, columns: &Columns) -> Result<Vec<Row>, Error> {
    let mut lines = Lines::new(file, reader);
    let Some(first) = lines.next()? else {
        return Ok(Vec::new());
    };
    let header = Header::find(file, &first.text.split('\t').collect::<Vec<_>>(), columns)?;
    let mut rows = Vec::new();
    while let Some(line) = lines.next()? {
        let cells: Vec<_> = line.text.split('\t').collect();
        rows.push(header.row(file, line.number, &cells)?);
    }
    Ok(rows)
}
