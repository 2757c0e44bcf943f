//! A run's `metrics.jsonl` as curves: the values of each quantity by step.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use crate::files::{FileError, read_to_string};
use crate::hint::HintExt;
use crate::telemetry::{METRICS, METRICS_VERSION};

/// Keys of a line that are no quantities.
const NO_QUANTITIES: [&str; 6] = ["schema_version", "event", "step", "epoch", "rows", "labelled"];

/// The curves of a run.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The last step that was logged or evaluated.
    pub(super) steps: u64,
    pub(super) evaluations: usize,
    /// By the keys of `metrics.jsonl`, in the order in which they first occur.
    curves: Vec<(String, Vec<Point>)>,
    /// Keys of steps that are terms of the loss.
    terms: Vec<String>,
}

/// The value of a quantity after so many steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) step: f64,
    pub(super) value: f64,
}

impl Run {
    /// Reads the metrics in a run's folder. A last line without an end is left out: the run may be writing it.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(METRICS);
        if !path.is_file() {
            return Err(none_here(folder));
        }
        let text = read_to_string(&path)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut run = Self::default();
        for (number, line) in (1..).zip(whole.lines()) {
            run.add(line).with_context(|| format!("{}: line {number}", path.display())).hint(
                "if the run was stopped, its command with --resume repairs the file; otherwise remove the line",
            )?;
        }
        if run.curves.is_empty() {
            return Err(anyhow::anyhow!("{}: nothing is logged yet", path.display()))
                .hint("losses come every 50 steps and at the end, scores after an epoch");
        }
        Ok(run)
    }

    /// The values of a quantity; none of one that the run did not log.
    pub(super) fn curve(&self, key: &str) -> &[Point] {
        self.curves.iter().find(|(name, _)| name == key).map_or(&[], |(_, points)| points)
    }

    /// The terms of its loss, if there are several.
    pub(super) fn terms(&self) -> &[String] {
        if self.terms.len() > 1 { &self.terms } else { &[] }
    }

    fn add(&mut self, line: &str) -> anyhow::Result<()> {
        let line: Map<String, Value> = serde_json::from_str(line).context("damaged")?;
        let version = line.get("schema_version").and_then(Value::as_u64).context("no `schema_version`")?;
        if version > METRICS_VERSION.into() {
            bail!("schema_version is {version}, this build reads up to {METRICS_VERSION}");
        }
        let step = line.get("step").and_then(Value::as_u64).context("no `step`")?;
        let of_step = match line.get("event").and_then(Value::as_str) {
            Some("step") => true,
            Some("evaluation") => false,
            Some("gradient") => return Ok(()),
            other => bail!("the event is {}, not `step`, `evaluation` or `gradient`", other.unwrap_or("missing")),
        };
        self.steps = self.steps.max(step);
        self.evaluations += usize::from(!of_step);
        for (key, value) in line {
            let Some(value) = value.as_f64().filter(|_| !NO_QUANTITIES.contains(&key.as_str())) else { continue };
            let is_term = of_step && !["loss", "gradient_norm", "learning_rate"].contains(&key.as_str());
            if is_term && !self.terms.contains(&key) {
                self.terms.push(key.clone());
            }
            let point = Point { step: step as f64, value };
            match self.curves.iter_mut().find(|(name, _)| *name == key) {
                Some((_, points)) => points.push(point),
                None => self.curves.push((key, vec![point])),
            }
        }
        Ok(())
    }
}

/// The error for a folder without metrics; it names the runs below it, if there are some.
fn none_here(folder: &Path) -> anyhow::Error {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotADirectory => {
            return anyhow::anyhow!("{} is not a folder; give the folder of a run", folder.display());
        }
        Err(source) => return FileError::Read { path: folder.to_owned(), source }.into(),
    };
    let mut below: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join(METRICS).is_file())
        .map(|path| path.display().to_string())
        .collect();
    below.sort_unstable();
    let way_out = match below.is_empty() {
        true => "give a folder that distill train or finetune writes to".to_string(),
        false => format!("there are runs below it: distill plot {}", below.join(" ")),
    };
    let found = Err::<(), _>(anyhow::anyhow!("{}: not a run, there is no {METRICS}", folder.display()));
    found.hint(way_out).err().unwrap_or_else(|| anyhow::anyhow!("not a run"))
}
