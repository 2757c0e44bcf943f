//! `distill predict`: label and probabilities for each line of text, as the lines come.

mod lines;

use datasets::{Row, TextTokenizer};
use nn::Model;
use serde::ser::{Serialize, Serializer};

use crate::cli::PredictArgs;
use crate::inference::{forward_all, packed};
use crate::interrupt;
use crate::metrics::Scores;
use crate::model;
use crate::ui::Ui;
use lines::Lines;

/// Classifies lines of text.
pub(crate) fn run(args: PredictArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let model = model::load_classifier(&args.model, &args.hub)?;
    let max_length = model.max_length(args.max_length)?;
    let mut classifier = Classifier {
        tokenizer: model.tokenizer,
        labels: model.config.labels.clone(),
        model: Model::on(&compute, model.config, model.parameters)?,
        max_length,
        batch_tokens: args.compute.batch_tokens,
        truncated: 0,
    };
    let mut lines = match &args.file {
        Some(path) => Lines::of_file(path)?,
        None => Lines::of_stdin(),
    };
    let mut rows = 0;
    let ended = loop {
        let batch = lines.next_batch();
        let predictions = classifier.classify(&batch.rows, args.logits)?;
        ui.results(&predictions, |prediction| prediction.text_line())?;
        rows += batch.rows.len();
        if let Some(end) = batch.end {
            break end;
        }
        interrupt::check()?;
    };
    model::report_truncated(classifier.truncated, rows, max_length);
    ended
}

/// A model with all that a text needs to become a label.
struct Classifier {
    tokenizer: TextTokenizer,
    labels: Vec<String>,
    model: Model,
    max_length: usize,
    batch_tokens: usize,
    /// Rows so far that were cut.
    truncated: usize,
}

impl Classifier {
    fn classify<'a>(&'a mut self, rows: &'a [Row], with_logits: bool) -> anyhow::Result<Vec<Prediction<'a>>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let encodings = self.tokenizer.encode(rows, self.max_length)?;
        self.truncated += encodings.truncated_count();
        let classes = self.labels.len();
        let logits = forward_all(&encodings, classes, self.batch_tokens, |batch| {
            interrupt::check()?;
            Ok(self.model.logits(packed(batch))?)
        })?;
        // Only for what it refuses: logits that are no numbers.
        Scores::of(&logits, None, &vec![None; rows.len()], classes)?;
        let labels = self.labels.as_slice();
        let of_row = |(row, logits): (&'a Row, &[f32])| Prediction::new(&row.text, labels, logits, with_logits);
        Ok(rows.iter().zip(logits.chunks_exact(classes)).map(of_row).collect())
    }
}

/// What is printed for one line.
#[derive(Debug, serde::Serialize)]
struct Prediction<'a> {
    text: &'a str,
    label: &'a str,
    probability: f32,
    probabilities: ByLabel<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
}

impl<'a> Prediction<'a> {
    fn new(text: &'a str, labels: &'a [String], logits: &[f32], with_logits: bool) -> Self {
        let probabilities = softmax(logits);
        let mut best = 0;
        for (class, logit) in logits.iter().enumerate() {
            if *logit > logits[best] {
                best = class;
            }
        }
        Self {
            text,
            label: &labels[best],
            probability: probabilities[best],
            probabilities: ByLabel { labels, probabilities },
            logits: with_logits.then(|| logits.to_vec()),
        }
    }

    /// Label, probability, the logits if asked for (with commas between them) and the text, with tabs between them: the
    /// text stands last since it may hold tabs of its own.
    fn text_line(&self) -> String {
        let logits = self.logits.iter().map(|logits| {
            let logits: Vec<String> = logits.iter().map(f32::to_string).collect();
            logits.join(",") + "\t"
        });
        format!("{}\t{:.4}\t{}{}", self.label, self.probability, logits.collect::<String>(), self.text)
    }
}

/// Probabilities under their labels, in the order of the class ids.
#[derive(Debug)]
struct ByLabel<'a> {
    labels: &'a [String],
    probabilities: Vec<f32>,
}

impl Serialize for ByLabel<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.labels.iter().zip(&self.probabilities))
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - top).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|exponential| (exponential / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_as_text_and_as_json() {
        let labels = ["no".to_string(), "yes".to_string()];
        let prediction = Prediction::new("a\tb", &labels, &[0.0, 1.25], false);
        assert_eq!(prediction.text_line(), "yes\t0.7773\ta\tb");
        assert_eq!(
            serde_json::to_string(&prediction).expect("serialises"),
            r#"{"text":"a\tb","label":"yes","probability":0.7772999,"probabilities":{"no":0.22270013,"yes":0.7772999}}"#
        );
        let prediction = Prediction::new("", &labels, &[0.1, -0.3], true);
        assert_eq!(prediction.text_line(), "no\t0.5987\t0.1,-0.3\t");
        assert!(serde_json::to_string(&prediction).expect("serialises").ends_with(r#""logits":[0.1,-0.3]}"#));
    }

    #[test]
    fn large_logits_do_not_overflow() {
        assert_eq!(softmax(&[1000.0, 1000.0, -1000.0]), [0.5, 0.5, 0.0]);
    }
}
