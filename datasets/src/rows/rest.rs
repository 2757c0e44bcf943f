//! What a file has of a row besides its texts and its label: for those who read more columns than these.

use serde_json::{Map, Value};

/// The other columns of a row, in the order of the file.
#[derive(Debug, Clone, Copy)]
pub struct Rest<'a>(Columns<'a>);

#[derive(Debug, Clone, Copy)]
enum Columns<'a> {
    /// Plain text has none.
    None,
    /// A table's: names, cells, and which of them the row has taken.
    Table { names: &'a [String], cells: &'a [&'a str], taken: [Option<usize>; 3] },
    /// What is left of an object.
    Object(&'a Map<String, Value>),
}

/// What stands in a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// In a table.
    Text(&'a str),
    /// In an object.
    Json(&'a Value),
}

impl<'a> Rest<'a> {
    /// Of an object from which a row was taken: see [`Objects`](crate::Objects).
    pub fn of_object(object: &'a Map<String, Value>) -> Self {
        Self(Columns::Object(object))
    }

    pub(super) fn none() -> Self {
        Self(Columns::None)
    }

    pub(super) fn of_table(names: &'a [String], cells: &'a [&'a str], taken: [Option<usize>; 3]) -> Self {
        Self(Columns::Table { names, cells, taken })
    }

    /// Each column with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Cell<'a>)> + use<'a> {
        let (names, cells, taken, object) = match self.0 {
            Columns::None => (&[][..], &[][..], [None; 3], None),
            Columns::Table { names, cells, taken } => (names, cells, taken, None),
            Columns::Object(object) => (&[][..], &[][..], [None; 3], Some(object)),
        };
        let of_table = names.iter().zip(cells).enumerate().filter(move |(at, _)| !taken.contains(&Some(*at)));
        let of_table = of_table.map(|(_, (name, cell))| (name.as_str(), Cell::Text(cell)));
        let of_object = object.into_iter().flat_map(|object| object.iter());
        of_table.chain(of_object.map(|(name, value)| (name.as_str(), Cell::Json(value))))
    }

    /// What stands in the column of this name; none where there is no such column.
    pub fn get(&self, column: &str) -> Option<Cell<'a>> {
        self.iter().find(|(name, _)| *name == column).map(|(_, cell)| cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Columns, Error, LabelColumn, Objects, Row, Unit, for_each_record};
    use std::fs;
    use std::ops::ControlFlow;

    /// Names and cells, as text.
    type Named = Vec<(String, String)>;

    /// Each row of a file with what else it has.
    fn records(name: &str, text: &str, columns: &Columns) -> Result<Vec<(Row, Named)>, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        fs::write(&path, text).expect("writes");
        let mut records = Vec::new();
        for_each_record(&path, columns, |row, rest| {
            let shown = |cell| match cell {
                Cell::Text(text) => text.to_owned(),
                Cell::Json(json) => json.to_string(),
            };
            records.push((row, rest.iter().map(|(name, cell)| (name.to_owned(), shown(cell))).collect()));
            ControlFlow::Continue(())
        })?;
        Ok(records)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Named {
        pairs.iter().map(|(name, cell)| ((*name).to_owned(), (*cell).to_owned())).collect()
    }

    #[test]
    fn every_format_hands_out_the_columns_that_no_row_has() {
        let columns = Columns::default();
        let csv = "p_b,text,label,p_a\n0.25,\"a, b\",x,\"0,75\"\n";
        let tsv = "p_b\ttext\tlabel\tp_a\n0.25\ta, b\tx\t0,75\n";
        for (name, text) in [("rest.csv", csv), ("rest.tsv", tsv)] {
            let found = records(name, text, &columns).expect("reads");
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].0.text.as_str(), found[0].0.line), ("a, b", 2));
            assert_eq!(found[0].1, pairs(&[("p_b", "0.25"), ("p_a", "0,75")]), "{name}");
        }
        let jsonl = "{\"p\":[0.25,0.75],\"text\":\"a\",\"label\":\"x\",\"q\":null}\n";
        let found = records("rest.jsonl", jsonl, &columns).expect("reads");
        assert_eq!(found[0].1, pairs(&[("p", "[0.25,0.75]"), ("q", "null")]));
        assert_eq!(records("rest.txt", "a\n", &columns).expect("reads")[0].1, []);
    }

    #[test]
    fn columns_that_a_row_takes_by_another_name_are_its_own() {
        let columns = Columns {
            text: Some("body".to_owned()),
            pair: Some("p".to_owned()),
            label: LabelColumn::Named("y".to_owned()),
            ..Columns::default()
        };
        let csv = "body,y,p,label,text\na,b,c,d,e\n";
        let jsonl = "{\"body\":\"a\",\"y\":\"b\",\"p\":\"c\",\"label\":\"d\",\"text\":\"e\"}\n";
        let left =
            |quote| pairs(&[("label", format!("{quote}d{quote}").as_str()), ("text", &format!("{quote}e{quote}"))]);
        assert_eq!(records("own.csv", csv, &columns).expect("reads")[0].1, left(""));
        assert_eq!(records("own.jsonl", jsonl, &columns).expect("reads")[0].1, left("\""));
    }

    #[test]
    fn an_object_gives_its_row_away_once() {
        let mut object = serde_json::json!({"text": "a", "p": 1}).as_object().cloned().expect("an object");
        let columns = Columns::default();
        let mut objects = Objects::new("table", Unit::Line, &columns);
        let row = objects.take(5, &mut object).expect("a row");
        assert_eq!((row.text.as_str(), row.line), ("a", 5));
        assert_eq!(Rest::of_object(&object).get("text"), None);
        assert_eq!(Rest::of_object(&object).get("p"), Some(Cell::Json(&serde_json::json!(1))));
        let error = objects.take(5, &mut object).expect_err("no text").to_string();
        assert!(error.contains("table, line 5: no column `text`"), "{error}");
    }

    #[test]
    fn numbers_that_json_has_not_are_named() {
        for word in ["NaN", "Infinity", "-Infinity"] {
            let line = format!("{{\"text\":\"a\",\"p\":[0.5,{word}]}}\n");
            let error = records("nan.jsonl", &line, &Columns::default()).expect_err("no JSON").to_string();
            assert!(error.contains("line 1: not one JSON object on a line"), "{error}");
            assert!(error.contains(&format!("{word} at column")), "{error}");
        }
    }
}
