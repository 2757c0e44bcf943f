//! Writes records to a file, for the data commands.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use datasets::{Error, RecordFormat, RecordWriter};

use crate::files::{self, FileError, refuse_source};

/// Refuses an output of another format than `.jsonl` and `.parquet`, or that is one of the files it is made from.
pub(super) fn check_output<'f>(output: &Path, sources: impl IntoIterator<Item = &'f PathBuf>) -> anyhow::Result<()> {
    RecordFormat::of(&output.display().to_string())?;
    Ok(sources.into_iter().try_for_each(|source| refuse_source(source, output))?)
}

/// Writes a file whole: with an error of `write`, what was there before stays.
pub(super) fn write_records(
    output: &Path,
    write: impl FnOnce(&mut RecordWriter<Whole<'_>>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = output.display().to_string();
    let format = RecordFormat::of(&name)?;
    let written = files::write_whole_with(output, |file| {
        let mut writer = RecordWriter::new(format, &name, Whole(file));
        write(&mut writer)?;
        Ok(writer.finish()?)
    });
    written.map_err(|error: anyhow::Error| explained(output, error))
}

/// A file that is written from several threads' work in turn.
pub(super) struct Whole<'f>(&'f mut File);

impl Write for Whole<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A failed write as any other's.
fn explained(path: &Path, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(Error::Write { cause, .. }) => FileError::writing(path, cause).into(),
        Ok(error) => error.into(),
        Err(error) => match error.downcast::<io::Error>() {
            Ok(cause) => FileError::writing(path, cause).into(),
            Err(error) => error,
        },
    }
}
