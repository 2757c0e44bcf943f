//! A row with every column of its file, for those who count or write all of them.

use crate::Error;
use crate::rows::{Cell, Columns, LabelColumn, Rest, Row, for_each_record_or_stdin};
use serde_json::{Map, Value};
use std::ops::ControlFlow;
use std::path::Path;

/// A row and all that its file says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its texts; its label is all of [`labels`](Self::labels), with commas between them.
    pub row: Row,
    /// None, one, or those of a list.
    pub labels: Vec<String>,
    /// Every column in the order of the file, text and label too. The cells of a table are strings.
    pub columns: Map<String, Value>,
}

/// Reads a file, or standard input where it is called `-.jsonl` or the like, as records, one at a time; `each` may end it early. Unlike [`read_rows`](crate::read_rows) this takes lists of
/// labels.
///
/// # Errors
/// Those of [`for_each_row`](crate::for_each_row), and a label that is an object.
pub fn for_each_whole(
    path: &Path,
    columns: &Columns,
    mut each: impl FnMut(Record) -> ControlFlow<()>,
) -> Result<(), Error> {
    let file = path.display().to_string();
    let whole = Columns { label: LabelColumn::Ignored, whole: true, ..columns.clone() };
    let mut label_seen = false;
    let mut first: Option<Vec<String>> = None;
    let mut refused = None;
    for_each_record_or_stdin(path, &whole, |row, rest| {
        let record = record(&file, row, rest, columns);
        match record {
            Ok((record, found)) => {
                label_seen |= found;
                first.get_or_insert_with(|| record.columns.keys().cloned().collect());
                each(record)
            }
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    match (refused, &columns.label, first) {
        (Some(error), ..) => Err(error),
        (None, LabelColumn::Named(column), Some(found)) if !label_seen => {
            Err(Error::NoColumn { file, column: column.clone(), found })
        }
        _ => Ok(()),
    }
}

/// A record, and whether it has the labels' column.
fn record(file: &str, mut row: Row, rest: Rest<'_>, columns: &Columns) -> Result<(Record, bool), Error> {
    let mut all: Map<String, Value> = rest
        .iter()
        .map(|(name, cell)| match cell {
            Cell::Text(text) => (name.to_owned(), Value::String(text.to_owned())),
            Cell::Json(value) => (name.to_owned(), value.clone()),
        })
        .collect();
    if all.is_empty() {
        // Plain text, whose only column has no name.
        all.insert("text".to_owned(), Value::String(row.text.clone()));
    }
    let place = || format!("{file}, line {}", row.line);
    let column = columns.label.find(place, all.keys().map(String::as_str))?;
    let labels = match column.and_then(|column| all.iter().nth(column)) {
        None => Vec::new(),
        Some((column, value)) => labels(columns, value).ok_or_else(|| Error::WrongType {
            place: place(),
            column: column.clone(),
            found: "an object".to_owned(),
            expected: "a string, a number, a truth value, a list of them, or null for no label",
        })?,
    };
    row.label = (!labels.is_empty()).then(|| labels.join(", "));
    Ok((Record { row, labels, columns: all }, column.is_some()))
}

/// What a cell says, each label as a table would spell it; nothing of an object.
fn labels(columns: &Columns, value: &Value) -> Option<Vec<String>> {
    let one = |cell: &str| Some(columns.label(cell).into_iter().collect());
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(name) => one(name),
        Value::Number(number) => one(&number.to_string()),
        Value::Bool(truth) => one(if *truth { "True" } else { "False" }),
        Value::Array(list) => {
            list.iter().map(|value| labels(columns, value)).collect::<Option<Vec<_>>>().map(|all| all.concat())
        }
        Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn records(name: &str, text: &str, columns: &Columns) -> Result<Vec<Record>, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        fs::write(&path, text).expect("writes");
        let mut records = Vec::new();
        for_each_whole(&path, columns, |record| {
            records.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(records)
    }

    fn shown(record: &Record) -> String {
        format!("{} {:?} {}", record.row.line, record.labels, Value::Object(record.columns.clone()))
    }

    #[test]
    fn a_record_has_all_columns_in_their_order_and_as_they_are_typed() {
        let columns = Columns::default();
        let json = "{\"id\":7,\"text\":\"a\",\"label\":3,\"text_b\":\"b\",\"x\":null}\n";
        let found = records("a.jsonl", json, &columns).expect("reads");
        assert_eq!(shown(&found[0]), r#"1 ["3"] {"id":7,"text":"a","label":3,"text_b":"b","x":null}"#);
        assert_eq!(found[0].row.text_b.as_deref(), Some("b"));
        for (name, text) in [("a.csv", "id,text,label\n7,a,3\n"), ("a.tsv", "id\ttext\tlabel\n7\ta\t3\n")] {
            let found = records(name, text, &columns).expect("reads");
            assert_eq!(shown(&found[0]), r#"2 ["3"] {"id":"7","text":"a","label":"3"}"#);
        }
        assert_eq!(shown(&records("a.txt", "a\n", &columns).expect("reads")[0]), r#"1 [] {"text":"a"}"#);
    }

    #[test]
    fn lists_of_labels_are_read_and_objects_refused() {
        let columns = Columns { unlabelled: Some("-1".to_owned()), ..Columns::default() };
        let json = "{\"text\":\"a\",\"labels\":[\"x\",2,true]}\n{\"text\":\"b\",\"labels\":[]}\n{\"text\":\"c\",\"labels\":-1}\n";
        let found = records("a.jsonl", json, &columns).expect("reads");
        assert_eq!(
            found.iter().map(|record| record.labels.clone()).collect::<Vec<_>>(),
            [vec!["x", "2", "True"], vec![], vec![]]
        );
        assert_eq!(found[0].row.label.as_deref(), Some("x, 2, True"));
        let error =
            records("a.jsonl", "{\"text\":\"a\",\"label\":{\"x\":1}}\n", &columns).expect_err("refused").to_string();
        assert!(error.contains("line 1: column `label` is an object, expected a string"), "{error}");
    }

    #[test]
    fn a_label_column_that_is_named_must_be_there() {
        let columns = Columns { label: LabelColumn::Named("intent".to_owned()), ..Columns::default() };
        for (name, text) in [("a.jsonl", "{\"text\":\"a\",\"label\":\"x\"}\n"), ("a.csv", "text,label\na,x\n")] {
            let error = records(name, text, &columns).expect_err("refused").to_string();
            assert!(error.contains("no column `intent`; there are `text`, `label`"), "{error}");
        }
        let error = records("a.csv", "text,label,labels\na,x,y\n", &Columns::default());
        assert!(error.is_ok(), "`label` comes before `labels`");
        let error = records("a.csv", "text,Label,labels\na,x,y\n", &Columns::default()).expect_err("two").to_string();
        assert!(error.contains("both `Label` and `labels`"), "{error}");
    }

    #[test]
    fn quotes_of_a_writer_in_any_column_are_refused_where_all_are_kept() {
        let tsv = "text\tnote\na\t\"x, y\"\nb\t\"z, w\"\n";
        let error = records("a.tsv", tsv, &Columns::default()).expect_err("quoted").to_string();
        assert!(error.contains("a cell stands in quotes"), "{error}");
    }
}
