//! Output: results on stdout as text or JSON, everything else on stderr.

mod bar;
mod stderr;
mod table;
mod units;

pub(crate) use bar::bar;
pub(crate) use stderr::{BARS, StderrAboveBars, on_terminal, say};
pub(crate) use table::Table;
pub(crate) use units::{bytes, count, duration, flops, percent};

use serde::Serialize;
use std::io::{self, Write};

/// Version of the keys in what `--json` prints. Before 2, `macro_f1` was over all classes, also those that do not occur.
const SCHEMA_VERSION: u32 = 2;

/// Prints results in the requested form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    json: bool,
}

impl Ui {
    /// Results as JSON, one object per line, or as text.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are printed as JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints one result on stdout: a `schema_version` and the fields of `value` as JSON, or the text made by `text`.
    pub(crate) fn result<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), OutputError> {
        let line = self.line(value, |value| text(value).trim_end().to_owned())?;
        print(&line)
    }

    /// Prints several results at once, one per line, for commands that stream results; text is printed as it is.
    pub(crate) fn results<T: Serialize>(&self, values: &[T], text: impl Fn(&T) -> String) -> Result<(), OutputError> {
        let lines: String = values.iter().map(|value| self.line(value, &text)).collect::<Result<_, _>>()?;
        print(&lines)
    }

    fn line<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<String, OutputError> {
        let mut line = match self.json {
            true => serde_json::to_string(&Versioned { schema_version: SCHEMA_VERSION, value })
                .map_err(|error| OutputError::Failed { source: error.into() })?,
            false => text(value),
        };
        line.push('\n');
        Ok(line)
    }
}

fn print(lines: &str) -> Result<(), OutputError> {
    let print = || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(lines.as_bytes())?;
        stdout.flush()
    };
    stderr::above_bars(print).map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Failed { source },
    })
}

/// Results cannot be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The reader of stdout has closed it, as `head` does. `main` then exits quietly.
    #[error("stdout is closed")]
    Closed,
    /// Anything else.
    #[error("cannot write to stdout")]
    Failed {
        /// What the system says.
        source: io::Error,
    },
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    schema_version: u32,
    #[serde(flatten)]
    value: &'a T,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_version_comes_first() {
        #[derive(Serialize)]
        struct Figures {
            accuracy: f64,
            seconds: u32,
        }
        let value = &Figures { accuracy: 0.5, seconds: 3 };
        let json = serde_json::to_string(&Versioned { schema_version: 1, value }).expect("serialises");
        assert_eq!(json, r#"{"schema_version":1,"accuracy":0.5,"seconds":3}"#);
    }
}
