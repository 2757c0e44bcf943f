//! Rows of a Parquet file, each as the JSON object that a line of JSONL would hold.

use std::ops::ControlFlow;

use parquet::data_type::Decimal;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Number, Value};

use super::columns::Columns;
use super::objects::{Objects, Unit};
use super::rest::Rest;
use super::row::{GuessedLabel, Sink};
use crate::Error;

/// Columns that pandas writes its row numbers into.
const PANDAS_INDEX: &str = "__index_level_";

pub(super) fn read(
    file: &str,
    reader: impl ChunkReader + 'static,
    columns: &Columns,
    sink: Sink<'_>,
) -> Result<GuessedLabel, Error> {
    let place = |row: Option<usize>| row.map_or_else(|| file.to_owned(), |row| format!("{file}, row {row}"));
    let unreadable = |row: Option<usize>, cause: &parquet::errors::ParquetError| match cause.to_string() {
        // The crate has no kind of error for it; the rest of its message is the text, byte by byte.
        reason if reason.contains("BYTE_ARRAY as String") => Error::RowNotUtf8 { place: place(row) },
        reason => Error::Parquet { place: place(row), reason },
    };
    let reader = SerializedFileReader::new(reader).map_err(|cause| unreadable(None, &cause))?;
    let rows = reader.get_row_iter(None).map_err(|cause| unreadable(None, &cause))?;
    let mut objects = Objects::new(file, Unit::Row, columns);
    for (number, row) in rows.enumerate() {
        let row = row.map_err(|cause| unreadable(Some(number + 1), &cause))?;
        let mut object: Map<String, Value> = row
            .get_column_iter()
            .filter(|(column, _)| !column.starts_with(PANDAS_INDEX))
            .map(|(column, field)| (column.clone(), json(field)))
            .collect();
        let other_bytes: Vec<String> = row
            .get_column_iter()
            .filter(|(_, field)| matches!(field, Field::Bytes(bytes) if std::str::from_utf8(bytes.data()).is_err()))
            .map(|(column, _)| column.clone())
            .collect();
        let mut row = objects.take(number + 1, &mut object);
        // Only what a row is made of has to be text; a picture beside it need not be, unless it is to be written again.
        if other_bytes.iter().any(|column| columns.whole || !object.contains_key(column)) {
            row = row.and(Err(Error::RowNotUtf8 { place: place(Some(number + 1)) }));
        }
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                columns.skipping.pass(error)?;
                continue;
            }
        };
        if let ControlFlow::Break(()) = sink(row, Rest::of_object(&object)) {
            return Ok(objects.guessed());
        }
    }
    objects.finish()
}

/// A value as JSON has it. What JSON has not, NaN among it, becomes the text that it is printed as.
fn json(field: &Field) -> Value {
    let float = |value: f64| Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::Bool(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float16(value) => float(value.to_f64()),
        Field::Float(value) => float(f64::from(*value)),
        Field::Double(value) => float(*value),
        Field::Str(text) => Value::String(text.clone()),
        // Text without the annotation that says so.
        Field::Bytes(bytes) => Value::String(String::from_utf8_lossy(bytes.data()).into_owned()),
        Field::Group(row) => row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect(),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        Field::MapInternal(map) => {
            let text = |key: &Field| match json(key) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Value::Object(map.entries().iter().map(|(key, field)| (text(key), json(field))).collect())
        }
        Field::Decimal(value) => decimal(value),
        other => Value::String(other.to_string()),
    }
}

/// A decimal as the number that it is: a whole one without a fraction, so that it is the same label as in other formats.
fn decimal(value: &Decimal) -> Value {
    let negative = value.data().first().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let mut bytes = [fill; 16];
    let Some(start) = bytes.len().checked_sub(value.data().len()) else {
        return Value::String(format!("{value:?}"));
    };
    bytes[start..].copy_from_slice(value.data());
    let unscaled = i128::from_be_bytes(bytes);
    let one = u32::try_from(value.scale()).ok().and_then(|scale| 10_i128.checked_pow(scale));
    let whole = one.filter(|one| unscaled % one == 0).and_then(|one| i64::try_from(unscaled / one).ok());
    // The nearest f64 to the digits, which a division of rounded numbers would not be.
    let digits = || format!("{unscaled}e{}", -i64::from(value.scale())).parse().ok().and_then(Number::from_f64);
    match whole {
        Some(whole) => Value::from(whole),
        None => digits().map_or_else(|| Value::String(format!("{value:?}")), Value::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{for_each_record, read_rows};
    use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::fs::File;
    use std::path::Path;
    use std::sync::Arc;

    /// A file with a text column, a list of two numbers a row and a number, some of which are not there.
    fn written(path: &Path) {
        written_with(path, "(STRING)");
    }

    /// As [`written`], with this annotation of the texts.
    fn written_with(path: &Path, annotation: &str) {
        let rest = "optional group p (LIST) { repeated group list { optional double element; } } \
                      optional double q; required double __index_level_0__; }";
        let schema = format!("message table {{ required binary text {annotation}; {rest}");
        let schema = Arc::new(parse_message_type(&schema).expect("a schema"));
        let file = File::create(path).expect("a file");
        let mut writer =
            SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::builder().build())).expect("a writer");
        let mut group = writer.next_row_group().expect("a group");
        let texts: Vec<ByteArray> = ["a", "b", "c"].map(ByteArray::from).into();
        let mut column = group.next_column().expect("reads").expect("text");
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).expect("writes");
        column.close().expect("closes");
        let mut column = group.next_column().expect("reads").expect("p");
        // [0.25, 0.75], [NaN, null], and no list.
        let (levels, starts) = ([3, 3, 3, 2, 0], [0, 1, 0, 1, 0]);
        column
            .typed::<DoubleType>()
            .write_batch(&[0.25, 0.75, f64::NAN], Some(&levels), Some(&starts))
            .expect("writes");
        column.close().expect("closes");
        let mut column = group.next_column().expect("reads").expect("q");
        column.typed::<DoubleType>().write_batch(&[1.5, -2.0], Some(&[1, 0, 1]), None).expect("writes");
        column.close().expect("closes");
        let mut column = group.next_column().expect("reads").expect("index");
        column.typed::<DoubleType>().write_batch(&[0.0, 1.0, 2.0], None, None).expect("writes");
        column.close().expect("closes");
        group.close().expect("closes");
        writer.close().expect("closes");
    }

    #[test]
    fn rows_are_read_as_lines_of_json_would_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.parquet");
        written(&path);
        let mut found = Vec::new();
        for_each_record(&path, &Columns::default(), |row, rest| {
            let rest: Vec<String> = rest.iter().map(|(name, cell)| format!("{name} {cell:?}")).collect();
            found.push((row.line, row.text, rest.join("; ")));
            ControlFlow::Continue(())
        })
        .expect("reads");
        let row = |line, text: &str, p: &str, q: &str| (line, text.to_owned(), format!("p Json({p}); q Json({q})"));
        assert_eq!(found[0], row(1, "a", "Array [Number(0.25), Number(0.75)]", "Number(1.5)"));
        assert_eq!(found[1], row(2, "b", "Array [String(\"NaN\"), Null]", "Null"));
        assert_eq!(found[2], row(3, "c", "Null", "Number(-2.0)"));
    }

    #[test]
    fn texts_without_an_annotation_are_texts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.parquet");
        written_with(&path, "");
        let mut found = Vec::new();
        for_each_record(&path, &Columns::default(), |row, _| {
            found.push(row.text);
            ControlFlow::Continue(())
        })
        .expect("reads");
        assert_eq!(found, ["a", "b", "c"]);
    }

    /// A file with one column of this type, with these values.
    fn one_column<T: DataType>(path: &Path, column: &str, values: &[T::T]) {
        let schema = Arc::new(parse_message_type(&format!("message table {{ {column} }}")).expect("a schema"));
        let file = File::create(path).expect("a file");
        let mut writer =
            SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::builder().build())).expect("a writer");
        let mut group = writer.next_row_group().expect("a group");
        let mut column = group.next_column().expect("reads").expect("a column");
        column.typed::<T>().write_batch(values, None, None).expect("writes");
        column.close().expect("closes");
        group.close().expect("closes");
        writer.close().expect("closes");
    }

    #[test]
    fn decimals_were_read_with_a_point_and_no_digits_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.parquet");
        let read = |column: &str, values: &[i64]| {
            one_column::<Int64Type>(&path, column, values);
            let rows = SerializedFileReader::new(File::open(&path).expect("opens")).expect("reads");
            let rows = rows.get_row_iter(None).expect("rows").map(|row| row.expect("a row"));
            rows.map(|row| json(row.get_column_iter().next().expect("a column").1).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(read("required int64 label (DECIMAL(9, 0));", &[4, -1, 0]), ["4", "-1", "0"]);
        assert_eq!(read("required int64 label (DECIMAL(9, 2));", &[400, 425, -5]), ["4", "4.25", "-0.05"]);
        one_column::<ByteArrayType>(&path, "required binary label (DECIMAL(30, 3));", &[vec![0xff, 0x38].into()]);
        let reader = SerializedFileReader::new(File::open(&path).expect("opens")).expect("reads");
        let row = reader.get_row_iter(None).expect("rows").next().expect("one").expect("a row");
        assert_eq!(json(row.get_column_iter().next().expect("a column").1).to_string(), "-0.2");
    }

    #[test]
    fn texts_that_are_no_utf8_became_replacement_characters() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.parquet");
        let values = [ByteArray::from("fine"), ByteArray::from(b"caf\xe9".to_vec())];
        for annotation in ["", "(STRING)"] {
            one_column::<ByteArrayType>(&path, &format!("required binary text {annotation};"), &values);
            let error = read_rows(&path, &Columns::default()).expect_err("refused").to_string();
            assert!(error.contains("table.parquet, row 2: holds a text that is not valid UTF-8; write"), "{error}");
        }
    }

    #[test]
    fn a_named_column_that_the_file_lacks_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.parquet");
        written(&path);
        let columns = Columns { pair: Some("other".to_owned()), ..Columns::default() };
        let error = read_rows(&path, &columns).expect_err("refused").to_string();
        assert!(error.contains("table.parquet: no column `other`"), "{error}");
    }

    #[test]
    fn files_that_are_no_parquet_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.parquet");
        let error = |path: &Path| read_rows(path, &Columns::default()).expect_err("refused").to_string();
        assert!(error(&path).contains("cannot be opened"), "{}", error(&path));
        std::fs::write(&path, "text,p\na,0.5\n").expect("writes");
        assert!(error(&path).contains("table.parquet: cannot be read as Parquet"), "{}", error(&path));
        written(&path);
        let columns = Columns { text: Some("body".to_owned()), ..Columns::default() };
        let error = read_rows(&path, &columns).expect_err("refused").to_string();
        assert!(error.contains("row 1: no column `body`; there are `text`, `p`, `q`"), "{error}");
    }
}
