//! `metrics.jsonl` in a run's folder: one line per logged step, per evaluation and per measured gradient. On request, the same in an event
//! file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::events::EventFile;
use crate::files::FileError;
use crate::objective::LossReport;
use crate::scores::{Evaluated, Scores};

/// The file of losses and scores in a run's folder.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// How its first line starts.
pub(crate) const METRICS_START: &[u8] = b"{\"schema_version\":";

/// Version of its lines. Before 2, `macro_f1` was over all classes, also those that do not occur, and evaluations had no
/// `validation_loss`.
pub(crate) const METRICS_VERSION: u32 = 2;

/// Appends to a run's `metrics.jsonl`.
pub(crate) struct Metrics {
    file: File,
    path: PathBuf,
    events: Option<EventFile>,
}

impl Metrics {
    /// Opens the file and truncates it to its length at the checkpoint from which the run resumes.
    pub(crate) fn open(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).map_err(|source| FileError::writing(folder, source))?;
        let path = folder.join(METRICS);
        let open = || -> io::Result<File> {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.set_len(bytes)?;
            Ok(file)
        };
        let file = open().map_err(|source| FileError::writing(&path, source))?;
        Ok(Self { file, path, events: None })
    }

    /// Writes an event file as well, of the steps after so many.
    pub(crate) fn with_events(self, steps_done: usize) -> anyhow::Result<Self> {
        let run = self.path.parent().unwrap_or(Path::new(""));
        let events = Some(EventFile::create(run, steps_done)?);
        Ok(Self { events, ..self })
    }

    /// The current length of the file in bytes.
    pub(crate) fn bytes(&self) -> anyhow::Result<u64> {
        let metadata = self.file.metadata().map_err(|source| FileError::writing(&self.path, source))?;
        Ok(metadata.len())
    }

    /// Logs a step, counted from 0: its loss, each term's mean, and the gradient norm before clipping.
    pub(crate) fn step(
        &mut self,
        step: usize,
        loss: &LossReport,
        gradient_norm: f64,
        learning_rate: f64,
    ) -> anyhow::Result<()> {
        let mut line = json!({
            "schema_version": METRICS_VERSION,
            "event": "step",
            "step": step + 1,
            "loss": loss.total(),
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
        });
        let mut scalars = vec![
            ("loss/total".to_string(), loss.total()),
            ("training/gradient_norm".to_string(), gradient_norm),
            ("training/learning_rate".to_string(), learning_rate),
        ];
        for term in &loss.terms {
            line[term.name] = term.loss.mean().into();
            scalars.push((format!("loss/{}", term.name), term.loss.mean()));
        }
        self.line(&line)?;
        self.scalars(step + 1, &scalars)
    }

    /// The share of each term in the gradient before a step, counted from 0.
    pub(crate) fn shares(&mut self, step: usize, shares: &[(String, f64)]) -> anyhow::Result<()> {
        let by_name: BTreeMap<&str, f64> = shares.iter().map(|(name, share)| (name.as_str(), *share)).collect();
        self.line(&json!({
            "schema_version": METRICS_VERSION,
            "event": "gradient",
            "step": step + 1,
            "shares": by_name,
        }))?;
        let scalars: Vec<(String, f64)> =
            shares.iter().map(|(name, share)| (format!("gradient_share/{name}"), *share)).collect();
        self.scalars(step + 1, &scalars)
    }

    /// One evaluation on the validation rows.
    pub(crate) fn evaluation(&mut self, step: usize, epoch: usize, evaluated: &Evaluated) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            schema_version: u32,
            event: &'static str,
            step: usize,
            epoch: usize,
            #[serde(flatten)]
            scores: &'a Scores,
            validation_loss: Option<f64>,
        }
        let Evaluated { scores, loss: validation_loss, .. } = evaluated;
        let validation_loss = *validation_loss;
        self.line(&Line {
            schema_version: METRICS_VERSION,
            event: "evaluation",
            step,
            epoch,
            scores,
            validation_loss,
        })?;
        let scalars = [
            ("loss", validation_loss),
            ("accuracy", scores.accuracy),
            ("macro_f1", scores.macro_f1),
            ("agreement", scores.agreement),
            ("ece", scores.ece),
        ];
        let known = scalars.into_iter().filter_map(|(name, value)| Some((format!("validation/{name}"), value?)));
        self.scalars(step, &known.collect::<Vec<_>>())
    }

    fn scalars(&mut self, step: usize, scalars: &[(String, f64)]) -> anyhow::Result<()> {
        Ok(self.events.as_mut().map_or(Ok(()), |events| events.scalars(step, scalars))?)
    }

    fn line(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let mut json = serde_json::to_string(line)?;
        json.push('\n');
        self.file.write_all(json.as_bytes()).map_err(|source| FileError::writing(&self.path, source))?;
        Ok(())
    }
}
