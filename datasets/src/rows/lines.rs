//! The lines of a file, one at a time, checked to be UTF-8.

use crate::Error;
use std::io::BufRead;

pub(super) struct Lines<'a, R> {
    file: &'a str,
    reader: R,
    buffer: Vec<u8>,
    number: usize,
}

pub(super) struct Line<'a> {
    /// Without its line end, `\n` or `\r\n`.
    pub(super) text: &'a str,
    /// From 1.
    pub(super) number: usize,
}

impl<'a, R: BufRead> Lines<'a, R> {
    pub(super) fn new(file: &'a str, reader: R) -> Self {
        Self { file, reader, buffer: Vec::new(), number: 0 }
    }

    /// The next line that is not empty; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Line<'_>>, Error> {
        loop {
            self.buffer.clear();
            let read = self.reader.read_until(b'\n', &mut self.buffer);
            if read.map_err(|cause| Error::Read { file: self.file.to_owned(), cause })? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.buffer.last() == Some(&b'\n') {
                self.buffer.pop();
                if self.buffer.last() == Some(&b'\r') {
                    self.buffer.pop();
                }
            }
            if !self.buffer.is_empty() {
                break;
            }
        }
        let text = std::str::from_utf8(&self.buffer)
            .map_err(|_| Error::InvalidUtf8 { file: self.file.to_owned(), line: self.number })?;
        Ok(Some(Line { text, number: self.number }))
    }
}
