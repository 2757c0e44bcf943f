//! Evaluates a model on labelled rows, and compares it with its teacher.

use std::time::Instant;

use nn::Model;
use serde::{Deserialize, Serialize};

use crate::data::Split;
use crate::inference::{self, Running, announce};
use crate::model::{self, TextModel};
use crate::scores::{MACRO_F1, Scores, predictions as choices};
use crate::ui::{self, Table};

/// The scores, size and speed of a model, for `evaluate` and model cards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    #[serde(flatten)]
    pub(crate) scores: Scores,
    pub(crate) truncated: usize,
    pub(crate) parameters: usize,
    /// Size of the weights' file.
    pub(crate) bytes: u64,
    /// Speed of the model, without tokenising.
    pub(crate) rows_per_second: f64,
    pub(crate) seconds: f64,
}

/// Runs a model over rows and scores it.
pub(crate) fn measure(
    model: TextModel,
    split: &Split,
    max_length: usize,
    how: Running<'_>,
    bytes: u64,
    teacher: Option<&[u32]>,
    label: &str,
) -> anyhow::Result<Measured> {
    Ok(measure_and_choose(model, split, max_length, how, bytes, teacher, label)?.0)
}

/// As [`measure`]; returns the class that each row is predicted to be as well.
pub(crate) fn measure_and_choose(
    model: TextModel,
    split: &Split,
    max_length: usize,
    how: Running<'_>,
    bytes: u64,
    teacher: Option<&[u32]>,
    label: &str,
) -> anyhow::Result<(Measured, Vec<u32>)> {
    let start = Instant::now();
    let encodings = model.tokenizer.encode(&split.rows, max_length)?;
    model::report_truncated(encodings.truncated_count(), encodings.len(), max_length);
    let classes = model.config.labels.len();
    let parameters = model.parameters.flat().len();
    announce(how.compute);
    let mut model = Model::on(how.compute, model.config, model.parameters)?;
    let predictions = inference::predict(&mut model, &encodings, how.batch_tokens, label)?;
    let measured = Measured {
        scores: Scores::of(&predictions.logits, teacher, &split.labels, classes)?,
        truncated: encodings.truncated_count(),
        parameters,
        bytes,
        rows_per_second: predictions.rows_per_second(encodings.len()),
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok((measured, choices(&predictions.logits, classes)))
}

/// The teacher's predictions for the rows, as class ids of the model (classes are matched by name).
pub(crate) fn teacher_predictions(
    teacher: TextModel,
    labels: &[String],
    split: &Split,
    max_length: usize,
    how: Running<'_>,
) -> anyhow::Result<Vec<u32>> {
    let theirs = &teacher.config.labels;
    let order: Option<Vec<usize>> = labels.iter().map(|label| theirs.iter().position(|other| other == label)).collect();
    let order = order.filter(|order| order.len() == theirs.len());
    let Some(order) = order else {
        anyhow::bail!(
            "the teacher's classes are {}, the model's {}; agreement needs the same ones",
            theirs.join(","),
            labels.join(",")
        );
    };
    let encodings = teacher.tokenizer.encode(&split.rows, max_length)?;
    let mut teacher = Model::on(how.compute, teacher.config, teacher.parameters)?;
    let logits = inference::predict(&mut teacher, &encodings, how.batch_tokens, "teacher")?.logits;
    let ordered: Vec<f32> =
        logits.chunks_exact(order.len()).flat_map(|row| order.iter().map(|&class| row[class])).collect();
    Ok(choices(&ordered, order.len()))
}

impl Measured {
    pub(crate) fn text(&self) -> String {
        let figure = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
        let mut table = Table::new(["figure", ""]);
        table.row(["rows".to_string(), ui::count(self.scores.rows as u64)]);
        table.row(["labelled".to_string(), ui::count(self.scores.labelled as u64)]);
        table.row(["accuracy".to_string(), figure(self.scores.accuracy)]);
        table.row([MACRO_F1.to_string(), figure(self.scores.macro_f1)]);
        table.row(["agreement with the teacher".to_string(), figure(self.scores.agreement)]);
        table.row(["calibration error (ECE)".to_string(), figure(self.scores.ece)]);
        table.row(["parameters".to_string(), ui::count(self.parameters as u64)]);
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        table.row(["rows a second".to_string(), format!("{:.0}", self.rows_per_second)]);
        table.to_string()
    }
}
