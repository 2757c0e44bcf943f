//! Writes a cache as a Parquet file, with rows in the order of their keys; the same cache gives the same file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use cache::{CacheReader, Captured, LogitForm, Outputs};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, DataType, FixedLenByteArray, FixedLenByteArrayType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde::Serialize;

use crate::files::{FileError, write_whole_with};
use crate::interrupt;
use crate::telemetry::Progress;
use crate::ui;

/// Numbers in a group of rows, about.
const GROUP_NUMBERS: usize = 4 << 20;

/// What `cache export` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Rows of the file: of the cache, or its tokens.
    rows: u64,
    bytes: u64,
    output: String,
}

/// Writes a cache as Parquet.
pub(crate) fn export(dir: &Path, output: &Path, overwrite: bool) -> anyhow::Result<Report> {
    let reader = CacheReader::open(dir, None)?;
    if output.exists() && !overwrite {
        bail!("{}: is there already; choose another --output, or give --overwrite", output.display());
    }
    if within(output, dir) {
        bail!("{}: lies within the cache's own folder; choose another --output", output.display());
    }
    if reader.captured().hidden_states.is_some() {
        ui::say("hidden states stay in the cache: the file holds what is stored of the logits");
    }
    let mut rows = 0;
    write_whole_with(output, |file| {
        rows = write(&reader, file)?;
        Ok(())
    })
    .map_err(|error| explained(output, error))?;
    let bytes = std::fs::metadata(output).map_or(0, |metadata| metadata.len());
    Ok(Report { rows, bytes, output: output.display().to_string() })
}

impl Report {
    pub(crate) fn text(&self) -> String {
        format!("{} rows, {}\nwritten: {}", ui::count(self.rows), ui::bytes(self.bytes), self.output)
    }
}

/// Whether a file, there or not, stands in this folder.
fn within(file: &Path, folder: &Path) -> bool {
    let parent = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    matches!((parent.canonicalize(), folder.canonicalize()), (Ok(parent), Ok(folder)) if parent.starts_with(&folder))
}

/// A failed write as any other's, whatever it came through.
fn explained(path: &Path, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<io::Error>() {
        Ok(source) => FileError::writing(path, source).into(),
        Err(error) => match error.downcast::<ParquetError>() {
            Ok(ParquetError::External(source)) => match source.downcast::<io::Error>() {
                Ok(source) => FileError::writing(path, *source).into(),
                Err(source) => anyhow::anyhow!("{}: {source}", path.display()),
            },
            Ok(error) => anyhow::Error::new(error).context(path.display().to_string()),
            Err(error) => error,
        },
    }
}

fn write(reader: &CacheReader, file: &mut File) -> anyhow::Result<u64> {
    let captured = reader.captured();
    let columns = Columns::of(captured);
    let schema = Arc::new(parse_message_type(&columns.schema())?);
    let fingerprint = reader.fingerprint();
    let metadata = vec![
        KeyValue::new("labels".to_string(), serde_json::to_string(&fingerprint.labels).ok()),
        KeyValue::new("fingerprint".to_string(), serde_json::to_string(fingerprint).ok()),
    ];
    let properties = WriterProperties::builder()
        .set_created_by(concat!("distill ", env!("CARGO_PKG_VERSION")).to_string())
        .set_key_value_metadata(Some(metadata))
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .build();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    let progress = Progress::new("export", reader.len() as u64, "rows");
    let mut group = Group::default();
    let mut rows = 0;
    for entry in reader.rows() {
        interrupt::check()?;
        let (key, row) = entry?;
        let outputs = row.outputs();
        group.keys.extend((0..outputs).map(|_| FixedLenByteArray::from(ByteArray::from(key.to_vec()))));
        group.tokens.extend(0..outputs as i32);
        group.indices.extend(row.indices().map(u32::cast_signed));
        group.logits.extend(row.logits());
        group.tails.extend(row.tails());
        rows += outputs as u64;
        progress.inc(1);
        if group.logits.len() + group.indices.len() >= GROUP_NUMBERS {
            group.write(&columns, writer.next_row_group()?)?;
            group = Group::default();
        }
    }
    if !group.keys.is_empty() {
        group.write(&columns, writer.next_row_group()?)?;
    }
    writer.close()?;
    progress.finish();
    Ok(rows)
}

/// The columns that a form of storage has besides the key: how many numbers each list holds.
struct Columns {
    token: bool,
    indices: Option<usize>,
    logits: Option<usize>,
    tails: Option<usize>,
}

impl Columns {
    fn of(captured: &Captured) -> Self {
        let token = captured.outputs == Outputs::Token;
        match &captured.logits {
            LogitForm::Dense { .. } => Self { token, indices: None, logits: Some(captured.width), tails: None },
            LogitForm::TopK { k, temperatures, .. } => {
                Self { token, indices: Some(*k), logits: Some(*k), tails: Some(temperatures.len()) }
            }
            LogitForm::Sample { draws, .. } => Self { token, indices: Some(*draws), logits: None, tails: None },
        }
    }

    fn schema(&self) -> String {
        let list = |name: &str, number: &str, there: bool| match there {
            true => format!("required group {name} (LIST) {{ repeated group list {{ required {number} element; }} }} "),
            false => String::new(),
        };
        format!(
            "message cache {{ required fixed_len_byte_array(16) key; {}{}{}{}}}",
            if self.token { "required int32 token; " } else { "" },
            list("indices", "int32", self.indices.is_some()),
            list("logits", "float", self.logits.is_some()),
            list("tails", "float", self.tails.is_some()),
        )
    }
}

/// Some rows of the file, column by column.
#[derive(Default)]
struct Group {
    keys: Vec<FixedLenByteArray>,
    tokens: Vec<i32>,
    indices: Vec<i32>,
    logits: Vec<f32>,
    tails: Vec<f32>,
}

impl Group {
    fn write(&self, columns: &Columns, mut group: SerializedRowGroupWriter<'_, &mut File>) -> anyhow::Result<()> {
        column::<FixedLenByteArrayType, _>(&mut group, &self.keys, None)?;
        if columns.token {
            column::<Int32Type, _>(&mut group, &self.tokens, None)?;
        }
        if columns.indices.is_some() {
            column::<Int32Type, _>(&mut group, &self.indices, columns.indices)?;
        }
        if columns.logits.is_some() {
            column::<FloatType, _>(&mut group, &self.logits, columns.logits)?;
        }
        if columns.tails.is_some() {
            column::<FloatType, _>(&mut group, &self.tails, columns.tails)?;
        }
        group.close()?;
        Ok(())
    }
}

/// Writes the next column: plain values, or lists of so many each.
fn column<T: DataType, W: io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    list: Option<usize>,
) -> anyhow::Result<()> {
    let mut column = group.next_column()?.context("a column for each that the schema names")?;
    match list {
        None => column.typed::<T>().write_batch(values, None, None)?,
        Some(length) => {
            // Every element is there; the first of each list begins a new one.
            let definition = vec![1; values.len()];
            let repetition: Vec<i16> = (0..values.len()).map(|position| i16::from(position % length != 0)).collect();
            column.typed::<T>().write_batch(values, Some(&definition), Some(&repetition))?
        }
    };
    column.close()?;
    Ok(())
}
