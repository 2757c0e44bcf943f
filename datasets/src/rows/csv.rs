//! Comma-separated values after RFC 4180: a header, quoted cells, line breaks within quotes (read as `\n`).

use super::{Columns, Header, Sink};
use crate::Error;
use csv::{ByteRecord, ReaderBuilder, Terminator};
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

pub(super) fn read(file: &str, reader: impl BufRead, columns: &Columns, sink: Sink<'_>) -> Result<(), Error> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        // Flexible, so that the error for a short row is ours.
        .flexible(true)
        .terminator(Terminator::Any(b'\n'))
        .from_reader(UnixLineEnds { reader, line: Vec::new(), read: 0 });
    let mut record = ByteRecord::new();
    let mut header: Option<Header> = None;
    loop {
        let more = reader.read_byte_record(&mut record);
        if !more.map_err(|error| Error::Read { file: file.to_owned(), cause: error.into() })? {
            return Ok(());
        }
        // The reader's own start of a record is off by the empty lines before it, so go back from its end.
        let breaks = record.as_slice().iter().filter(|byte| **byte == b'\n').count();
        let line = (reader.position().line() as usize).saturating_sub(1 + breaks);
        let cells: Vec<&str> = record
            .iter()
            .map(std::str::from_utf8)
            .collect::<Result<_, _>>()
            .map_err(|_| Error::InvalidUtf8 { file: file.to_owned(), line })?;
        match &header {
            None => header = Some(Header::find(file, &cells, columns)?),
            Some(header) => {
                if let ControlFlow::Break(()) = sink(header.row(file, line, &cells)?, header.rest(&cells)) {
                    return Ok(());
                }
            }
        }
    }
}

/// Ends every line with `\n` alone, the last one too, so that lines can be counted.
struct UnixLineEnds<R> {
    reader: R,
    line: Vec<u8>,
    read: usize,
}

impl<R: BufRead> Read for UnixLineEnds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.line.len() {
            self.line.clear();
            self.read = 0;
            if self.reader.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(0);
            }
            let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            let text = text.strip_suffix(b"\r").unwrap_or(text).len();
            self.line.truncate(text);
            self.line.push(b'\n');
        }
        let count = (&self.line[self.read..]).read(buffer)?;
        self.read += count;
        Ok(count)
    }
}
