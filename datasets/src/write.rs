//! Writes records with all their columns: JSON Lines, or Parquet.

mod parquet;

use crate::Error;
use crate::record::Record;
use parquet::ParquetRecords;
use rayon::prelude::*;
use std::io::Write;

/// Records that one thread writes at a time. They are put together in their order.
const CHUNK_ROWS: usize = 512;

/// What records are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFormat {
    /// An object a line.
    Jsonl,
    /// Columns, typed by their values.
    Parquet,
}

impl RecordFormat {
    /// The format that a file's name says.
    ///
    /// # Errors
    /// Another name than `.jsonl` and `.parquet`.
    pub fn of(file: &str) -> Result<Self, Error> {
        let lower = file.to_ascii_lowercase();
        match () {
            () if lower.ends_with(".jsonl") => Ok(Self::Jsonl),
            () if lower.ends_with(".parquet") => Ok(Self::Parquet),
            () => Err(Error::UnknownOutput { file: file.to_owned() }),
        }
    }
}

/// Writes records, some at a time, and always the same bytes for the same records.
pub struct RecordWriter<W: Write + Send>(Form<W>);

enum Form<W: Write + Send> {
    Jsonl { file: String, writer: W },
    Parquet(Box<ParquetRecords<W>>),
}

impl<W: Write + Send> RecordWriter<W> {
    /// Nothing is written yet; `file` is its name in messages.
    pub fn new(format: RecordFormat, file: &str, writer: W) -> Self {
        Self(match format {
            RecordFormat::Jsonl => Form::Jsonl { file: file.to_owned(), writer },
            RecordFormat::Parquet => Form::Parquet(Box::new(ParquetRecords::new(file, writer))),
        })
    }

    /// Writes records behind those before.
    ///
    /// # Errors
    /// A full disk, and in Parquet a value that does not suit its column.
    pub fn write(&mut self, records: Vec<Record>) -> Result<(), Error> {
        match &mut self.0 {
            Form::Jsonl { file, writer } => {
                let lines = |chunk: &[Record]| {
                    let mut lines = Vec::new();
                    for record in chunk {
                        serde_json::to_writer(&mut lines, &record.columns)?;
                        lines.push(b'\n');
                    }
                    Ok(lines)
                };
                let chunks: Vec<Result<Vec<u8>, serde_json::Error>> =
                    records.par_chunks(CHUNK_ROWS).map(lines).collect();
                // Freeing them takes as long as some of the steps do.
                records.into_par_iter().with_min_len(CHUNK_ROWS).for_each(drop);
                let failed = |cause: std::io::Error| Error::Write { file: file.clone(), cause };
                chunks.into_iter().try_for_each(|chunk| {
                    writer.write_all(&chunk.map_err(|cause| failed(cause.into()))?).map_err(failed)
                })
            }
            Form::Parquet(parquet) => parquet.write(records),
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn finish(self) -> Result<(), Error> {
        match self.0 {
            Form::Jsonl { file, mut writer } => writer.flush().map_err(|cause| Error::Write { file, cause }),
            Form::Parquet(parquet) => parquet.finish(),
        }
    }
}

#[cfg(test)]
mod tests;
