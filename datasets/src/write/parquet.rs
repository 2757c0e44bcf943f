//! Parquet: each column is of the type that its values have in the first row group, and any of them may be missing. Lists of one
//! level are lists; an object, or values of several kinds, are the JSON that spells them.

use crate::Error;
use crate::record::Record;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::Value;
use std::io::Write;
use std::sync::Arc;

/// A row group ends with so many rows, or so many bytes of text.
const GROUP_ROWS: usize = 1 << 16;
const GROUP_BYTES: usize = 64 << 20;

pub(super) struct ParquetRecords<W: Write + Send> {
    file: String,
    state: State<W>,
    waiting: Vec<Record>,
    bytes: usize,
}

enum State<W: Write + Send> {
    /// Before the first group, whose rows say which columns there are.
    New(W),
    Begun {
        writer: Box<SerializedFileWriter<W>>,
        columns: Vec<Column>,
    },
    /// Only while one state becomes the other, and after an error.
    Broken,
}

struct Column {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    list: bool,
    scalar: Scalar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scalar {
    Truth,
    Whole,
    Number,
    Text,
}

impl<W: Write + Send> ParquetRecords<W> {
    pub(super) fn new(file: &str, writer: W) -> Self {
        Self { file: file.to_owned(), state: State::New(writer), waiting: Vec::new(), bytes: 0 }
    }

    pub(super) fn write(&mut self, records: Vec<Record>) -> Result<(), Error> {
        for record in records {
            self.bytes += record.row.text.len() + record.row.text_b.as_ref().map_or(0, String::len);
            self.waiting.push(record);
            if self.waiting.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), Error> {
        if !self.waiting.is_empty() {
            self.flush()?;
        }
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Begun { writer, .. } => writer.close().map(|_| ()).map_err(|cause| failed(&self.file, cause)),
            State::New(_) | State::Broken => Ok(()),
        }
    }

    /// Writes the waiting rows as one group.
    fn flush(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let (mut writer, columns) = match std::mem::replace(&mut self.state, State::Broken) {
            State::Begun { writer, columns } => (writer, columns),
            State::New(writer) => {
                let columns = columns_of(&rows);
                (Box::new(begin(writer, &columns).map_err(|cause| failed(&self.file, cause))?), columns)
            }
            State::Broken => return Ok(()),
        };
        self.check(&rows, &columns)?;
        write_group(&mut writer, &columns, &rows).map_err(|cause| failed(&self.file, cause))?;
        self.state = State::Begun { writer, columns };
        Ok(())
    }

    /// Refuses what the columns cannot hold.
    fn check(&self, rows: &[Record], columns: &[Column]) -> Result<(), Error> {
        for record in rows {
            for (name, value) in &record.columns {
                let column = columns.iter().find(|column| column.name == *name);
                let fits = column.is_some_and(|column| column.kind.holds(value));
                if !fits && !value.is_null() {
                    let expected = column.map_or("nothing", |column| column.kind.name());
                    let (file, line) = (self.file.clone(), record.row.line);
                    return Err(Error::MixedColumn {
                        file,
                        line,
                        column: name.clone(),
                        found: value.to_string(),
                        expected,
                    });
                }
            }
        }
        Ok(())
    }
}

impl Kind {
    /// Of a column with these values.
    fn of<'v>(values: impl Iterator<Item = &'v Value> + Clone) -> Self {
        let mut values = values.filter(|value| !value.is_null()).peekable();
        let flat = |value: &Value| {
            value.as_array().is_some_and(|list| !list.iter().any(|item| item.is_array() || item.is_object()))
        };
        let list = values.peek().is_some() && values.clone().all(flat);
        let items = values.flat_map(|value| match value {
            Value::Array(items) if list => items.iter().collect(),
            value => vec![value],
        });
        let scalar = items.filter(|value| !value.is_null()).map(Scalar::of).reduce(|one, other| match (one, other) {
            (one, other) if one == other => one,
            (Scalar::Whole | Scalar::Number, Scalar::Whole | Scalar::Number) => Scalar::Number,
            _ => Scalar::Text,
        });
        Self { list, scalar: scalar.unwrap_or(Scalar::Text) }
    }

    fn holds(self, value: &Value) -> bool {
        match (self.list, value) {
            (true, Value::Array(items)) => items.iter().all(|item| item.is_null() || self.scalar.holds(item)),
            (true, _) => false,
            (false, value) => self.scalar.holds(value),
        }
    }

    fn name(self) -> &'static str {
        match (self.list, self.scalar) {
            (false, Scalar::Truth) => "truth values",
            (false, Scalar::Whole) => "whole numbers",
            (false, Scalar::Number) => "numbers",
            (false, Scalar::Text) => "texts",
            (true, Scalar::Truth) => "lists of truth values",
            (true, Scalar::Whole) => "lists of whole numbers",
            (true, Scalar::Number) => "lists of numbers",
            (true, Scalar::Text) => "lists of texts",
        }
    }
}

impl Scalar {
    fn of(value: &Value) -> Self {
        match value {
            Value::Bool(_) => Self::Truth,
            Value::Number(number) if number.is_i64() => Self::Whole,
            Value::Number(_) => Self::Number,
            _ => Self::Text,
        }
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            // Anything can be spelled.
            Self::Text => true,
            Self::Number => value.is_number(),
            Self::Truth | Self::Whole => Self::of(value) == self,
        }
    }

    fn type_name(self) -> &'static str {
        match self {
            Self::Truth => "boolean",
            Self::Whole => "int64",
            Self::Number => "double",
            Self::Text => "binary",
        }
    }
}

/// The columns of rows, in the order in which they first appear.
fn columns_of(rows: &[Record]) -> Vec<Column> {
    let mut names: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(|record| record.columns.keys()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let kind = |name: &String| Kind::of(rows.iter().filter_map(|record| record.columns.get(name)));
    names.iter().map(|name| Column { name: (*name).clone(), kind: kind(name) }).collect()
}

fn begin<W: Write + Send>(writer: W, columns: &[Column]) -> Result<SerializedFileWriter<W>, ParquetError> {
    // The parser of schemas takes names without blanks and brackets; they are put in behind it.
    let field = |(number, column): (usize, &Column)| {
        let annotation = if column.kind.scalar == Scalar::Text { " (STRING)" } else { "" };
        let scalar = column.kind.scalar.type_name();
        match column.kind.list {
            false => format!("optional {scalar} c{number}{annotation};"),
            true => format!(
                "optional group c{number} (LIST) {{ repeated group list {{ optional {scalar} element{annotation}; }} }}"
            ),
        }
    };
    let fields: Vec<String> = columns.iter().enumerate().map(field).collect();
    let schema = parse_message_type(&format!("message rows {{ {} }}", fields.join(" ")))?;
    let named = schema.get_fields().iter().zip(columns).map(|(field, column)| renamed(field, &column.name));
    let schema = parquet::schema::types::Type::group_type_builder("rows")
        .with_fields(named.collect::<Result<_, _>>()?)
        .build()?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // No date and no version of a library in the file.
        .set_created_by("distill".to_owned())
        .build();
    SerializedFileWriter::new(writer, Arc::new(schema), Arc::new(properties))
}

/// A field under its own name.
fn renamed(field: &parquet::schema::types::Type, name: &str) -> Result<parquet::schema::types::TypePtr, ParquetError> {
    use parquet::schema::types::Type;
    let info = field.get_basic_info();
    let built = match field.is_group() {
        true => Type::group_type_builder(name)
            .with_repetition(info.repetition())
            .with_logical_type(info.logical_type_ref().cloned())
            .with_converted_type(info.converted_type())
            .with_fields(field.get_fields().to_vec())
            .build()?,
        false => Type::primitive_type_builder(name, field.get_physical_type())
            .with_repetition(info.repetition())
            .with_logical_type(info.logical_type_ref().cloned())
            .with_converted_type(info.converted_type())
            .build()?,
    };
    Ok(Arc::new(built))
}

fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    columns: &[Column],
    rows: &[Record],
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for Column { name, kind } in columns {
        let values = rows.iter().map(|record| record.columns.get(name).unwrap_or(&Value::Null));
        let cells = if kind.list { Cells::of_lists(values) } else { Cells::of(values) };
        let Some(column) = group.next_column()? else { break };
        match kind.scalar {
            Scalar::Truth => cells.write::<BoolType>(column, |value| value.as_bool().unwrap_or_default()),
            Scalar::Whole => cells.write::<Int64Type>(column, |value| value.as_i64().unwrap_or_default()),
            Scalar::Number => cells.write::<DoubleType>(column, |value| value.as_f64().unwrap_or_default()),
            Scalar::Text => cells.write::<ByteArrayType>(column, |value| match value {
                Value::String(text) => ByteArray::from(text.as_str()),
                other => ByteArray::from(other.to_string().as_str()),
            }),
        }?;
    }
    group.close().map(|_| ())
}

/// The values of a column that are there, and the levels by which Parquet knows which are not.
#[derive(Default)]
struct Cells<'v> {
    values: Vec<&'v Value>,
    definitions: Vec<i16>,
    /// Of lists: 0 at the first item of a row, 1 at each further one.
    repetitions: Option<Vec<i16>>,
}

impl<'v> Cells<'v> {
    fn of(values: impl Iterator<Item = &'v Value>) -> Self {
        let mut cells = Self::default();
        for value in values {
            cells.push(value, 0);
        }
        cells
    }

    /// Levels: 0 no list, 1 an empty one, 2 an item that is missing, 3 one that is there.
    fn of_lists(values: impl Iterator<Item = &'v Value>) -> Self {
        let mut cells = Self::default();
        let mut repetitions = Vec::new();
        for value in values {
            match value.as_array().map(Vec::as_slice) {
                None | Some([]) => {
                    cells.definitions.push(i16::from(value.is_array()));
                    repetitions.push(0);
                }
                Some(items) => {
                    for (at, item) in items.iter().enumerate() {
                        cells.push(item, 2);
                        repetitions.push(i16::from(at > 0));
                    }
                }
            }
        }
        cells.repetitions = Some(repetitions);
        cells
    }

    fn push(&mut self, value: &'v Value, missing: i16) {
        self.definitions.push(missing + i16::from(!value.is_null()));
        if !value.is_null() {
            self.values.push(value);
        }
    }

    fn write<T: DataType>(
        self,
        mut column: SerializedColumnWriter<'_>,
        cell: impl Fn(&Value) -> T::T,
    ) -> Result<(), ParquetError> {
        let values: Vec<T::T> = self.values.into_iter().map(cell).collect();
        column.typed::<T>().write_batch(&values, Some(&self.definitions), self.repetitions.as_deref())?;
        column.close()
    }
}

fn failed(file: &str, cause: ParquetError) -> Error {
    let cause = match cause {
        ParquetError::External(cause) => std::io::Error::other(cause),
        other => std::io::Error::other(other),
    };
    Error::Write { file: file.to_owned(), cause }
}
