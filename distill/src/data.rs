//! Reads rows, splits them, and matches labels with class names.

use std::path::Path;

use anyhow::{Context, bail};
use datasets::{Columns, LabelNames, Row, hold_out, read_rows, reconcile};

use crate::recipe::ColumnsRecipe;

/// Rows with the class ids of their labels.
#[derive(Default)]
pub(crate) struct Split {
    pub(crate) rows: Vec<Row>,
    pub(crate) labels: Vec<Option<u32>>,
}

impl Split {
    /// Rows without labels, for tasks that do not use them.
    pub(crate) fn unlabelled(rows: Vec<Row>) -> Self {
        let labels = vec![None; rows.len()];
        Self { rows, labels }
    }
}

/// Training and validation rows.
pub(crate) struct TaskData {
    pub(crate) train: Split,
    pub(crate) validation: Split,
    pub(crate) names: LabelNames,
}

/// Reads a file and matches its labels with the known class names; without them, the labels in the file are the
/// classes.
pub(crate) fn read(path: &Path, columns: &ColumnsRecipe, known: Option<&LabelNames>) -> anyhow::Result<Split> {
    let rows = read_rows(path, &columns_of(columns))?;
    let (_, labels) = reconcile(&rows, known).with_context(|| path.display().to_string())?;
    Ok(Split { rows, labels })
}

/// Reads the training rows and the validation rows: their own file, or a tenth held out by a hash of the text.
pub(crate) fn read_split(
    data: &Path,
    validation: Option<&Path>,
    columns: &ColumnsRecipe,
    known: Option<&LabelNames>,
) -> anyhow::Result<TaskData> {
    let rows = read_rows(data, &columns_of(columns))?;
    let validation_rows = validation.map(|path| read_rows(path, &columns_of(columns))).transpose()?;
    split(rows, validation_rows, known, [data, validation.unwrap_or(data)])
}

/// As [`read_split`], for rows in memory; `origins` are the file names for messages.
pub(crate) fn split(
    rows: Vec<Row>,
    validation: Option<Vec<Row>>,
    known: Option<&LabelNames>,
    origins: [&Path; 2],
) -> anyhow::Result<TaskData> {
    let (train, validation) = split_rows(rows, validation)?;
    let (names, labels) = match known {
        Some(known) => (known.clone(), labels_of(&train, known, origins[0])?),
        None => reconcile(&train, None).with_context(|| origins[0].display().to_string())?,
    };
    let validation_labels = labels_of(&validation, &names, origins[1])?;
    Ok(TaskData {
        train: Split { rows: train, labels },
        validation: Split { rows: validation, labels: validation_labels },
        names,
    })
}

/// Training and validation rows; without validation rows, a tenth of `rows` is held out.
pub(crate) fn split_rows(rows: Vec<Row>, validation: Option<Vec<Row>>) -> anyhow::Result<(Vec<Row>, Vec<Row>)> {
    let (train, validation) = match validation {
        Some(validation) => (rows, validation),
        None => hold_out(rows),
    };
    if train.is_empty() {
        bail!("no rows are left to learn from: all are held out for validation; give more rows, or --validation");
    }
    Ok((train, validation))
}

/// The class ids of rows from a file.
pub(crate) fn labels_of(rows: &[Row], known: &LabelNames, origin: &Path) -> anyhow::Result<Vec<Option<u32>>> {
    Ok(reconcile(rows, Some(known)).with_context(|| origin.display().to_string())?.1)
}

pub(crate) fn columns_of(columns: &ColumnsRecipe) -> Columns {
    Columns {
        text: columns.text_column.clone(),
        pair: columns.pair_column.clone(),
        label: columns.label_column.clone(),
    }
}

/// Refuses a teacher that is no better than chance: its accuracy on at least 50 labelled rows is at most 1/K plus two
/// standard errors, for K classes.
pub(crate) fn refuse_chance(accuracy: f64, labelled: usize, classes: usize) -> anyhow::Result<()> {
    let chance = 1.0 / classes as f64;
    let limit = chance + 2.0 * (chance * (1.0 - chance) / labelled as f64).sqrt();
    if labelled >= 50 && accuracy <= limit {
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
