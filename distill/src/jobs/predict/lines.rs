//! Lines of text, or texts of a table, in batches, read by a thread of their own: as many as are there, so that a slow pipe or a person at a
//! terminal gets answers at once, and a file is read in full batches.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::bail;
use datasets::{Columns, Row, for_each_row};

use crate::files::FileError;
use crate::interrupt::{self, Interrupted};

/// Lines of a batch, and lines that are read ahead.
const BATCH_LINES: usize = 256;

/// After this long without input, the lines received so far are classified.
const PATIENCE: Duration = Duration::from_millis(50);

/// Maximum length of a line in bytes. Models only read the beginning of a text, so a longer line is not a sensible
/// input.
const LONGEST_LINE: usize = 1 << 20;

/// Lines that are read while earlier ones are classified.
pub(super) struct Lines {
    /// Closed at the end of the text.
    received: Receiver<anyhow::Result<Row>>,
    /// Whether to wait for full batches, so that batching does not depend on when lines arrive.
    always_full: bool,
}

/// Some lines, and how reading ended if it did.
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    pub(super) end: Option<anyhow::Result<()>>,
}

impl Lines {
    /// The lines of a file.
    pub(super) fn of_file(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        Ok(Self::of(file, path.to_owned(), true))
    }

    /// The texts of a table's rows.
    pub(super) fn of_rows(path: PathBuf, columns: Columns) -> Self {
        let (sender, received) = sync_channel(BATCH_LINES);
        thread::spawn(move || {
            let read = for_each_row(&path, &columns, |row| match sender.send(Ok(row)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            });
            // Where nobody listens any more, nobody asks why it ended.
            let _ = read.map_err(|error| sender.send(Err(error.into())));
        });
        Self { received, always_full: true }
    }

    /// The lines of stdin.
    pub(super) fn of_stdin() -> Self {
        Self::of(io::stdin(), PathBuf::from("stdin"), false)
    }

    fn of(source: impl Read + Send + 'static, name: PathBuf, always_full: bool) -> Self {
        let (sender, received) = sync_channel(BATCH_LINES);
        thread::spawn(move || send(BufReader::new(source), &name, &sender));
        Self { received, always_full }
    }

    /// Waits for at least one line, the end, or a signal to stop.
    pub(super) fn next_batch(&mut self) -> Batch {
        let mut rows = Vec::new();
        while rows.len() < BATCH_LINES {
            match self.received.recv_timeout(PATIENCE) {
                Ok(Ok(row)) => rows.push(row),
                Ok(Err(error)) => return Batch { rows, end: Some(Err(error)) },
                Err(RecvTimeoutError::Disconnected) => return Batch { rows, end: Some(Ok(())) },
                Err(RecvTimeoutError::Timeout) if interrupt::requested() => {
                    return Batch { rows, end: Some(Err(Interrupted.into())) };
                }
                Err(RecvTimeoutError::Timeout) if self.always_full || rows.is_empty() => {}
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        Batch { rows, end: None }
    }
}

/// Sends every line, or why there are no more. Ends when nobody listens any more.
fn send(mut source: impl BufRead, name: &Path, to: &SyncSender<anyhow::Result<Row>>) {
    for line in 1.. {
        let row = read_line(&mut source, name, line).transpose();
        let Some(row) = row else { return };
        let last = row.is_err();
        if to.send(row).is_err() || last {
            return;
        }
    }
}

/// The line of this number, without its end; `None` after the last.
fn read_line(source: &mut impl BufRead, name: &Path, line: usize) -> anyhow::Result<Option<Row>> {
    let mut bytes = Vec::new();
    let read = source.take(LONGEST_LINE as u64 + 2).read_until(b'\n', &mut bytes);
    if read.map_err(|source| FileError::Read { path: name.to_owned(), source })? == 0 {
        return Ok(None);
    }
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    if bytes.len() > LONGEST_LINE {
        bail!("{}: line {line} is longer than {LONGEST_LINE} bytes; give one text a line", name.display());
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotUtf8 { path: name.to_owned(), line })?;
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) if line == 1 => rest.to_owned(),
        _ => text,
    };
    if line == 1 && is_of_a_table(&text) {
        bail!(
            "{}: the first line is of a table ({}), and each line would be classified as it stands; give a file whose name ends \
             in .tsv, .csv or .jsonl, with --text-column",
            name.display(),
            text.chars().take(60).collect::<String>()
        );
    }
    Ok(Some(Row { text, text_b: None, label: None, line }))
}

/// Whether a line is the header of a table, or a row of JSON Lines: names without blanks, `text` among them.
fn is_of_a_table(line: &str) -> bool {
    let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line);
    if let Ok(object) = object {
        return object.contains_key("text");
    }
    ['\t', ','].into_iter().any(|separator| {
        let cells: Vec<&str> = line.split(separator).map(|cell| cell.trim_matches('"')).collect();
        let are_names = cells.iter().all(|cell| !cell.is_empty() && !cell.contains(char::is_whitespace));
        cells.len() > 1 && are_names && cells.contains(&"text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_and_an_object_are_told_from_texts() {
        for line in ["text,label", "label\ttext", "\"text\",\"label\"", r#"{"text": "hello", "label": 1}"#] {
            assert!(is_of_a_table(line), "{line}");
        }
        for line in
            ["text", "a text, and a label", "{}", r#"{"say": "hello"}"#, "text me,please", "text, please call me", ""]
        {
            assert!(!is_of_a_table(line), "{line}");
        }
    }

    /// The texts of all batches, the batches' sizes, and the message of the error that ended them.
    fn read(bytes: Vec<u8>) -> (Vec<String>, Vec<usize>, Option<String>) {
        let mut lines = Lines::of(io::Cursor::new(bytes), PathBuf::from("a.txt"), true);
        let (mut texts, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let batch = lines.next_batch();
            sizes.push(batch.rows.len());
            texts.extend(batch.rows.into_iter().map(|row| row.text));
            if let Some(end) = batch.end {
                return (texts, sizes, end.err().map(|error| error.to_string()));
            }
        }
    }

    #[test]
    fn ends_of_lines_and_a_byte_order_mark_are_no_text() {
        let (texts, _, error) = read(b"\xef\xbb\xbfone\r\n\ntwo\tthree\nlast".to_vec());
        assert_eq!((texts, error), (["one", "", "two\tthree", "last"].map(String::from).to_vec(), None));
        assert_eq!(read(Vec::new()), (Vec::new(), vec![0], None));
    }

    #[test]
    fn texts_of_a_table_are_those_of_its_column() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "note,words\nx,\"a, b\"\ny,c\nz, \n").expect("writes");
        let columns = Columns { text: Some("words".into()), ..Columns::default() };
        let batch = Lines::of_rows(path, columns).next_batch();
        assert_eq!(batch.rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), ["a, b", "c"]);
        let error = batch.end.expect("the end").expect_err("a blank text");
        assert!(error.to_string().contains("line 4: nothing in column `words`"), "{error}");
    }

    #[test]
    fn batches_of_a_file_are_full() {
        let (texts, sizes, _) = read(b"x\n".repeat(600));
        assert_eq!((texts.len(), sizes), (600, vec![256, 256, 88]));
    }

    #[test]
    fn what_is_no_text_ends_it_after_the_lines_before() {
        let (texts, _, error) = read(b"fine\nb\xffd\nnever read\n".to_vec());
        assert_eq!(texts, ["fine"]);
        assert!(error.expect("refused").starts_with("a.txt: line 2 is not UTF-8"));
        let (_, _, error) = read(vec![b'x'; LONGEST_LINE + 5]);
        assert!(error.expect("refused").contains("line 1 is longer than"));
        assert_eq!(read([vec![b'x'; LONGEST_LINE], b"\r\ny\n".to_vec()].concat()).0.len(), 2);
    }
}
