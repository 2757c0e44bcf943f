//! Where the numbers of a row stand: in one column, as a list or by class, or in a column for each class.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use datasets::{Cell, LabelNames, Rest};
use serde_json::Value;

/// The columns of a file that hold answers, by the word of the person and by the columns of the first row.
#[derive(Debug, PartialEq)]
pub(super) enum Layout {
    /// All numbers stand in this one.
    One(String),
    /// A number in each.
    Several {
        /// A column, and the class that it is of.
        columns: Vec<(String, String)>,
        /// What stands before and behind the class in a column's name, where they were found so.
        pattern: Option<(String, String)>,
    },
}

/// What a row says of the classes.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// In the order of the classes.
    List(Vec<f64>),
    /// By the names of the classes.
    Named(Vec<(String, f64)>),
}

impl Answer {
    /// The numbers of columns that were listed one by one stand for the classes in their order, where those are named otherwise.
    pub(super) fn in_order_of(self, layout: &Layout, classes: Option<&LabelNames>) -> Self {
        match (self, layout, classes) {
            (Self::Named(named), Layout::Several { pattern: None, .. }, Some(classes))
                if named.len() == classes.len() && named.iter().all(|(column, _)| classes.id(column).is_none()) =>
            {
                Self::List(named.into_iter().map(|(_, number)| number).collect())
            }
            (answer, ..) => answer,
        }
    }
}

impl Layout {
    /// Finds the columns: one of this name; or, where there is none, those that `*` stands for in it, or those that it lists
    /// with commas between them.
    pub(super) fn find(asked: &str, rest: &Rest<'_>) -> anyhow::Result<Self> {
        let layout = Self::among(asked, rest)?;
        let is_of_it = |name: &str| match &layout {
            Self::One(column) => column == name,
            Self::Several { columns, .. } => columns.iter().any(|(column, _)| column == name),
        };
        let mut seen = BTreeSet::new();
        if let Some((name, _)) = rest.iter().find(|(name, _)| is_of_it(name) && !seen.insert(*name)) {
            bail!("two columns are called `{name}`; rename one of them");
        }
        Ok(layout)
    }

    fn among(asked: &str, rest: &Rest<'_>) -> anyhow::Result<Self> {
        if rest.get(asked).is_some() {
            return Ok(Self::One(asked.to_owned()));
        }
        let found = || {
            let names: Vec<String> = rest.iter().map(|(name, _)| format!("`{name}`")).collect();
            if names.is_empty() { "no columns but the row's own".to_owned() } else { names.join(", ") }
        };
        if let Some((before, behind)) = asked.split_once('*') {
            let class = |name| within(name, before, behind).map(|class: &str| (String::from(name), class.to_owned()));
            let columns: Vec<_> = rest.iter().filter_map(|(name, _)| class(name)).collect();
            if columns.is_empty() {
                bail!("no column is like `{asked}`; there are {}", found());
            }
            return Ok(Self::Several { columns, pattern: Some((before.to_owned(), behind.to_owned())) });
        }
        if asked.contains(',') {
            let columns: Vec<(String, String)> =
                asked.split(',').map(|name| (name.to_owned(), name.to_owned())).collect();
            let mut listed = BTreeSet::new();
            if let Some((name, _)) = columns.iter().find(|(name, _)| !listed.insert(name)) {
                bail!("column `{name}` is listed twice");
            }
            if let Some((name, _)) = columns.iter().find(|(name, _)| rest.get(name).is_none()) {
                bail!("no column `{name}`; there are {}", found());
            }
            return Ok(Self::Several { columns, pattern: None });
        }
        bail!("no column `{asked}`; there are {}", found())
    }

    /// The numbers of a row.
    pub(super) fn read(&self, rest: &Rest<'_>) -> anyhow::Result<Answer> {
        match self {
            Self::One(column) => match rest.get(column) {
                None => Err(missing(column)),
                Some(cell) => whole(cell, column),
            },
            Self::Several { columns, pattern } => {
                let mut numbers: Vec<Option<f64>> = vec![None; columns.len()];
                for (name, cell) in rest.iter() {
                    match columns.iter().position(|(column, _)| column == name) {
                        Some(at) => numbers[at] = Some(number(cell, name)?),
                        None => {
                            let class = pattern.as_ref().and_then(|(before, behind)| within(name, before, behind));
                            if let Some(class) = class {
                                bail!("column `{name}` is of a class `{class}` that the first row does not have");
                            }
                        }
                    }
                }
                let named = columns.iter().zip(numbers).map(|((column, class), number)| {
                    number.map(|number| (class.clone(), number)).ok_or_else(|| missing(column))
                });
                Ok(Answer::Named(named.collect::<anyhow::Result<_>>()?))
            }
        }
    }
}

/// What `*` stands for in a column's name. Columns without a name are not meant: pandas writes its row numbers into one.
fn within<'a>(name: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    name.strip_prefix(before)?.strip_suffix(behind).filter(|class| !class.is_empty())
}

fn missing(column: &str) -> anyhow::Error {
    anyhow::anyhow!("nothing in column `{column}`; fill it in or leave the row out")
}

/// All numbers of one cell.
fn whole(cell: Cell<'_>, column: &str) -> anyhow::Result<Answer> {
    let parsed;
    let value = match (text_of(cell), cell) {
        (Some(text), _) if text.trim().is_empty() => return Err(missing(column)),
        (Some(text), _) => {
            parsed = serde_json::from_str(text).with_context(|| {
                format!(
                    "column `{column}` holds {}, expected a JSON list of numbers or a JSON object of class and number, as \
                     Python's json.dumps writes both; {LABEL_ALONE} {column}",
                    shortened(text)
                )
            })?;
            &parsed
        }
        (None, Cell::Json(value)) => value,
        (None, Cell::Text(_)) => return Err(missing(column)),
    };
    match value {
        Value::Null => Err(missing(column)),
        // What a pipeline of `transformers` gives for one text, where it was given a list of one.
        Value::Array(list) if list.len() == 1 && list[0].get(0).is_some_and(|first| scored(first).is_some()) => {
            whole(Cell::Json(&list[0]), column)
        }
        Value::Array(list) if list.first().is_some_and(|first| scored(first).is_some()) => {
            let named = list.iter().map(|value| {
                let (class, score) = scored(value).with_context(|| {
                    format!("column `{column}` holds {}, expected a label and its score", shortened(&value.to_string()))
                })?;
                Ok((class.to_owned(), number(Cell::Json(score), column).with_context(|| format!("class `{class}`"))?))
            });
            let named = named.collect::<anyhow::Result<Vec<_>>>()?;
            match named.as_slice() {
                [(class, _)] => Err(best_alone(column, class)),
                _ => Ok(Answer::Named(named)),
            }
        }
        Value::Object(_) if scored(value).is_some() => {
            Err(best_alone(column, scored(value).map_or("", |(class, _)| class)))
        }
        Value::Array(list) => {
            let numbers = list.iter().enumerate().map(|(at, value)| {
                number(Cell::Json(value), column).with_context(|| {
                    format!(
                        "number {} of the list (with their classes, numbers are written as {{\"class\": number}})",
                        at + 1
                    )
                })
            });
            Ok(Answer::List(numbers.collect::<anyhow::Result<_>>()?))
        }
        Value::Object(object) => {
            let numbers = object.iter().map(|(class, value)| {
                let number = number(Cell::Json(value), column).with_context(|| format!("class `{class}`"))?;
                Ok((class.clone(), number))
            });
            Ok(Answer::Named(numbers.collect::<anyhow::Result<_>>()?))
        }
        other => bail!(
            "column `{column}` holds {}, expected a list of numbers or an object of class and number; of several columns, \
             one a class, give `PREFIX*` or their names with commas between them; {LABEL_ALONE} {column}",
            shortened(&other.to_string())
        ),
    }
}

/// What to do with answers that are a class each.
const LABEL_ALONE: &str = "a class alone is a label, which training learns from without a teacher, by --label-column";

/// A class and its score, as pipelines of `transformers` write them.
fn scored(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|object| object.len() == 2)?;
    Some((object.get("label")?.as_str()?, object.get("score")?))
}

fn best_alone(column: &str, class: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "column `{column}` holds the score of one class alone, `{class}`; write those of all classes, as a pipeline of \
         `transformers` gives them with top_k=None"
    )
}

/// One number of a cell.
fn number(cell: Cell<'_>, column: &str) -> anyhow::Result<f64> {
    if let Some(text) = text_of(cell).map(str::trim) {
        if text.is_empty() {
            return Err(missing(column));
        }
        let number = text.parse().ok();
        return number.with_context(|| {
            let way_out = if text.ends_with('%') { "; write per cent as parts of 1" } else { "" };
            format!("column `{column}` holds {}, which is no number{way_out}", shortened(text))
        });
    }
    match cell {
        Cell::Json(Value::Number(number)) => number.as_f64().context("a number beyond any format"),
        Cell::Json(Value::Null) | Cell::Text(_) => Err(missing(column)),
        Cell::Json(other) => bail!("column `{column}` holds {}, which is no number", shortened(&other.to_string())),
    }
}

/// What is written in a cell, where that is text.
fn text_of(cell: Cell<'_>) -> Option<&str> {
    match cell {
        Cell::Text(text) => Some(text),
        Cell::Json(Value::String(text)) => Some(text),
        Cell::Json(_) => None,
    }
}

/// A value in a message.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}...`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is read of an object as of a row.
    fn read(asked: &str, object: Value) -> anyhow::Result<Answer> {
        let object = object.as_object().cloned().expect("an object");
        Layout::find(asked, &Rest::of_object(&object))?.read(&Rest::of_object(&object))
    }

    fn named(answer: &[(&str, f64)]) -> Answer {
        Answer::Named(answer.iter().map(|(class, number)| ((*class).to_owned(), *number)).collect())
    }

    fn refused(asked: &str, object: Value, expected: &[&str]) {
        let error = format!("{:#}", read(asked, object).expect_err("refused"));
        for expected in expected {
            assert!(error.contains(expected), "no `{expected}` in: {error}");
        }
    }

    #[test]
    fn one_column_holds_a_list_or_an_object_as_json_or_as_text() {
        for list in [json!([0.25, 1, 7e-1]), json!("[0.25, 1, 7e-1]"), json!(" [0.25,1.0,\"0.7\"] ")] {
            assert_eq!(read("p", json!({"p": list})).expect("reads"), Answer::List(vec![0.25, 1.0, 0.7]));
        }
        for object in [json!({"b": 0.25, "a": 2}), json!("{\"b\": 0.25, \"a\": 2}")] {
            assert_eq!(read("p", json!({"p": object})).expect("reads"), named(&[("b", 0.25), ("a", 2.0)]));
        }
    }

    #[test]
    fn answers_of_a_pipeline_are_read_by_their_labels() {
        let answer = json!([{"label": "b", "score": 0.75}, {"label": "a", "score": 0.25}]);
        for answer in [answer.clone(), json!([answer]), json!(answer.to_string())] {
            assert_eq!(read("p", json!({"p": answer})).expect("reads"), named(&[("b", 0.75), ("a", 0.25)]));
        }
        for alone in [json!({"label": "b", "score": 0.9}), json!([{"label": "b", "score": 0.9}])] {
            refused("p", json!({"p": alone}), &["one class alone, `b`", "top_k=None"]);
        }
        refused("p", json!({"p": [{"label": "b", "score": 0.9}, {"label": "a"}]}), &["expected a label and its score"]);
        // Classes that are called so.
        assert_eq!(
            read("p", json!({"p": {"label": 0.5, "score": 0.5}})).expect("reads"),
            named(&[("label", 0.5), ("score", 0.5)])
        );
    }

    #[test]
    fn labels_and_answers_in_words_named_no_way_out() {
        refused("p", json!({"p": {"a": "25%", "b": "75%"}}), &["class `a`", "per cent as parts of 1"]);
        let token = json!([{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -2.3}]);
        refused("p", json!({"p": token}), &["number 1 of the list", "{\"class\": number}"]);
        for word in [json!("positive"), json!("The sentiment is positive."), json!(1), json!("1")] {
            refused("target", json!({"target": word}), &["a class alone is a label", "--label-column target"]);
        }
    }

    #[test]
    fn columns_are_found_by_a_star_or_by_their_names() {
        let row = json!({"": 7, "id": 3, "p_b": 0.25, "p_a": "0.75", "p_": 1});
        assert_eq!(read("p_*", row.clone()).expect("reads"), named(&[("b", 0.25), ("a", 0.75)]));
        assert_eq!(read("p_a,p_b", row.clone()).expect("reads"), named(&[("p_a", 0.75), ("p_b", 0.25)]));
        assert_eq!(read("*", json!({"": 7, "b": 1, "a": 2})).expect("reads"), named(&[("b", 1.0), ("a", 2.0)]));
        assert_eq!(read("p(*)", json!({"p(x)": 1, "p(y)": 2})).expect("reads"), named(&[("x", 1.0), ("y", 2.0)]));
        // A column of this very name comes first.
        assert_eq!(read("p_*", json!({"p_*": [1, 2], "p_a": 1})).expect("reads"), Answer::List(vec![1.0, 2.0]));
        refused("q_*", row.clone(), &["no column is like `q_*`", "`p_b`"]);
        refused("p_a,p_c", row.clone(), &["no column `p_c`", "`p_b`"]);
        refused("q", row, &["no column `q`", "`id`"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        for empty in [json!(null), json!(""), json!("  ")] {
            refused("p", json!({"p": empty}), &["nothing in column `p`; fill it in or leave the row out"]);
            refused("p_*", json!({"p_a": 1, "p_b": empty}), &["nothing in column `p_b`"]);
            refused("p", json!({"p": [1, empty]}), &["number 2 of the list", "nothing in column `p`"]);
            refused("p", json!({"p": {"a": empty}}), &["class `a`", "nothing in column `p`"]);
        }
        let layout = Layout::find("p_*", &Rest::of_object(json!({"p_a": 1, "p_b": 2}).as_object().expect("an object")));
        let layout = layout.expect("two columns");
        let later = |object: Value| {
            let object = object.as_object().cloned().expect("an object");
            layout.read(&Rest::of_object(&object)).expect_err("refused").to_string()
        };
        assert!(later(json!({"p_a": 1})).contains("nothing in column `p_b`"));
        assert!(later(json!({"p_a": 1, "p_b": 2, "p_c": 3})).contains("a class `c` that the first row does not have"));
    }

    #[test]
    fn what_is_no_number_is_shown() {
        refused("p", json!({"p": 0.7}), &["`0.7`", "expected a list of numbers or an object", "`PREFIX*`"]);
        refused("p", json!({"p": "[0.1 0.9]"}), &["`[0.1 0.9]`", "json.dumps"]);
        refused("p", json!({"p": "{'a': 0.1}"}), &["`{'a': 0.1}`", "json.dumps"]);
        refused("p", json!({"p": ["x"]}), &["number 1 of the list", "`x`, which is no number"]);
        refused("p_*", json!({"p_a": "0,5"}), &["column `p_a` holds `0,5`, which is no number"]);
        refused("p", json!({"p": [[1]]}), &["number 1 of the list", "`[1]`, which is no number"]);
        refused("p", json!({"p": "x".repeat(100)}), &[&format!("`{}...`", "x".repeat(40))]);
    }
}
