//! Reads rows, splits them, and matches labels with class names.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, bail};
use datasets::{
    Columns, Encodings, LabelColumn, LabelNames, Row, RowLength, Skipping, TextTokenizer, Unit, encode_and_hold_out,
    encode_file, for_each_row, hold_out, reconcile,
};

use crate::recipe::{ColumnsRecipe, RowChoice};
use crate::ui;

/// Rows with the class ids of their labels.
#[derive(Clone, Default)]
pub(crate) struct Split {
    /// None where the tokens are here.
    pub(crate) rows: Vec<Row>,
    pub(crate) labels: Vec<Option<u32>>,
    /// The rows as a model reads them, if they were tokenised as they came from a file that may be larger than memory.
    tokens: Option<Encodings>,
}

impl Split {
    pub(crate) fn new(rows: Vec<Row>, labels: Vec<Option<u32>>) -> Self {
        Self { rows, labels, tokens: None }
    }

    /// Rows without labels, of whose texts only the tokens are kept.
    fn of_tokens(tokens: Encodings) -> Self {
        Self { rows: Vec::new(), labels: vec![None; tokens.len()], tokens: Some(tokens) }
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The rows in tokens of this tokenizer, at most so many of each; as they are if they were read so.
    pub(crate) fn encode(&self, tokenizer: &TextTokenizer, max_length: usize) -> Result<Encodings, datasets::Error> {
        match &self.tokens {
            Some(tokens) => Ok(tokens.clone()),
            None => tokenizer.encode(&self.rows, max_length),
        }
    }

    /// With rows without labels behind them.
    pub(crate) fn with_unlabelled(mut self, rows: &[Row]) -> Self {
        self.labels.extend(std::iter::repeat_n(None, rows.len()));
        self.rows.extend_from_slice(rows);
        self
    }

    /// Rows to learn from, and a tenth of each class to validate on, in their order.
    pub(crate) fn hold_out(self) -> (Self, Self) {
        let held_out = hold_out(&self.rows, &self.labels);
        let mut sides = (Self::default(), Self::default());
        for ((row, label), held_out) in self.rows.into_iter().zip(self.labels).zip(held_out) {
            let side = if held_out { &mut sides.1 } else { &mut sides.0 };
            side.rows.push(row);
            side.labels.push(label);
        }
        sides
    }

    /// The rows of a choice.
    pub(crate) fn taken(self, choice: RowChoice) -> Self {
        if choice == RowChoice::All {
            return self;
        }
        let pairs = self.rows.into_iter().zip(self.labels);
        let (rows, labels) = pairs.filter(|(_, label)| choice.takes(*label)).unzip();
        Self::new(rows, labels)
    }

    /// Says, where no row has a label, what follows from it; `row` says of which rows.
    pub(crate) fn say_unlabelled(&self, row: &str, consequence: &str) {
        if self.labels.iter().all(Option::is_none) {
            say_unlabelled(row, consequence);
        }
    }
}

/// What cannot be told without labels.
pub(crate) const NO_FIGURES: &str = "accuracy, macro-F1 and calibration are left out";

/// Says that no row has a label, and what follows from it.
pub(crate) fn say_unlabelled(row: &str, consequence: &str) {
    ui::say(format!(
        "warning: no {row} has a label: {consequence}; if they have, name their column with --label-column"
    ));
}

/// Training and validation rows.
#[derive(Clone)]
pub(crate) struct TaskData {
    pub(crate) train: Split,
    pub(crate) validation: Split,
    pub(crate) names: LabelNames,
}

/// Reads a file whose labels matter.
pub(crate) fn read_rows(path: &Path, columns: &ColumnsRecipe) -> anyhow::Result<Vec<Row>> {
    read_rows_as(path, &columns_of(columns))
}

/// The same, with all that there is to say of how files are read.
pub(crate) fn read_rows_as(path: &Path, columns: &Columns) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let label_column = for_each_row(path, columns, |row| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    say_label_column(path, label_column.as_deref());
    Ok(rows)
}

/// Says which column labels were taken from, where nobody named it and it is not called `label`.
pub(crate) fn say_label_column(path: &Path, found: Option<&str>) {
    if let Some(name) = found {
        ui::say(format!("{}: labels are taken from column `{name}`; --label-column names another", path.display()));
    }
}

/// Where labels come from, for messages that go on with a line: a file, and what a line is where there are none.
fn origin(path: &Path) -> String {
    match datasets::unit_of(path) {
        Unit::Line => path.display().to_string(),
        Unit::Row => format!("{}, where line 1 is the first row", path.display()),
    }
}

/// Says where labels are numbers that count as class ids, and which classes these are; of classes without a name only where
/// the numbers may count from 1.
fn say_ids(path: &Path, rows: &[Row], known: &LabelNames) {
    let ids = known.ids_without_name(rows);
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return };
    let from_one = *first == 1 && *last as usize + 1 == known.len();
    if known.are_generic() && !from_one {
        return;
    }
    let shown: Vec<String> =
        ids.iter().take(4).filter_map(|&id| Some(format!("{id} is {}", known.names().get(id as usize)?))).collect();
    let more = if ids.len() > shown.len() { ", .." } else { "" };
    let doubt = match from_one {
        true => "; none is 0: if the data counts its classes from 1, every label is taken for the next class",
        false => "",
    };
    ui::say(format!(
        "warning: {}: labels are numbers that no class has as its name, and count as ids from 0 ({}{more}){doubt}; write names \
         of classes in their place if that is not meant",
        path.display(),
        shown.join(", ")
    ));
}

/// Reads a file and matches its labels with class names; without any known, the file's labels are the classes.
pub(crate) fn read(path: &Path, columns: &ColumnsRecipe, known: Option<&LabelNames>) -> anyhow::Result<Split> {
    let rows = read_rows(path, columns)?;
    let (_, labels) = reconcile(&rows, known).with_context(|| origin(path))?;
    known.inspect(|known| say_ids(path, &rows, known));
    Ok(Split::new(rows, labels))
}

impl TaskData {
    /// With texts without labels to learn from, behind the training rows. None of them is validated on.
    pub(crate) fn with_unlabelled(self, rows: &[Row]) -> Self {
        Self { train: self.train.with_unlabelled(rows), ..self }
    }
}

/// Reads texts without labels, to be learned from beside other rows; none without a file. Those that stand in the other rows,
/// be it to train, to validate or to test on, and those that are there twice, are left out, and counted.
pub(crate) fn read_unlabelled(
    path: Option<&Path>,
    columns: &ColumnsRecipe,
    others: &[Option<&Vec<Row>>],
) -> anyhow::Result<Vec<Row>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text_of = |row: &Row| (row.text.clone(), row.text_b.clone());
    let mut seen: HashSet<_> = others.iter().flatten().flat_map(|rows| rows.iter()).map(text_of).collect();
    let (mut rows, mut left_out) = (Vec::new(), 0);
    for_each_row(path, &text_columns_of(columns), |row| {
        match seen.insert(text_of(&row)) {
            true => rows.push(Row { label: None, ..row }),
            false => left_out += 1,
        }
        ControlFlow::Continue(())
    })?;
    let [count, left_out] = [rows.len() as u64, left_out].map(ui::count);
    ui::say(format!(
        "{}: {count} texts to learn from, {left_out} left out that stand elsewhere or twice",
        path.display()
    ));
    Ok(rows)
}

/// Reads the training rows and the validation rows: their own file, or a tenth held out by a hash of the text.
pub(crate) fn read_split(
    data: &Path,
    validation: Option<&Path>,
    columns: &ColumnsRecipe,
    known: Option<&LabelNames>,
) -> anyhow::Result<TaskData> {
    let rows = read_rows(data, columns)?;
    let validation_rows = validation.map(|path| read_rows(path, columns)).transpose()?;
    split(rows, validation_rows, known, [data, validation.unwrap_or(data)])
}

/// Reads training and validation texts without their labels, for tasks that have no use for them, in tokens of this tokenizer.
pub(crate) fn read_tokens(
    data: &Path,
    validation: Option<&Path>,
    columns: &ColumnsRecipe,
    tokenizer: &TextTokenizer,
    length: RowLength,
) -> anyhow::Result<(Split, Split)> {
    if !columns.label_names.is_empty() {
        bail!("--label-names goes with --task single-label: masked tokens have no classes");
    }
    let columns = text_columns_of(columns);
    let read = |path: &Path| encode_file(path, &columns, tokenizer, length);
    let [train, validation] = match validation {
        Some(validation) => [read(data)?, read(validation)?],
        None => encode_and_hold_out(data, &columns, tokenizer, length)?,
    };
    refuse_nothing_to_learn(train.len())?;
    Ok((Split::of_tokens(train), Split::of_tokens(validation)))
}

/// As [`read_split`], of rows in memory; `origins` says where they are from, in messages. Without known classes, those of
/// all rows are the classes, before any is held out.
pub(crate) fn split(
    rows: Vec<Row>,
    validation: Option<Vec<Row>>,
    known: Option<&LabelNames>,
    origins: [&Path; 2],
) -> anyhow::Result<TaskData> {
    let (names, labels) = reconcile(&rows, known).with_context(|| origin(origins[0]))?;
    known.inspect(|known| say_ids(origins[0], &rows, known));
    let validation = match validation {
        None => None,
        Some(rows) => {
            let labels = labels_of(&rows, &names, origins[1]);
            let labels = match known {
                Some(_) => labels?,
                None => labels.with_context(|| format!("the classes are those of {}", origins[0].display()))?,
            };
            Some(Split::new(rows, labels))
        }
    };
    let (train, validation) = or_held_out(Split::new(rows, labels), validation)?;
    Ok(TaskData { train, validation, names })
}

/// Rows to learn from and rows to validate on: a tenth of the others where there are none.
pub(crate) fn or_held_out(rows: Split, validation: Option<Split>) -> anyhow::Result<(Split, Split)> {
    let (train, validation) = match validation {
        Some(validation) => (rows, validation),
        None => rows.hold_out(),
    };
    refuse_nothing_to_learn(train.len())?;
    Ok((train, validation))
}

fn refuse_nothing_to_learn(rows: usize) -> anyhow::Result<()> {
    if rows == 0 {
        bail!("no rows are left to learn from: all are held out for validation; give more rows, or --validation");
    }
    Ok(())
}

/// The class ids of rows from a file.
pub(crate) fn labels_of(rows: &[Row], known: &LabelNames, path: &Path) -> anyhow::Result<Vec<Option<u32>>> {
    Ok(reconcile(rows, Some(known)).with_context(|| origin(path))?.1)
}

pub(crate) fn columns_of(columns: &ColumnsRecipe) -> Columns {
    Columns {
        text: columns.text_column.clone(),
        pair: columns.pair_column.clone(),
        label: columns.label_column.clone().map_or(LabelColumn::Usual, LabelColumn::Named),
        unlabelled: columns.unlabelled_value.clone(),
        quotes: columns.quotes,
        whole: false,
        skipping: Skipping::default(),
    }
}

/// As [`columns_of`], for what asks for no labels: they are not even looked at, unless their column is named.
pub(crate) fn text_columns_of(columns: &ColumnsRecipe) -> Columns {
    let label = columns.label_column.clone().map_or(LabelColumn::Ignored, LabelColumn::Named);
    Columns { label, ..columns_of(columns) }
}

/// Labelled rows that it takes to tell a teacher from chance.
pub(crate) const FEWEST_FOR_CHANCE: usize = 50;

/// Refuses a teacher that the labels show to be no better than chance: accuracy at most 1/K plus two standard errors,
/// over at least [`FEWEST_FOR_CHANCE`] labelled rows.
pub(crate) fn refuse_chance(accuracy: f64, labelled: usize, classes: usize) -> anyhow::Result<()> {
    let chance = 1.0 / classes as f64;
    let limit = chance + 2.0 * (chance * (1.0 - chance) / labelled as f64).sqrt();
    if labelled >= FEWEST_FOR_CHANCE && accuracy <= limit {
        bail!(
            "the teacher's accuracy on {labelled} labelled rows is {accuracy:.3}, no better than chance \
             ({chance:.3}, plus two standard errors: {limit:.3}); fine-tune it first, check that its class names and \
             the data's mean the same, or go on with --force"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_refused_from_fifty_rows_on() {
        assert!(refuse_chance(0.25, 49, 4).is_ok());
        // 0.25 + 2 * sqrt(0.25 * 0.75 / 50) = 0.3725
        assert!(refuse_chance(0.372, 50, 4).is_err());
        assert!(refuse_chance(0.373, 50, 4).is_ok());
    }
}
