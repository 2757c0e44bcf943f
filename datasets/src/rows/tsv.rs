//! Tab-separated values as GLUE has them: a header, then cells between tabs, with no quoting of any kind.

use super::lines::Lines;
use super::{Columns, Header, Sink};
use crate::Error;
use std::io::BufRead;
use std::ops::ControlFlow;

pub(super) fn read(file: &str, reader: impl BufRead, columns: &Columns, sink: Sink<'_>) -> Result<(), Error> {
    let mut lines = Lines::new(file, reader);
    let Some(first) = lines.next()? else {
        return Ok(());
    };
    let header = Header::find(file, &first.text.split('\t').collect::<Vec<_>>(), columns)?;
    while let Some(line) = lines.next()? {
        let cells: Vec<_> = line.text.split('\t').collect();
        if let ControlFlow::Break(()) = sink(header.row(file, line.number, &cells)?, header.rest(&cells)) {
            break;
        }
    }
    Ok(())
}
