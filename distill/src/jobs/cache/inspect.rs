//! Reports what a cache holds, and how much of a data set it covers.

use std::path::Path;

use cache::{CacheReader, Fingerprint, HiddenTokens, LogitForm, Preprocessing, RecordedError, StoredRow};
use serde::Serialize;

use super::keys::Keys;
use crate::interrupt;
use crate::recipe::ColumnsRecipe;
use crate::signal::cached;
use crate::telemetry::Progress;
use crate::ui::{self, Table};

/// What `cache inspect` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: usize,
    shards: usize,
    /// Rows in the shards that no key leads to: `gc` drops them.
    unreachable_rows: u64,
    bytes: u64,
    bytes_per_row: Option<f64>,
    /// Outputs of all rows: rows, or tokens.
    outputs: u64,
    bytes_per_output: Option<f64>,
    /// Mean entropy of the softmax at temperature 1, in nats; of samples none.
    entropy: Option<f64>,
    /// SHA-256 of all rows in the order of their keys.
    content: String,
    batch_tokens: usize,
    fingerprint: Fingerprint,
    recorded_error: RecordedError,
    data: Option<OfData>,
}

/// How a cache fits a data set.
#[derive(Debug, Serialize)]
struct OfData {
    rows: u64,
    cached: u64,
    /// Cached rows of each class, in the order of the cache's labels.
    labels: Vec<u64>,
    labelled: u64,
    /// Of the cached teacher, on the labelled rows.
    accuracy: Option<f64>,
}

/// Reads a whole cache, and looks data up in it.
pub(crate) fn inspect(dir: &Path, data: Option<&Path>, columns: &ColumnsRecipe) -> anyhow::Result<Report> {
    let reader = CacheReader::open(dir, None)?;
    // What can be refused comes before the long reading.
    let data = data.map(|data| of_data(dir, &reader, data, columns)).transpose()?;
    let progress = Progress::new("inspect", reader.len() as u64, "rows");
    let (mut entropy, mut outputs) = (Some(0.0), 0_u64);
    for entry in reader.rows() {
        interrupt::check()?;
        let (_, row) = entry?;
        outputs += row.outputs() as u64;
        entropy = entropy.zip(entropies(&row)).map(|(sum, row)| sum + row);
        progress.inc(1);
    }
    progress.finish();
    let per = |count: u64| (count > 0).then(|| reader.bytes() as f64 / count as f64);
    Ok(Report {
        rows: reader.len(),
        shards: reader.shards(),
        unreachable_rows: reader.unreachable_rows(),
        bytes: reader.bytes(),
        bytes_per_row: per(reader.len() as u64),
        outputs,
        bytes_per_output: per(outputs),
        entropy: entropy.filter(|_| outputs > 0).map(|sum| sum / outputs as f64),
        content: reader.content()?,
        batch_tokens: reader.batch_tokens(),
        fingerprint: reader.fingerprint().clone(),
        recorded_error: reader.recorded_error().clone(),
        data,
    })
}

fn of_data(dir: &Path, reader: &CacheReader, data: &Path, columns: &ColumnsRecipe) -> anyhow::Result<OfData> {
    let keys = Keys::new(dir, reader, columns)?;
    let mut found =
        OfData { rows: 0, cached: 0, labels: vec![0; reader.fingerprint().labels.len()], labelled: 0, accuracy: None };
    let mut right = 0_u64;
    keys.each(data, |key, label| {
        found.rows += 1;
        if !reader.contains(&key)? {
            return Ok(());
        }
        found.cached += 1;
        let Some(label) = label else { return Ok(()) };
        found.labels[label as usize] += 1;
        if let Some(choice) = cached::choice(reader, &key)? {
            found.labelled += 1;
            right += u64::from(choice == label);
        }
        Ok(())
    })?;
    found.accuracy = (found.labelled > 0).then(|| right as f64 / found.labelled as f64);
    Ok(found)
}

/// The sum over a row's outputs of the entropy of the softmax at temperature 1; where only the largest logits are stored,
/// the others count as evenly spread. None of a sample, or where the others are not known at temperature 1.
fn entropies(row: &StoredRow<'_>) -> Option<f64> {
    let captured = row.captured();
    let width = captured.width;
    let logits: Vec<f64> = row.logits().map(f64::from).collect();
    let entropy = |logits: &[f64], tail: f64, others: f64| {
        let top = logits.iter().copied().fold(tail, f64::max);
        let mass: f64 = logits.iter().map(|z| (z - top).exp()).sum::<f64>() + (tail - top).exp();
        let term = |z: f64| {
            let p = (z - top).exp() / mass;
            if p > 0.0 { -p * p.ln() } else { 0.0 }
        };
        let spread = (tail - top).exp() / mass * others.ln();
        logits.iter().map(|&z| term(z)).sum::<f64>() + term(tail) + if others > 0.0 { spread } else { 0.0 }
    };
    match &captured.logits {
        LogitForm::Dense { .. } => {
            Some(logits.chunks_exact(width).map(|logits| entropy(logits, f64::NEG_INFINITY, 0.0)).sum())
        }
        LogitForm::TopK { k, temperatures, .. } => {
            let at = temperatures.iter().position(|&temperature| temperature == 1.0)?;
            let tails: Vec<f64> = row.tails().map(f64::from).collect();
            let tails = tails.chunks_exact(temperatures.len()).map(|tails| tails[at]);
            let others = (width - k) as f64;
            Some(logits.chunks_exact(*k).zip(tails).map(|(logits, tail)| entropy(logits, tail, others)).sum())
        }
        LogitForm::Sample { .. } => None,
    }
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let figure = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.1}"));
        let mut table = Table::new(["cache", ""]);
        let mut row = |what: &str, value: String| {
            table.row([what.to_string(), value]);
        };
        row("rows", ui::count(self.rows as u64));
        row("shards", ui::count(self.shards as u64));
        if self.unreachable_rows > 0 {
            row("rows that no key leads to (gc)", ui::count(self.unreachable_rows));
        }
        row("bytes", ui::bytes(self.bytes));
        row("bytes a row", figure(self.bytes_per_row));
        if self.outputs != self.rows as u64 {
            row("tokens", ui::count(self.outputs));
            row("bytes a token", figure(self.bytes_per_output));
        }
        let print = &self.fingerprint;
        row("stored", stored(print));
        if let Some(entropy) = self.entropy {
            let even = (print.captured.width as f64).ln();
            row("entropy", format!("{entropy:.4} nats, {even:.4} at most"));
        }
        let short = |hash: &str| hash.get(..16).unwrap_or(hash).to_string();
        if let Some(average) = &print.average {
            row("answers", format!("mean of the {} of {} teachers", average.of, average.members.len()));
            for member in &average.members {
                row("", format!("{:.4} of {}", member.weight, short(&member.teacher)));
            }
        }
        if let Preprocessing::Imported { imported } = &print.preprocessing {
            row("imported as", imported.to_string());
            row("hash of the answers", short(&print.teacher));
            row("keys", "of the texts themselves".to_string());
        } else {
            row("teacher", short(&print.teacher));
            row("configuration", short(&print.config));
            row("tokenizer", short(&print.tokenizer));
        }
        row("task", print.task.clone());
        row("classes", ui::count(print.labels.len() as u64));
        if !print.keyed_by_text() {
            row("max length", ui::count(print.max_length as u64));
            row("computed in", print.precision.clone());
            row("batches of", format!("{} tokens", ui::count(self.batch_tokens as u64)));
        }
        let error = &self.recorded_error;
        if error.largest_logit_error > 0.0 {
            row("largest error of a logit", format!("{:.2e}", error.largest_logit_error));
        }
        for (temperature, mean) in error.mean_divergences() {
            row(&format!("KL lost at T = {temperature}"), format!("{mean:.2e} nats a{}", self.output_name()));
        }
        if error.missed_mass > 0.0 {
            let mean = error.missed_mass / error.outputs as f64;
            row("probability that no draw hit", format!("{mean:.4}"));
        }
        if error.hidden_squares[1] > 0.0 {
            let share = (error.hidden_squares[0] / error.hidden_squares[1]).sqrt();
            row("relative error of hidden states", format!("{share:.2e}"));
        }
        row("content", self.content[..16].to_string());
        let mut text = table.to_string();
        if let Some(data) = &self.data {
            text += &format!(
                "\n{} {} rows of the data are cached",
                if data.cached == data.rows { "all".to_string() } else { format!("{} of", ui::count(data.cached)) },
                ui::count(data.rows)
            );
            if let Some(accuracy) = data.accuracy {
                text += &format!(
                    "; the teacher's accuracy on the {} labelled ones is {accuracy:.4}",
                    ui::count(data.labelled)
                );
            }
            if data.labels.iter().any(|&rows| rows > 0) {
                let mut table = Table::new(["label", "rows"]);
                for (label, rows) in print.labels.iter().zip(&data.labels) {
                    table.row([label.clone(), ui::count(*rows)]);
                }
                text += &format!("\n{table}");
            }
        }
        text
    }

    fn output_name(&self) -> &'static str {
        if self.outputs == self.rows as u64 { " row" } else { " token" }
    }
}

/// What is stored of each output, in words.
fn stored(fingerprint: &Fingerprint) -> String {
    let captured = &fingerprint.captured;
    let width = ui::count(captured.width as u64);
    let outputs = if fingerprint.labels.is_empty() { "words" } else { "classes" };
    let dtype = |dtype: &cache::Dtype| format!("{dtype:?}").to_lowercase();
    let mut text = match &captured.logits {
        LogitForm::Dense { dtype: format } => format!("{width} logits in {}", dtype(format)),
        LogitForm::TopK { k, dtype: format, temperatures } => {
            let temperatures: Vec<String> = temperatures.iter().map(ToString::to_string).collect();
            let format = dtype(format);
            format!("the {k} largest of {width} logits in {format}, the rest at T = {}", temperatures.join(", "))
        }
        LogitForm::Sample { draws, temperature, .. } => {
            format!("{draws} draws of {width} {outputs} at T = {temperature}")
        }
    };
    if let Some(hidden) = &captured.hidden_states {
        let layers: Vec<String> = hidden.layers.iter().map(ToString::to_string).collect();
        let tokens = if hidden.tokens == HiddenTokens::First { "first tokens" } else { "all tokens" };
        text += &format!("; hidden states of layers {}, {tokens}", layers.join(", "));
    }
    text
}
