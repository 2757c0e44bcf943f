//! Reporting during training: lines of `metrics.jsonl`, the progress bar, and the speed.

use std::path::Path;
use std::time::{Duration, Instant};

use tracing::debug_span;

use super::step::Outcome;
use crate::scores::{Evaluated, Scores};
use crate::telemetry::{Metrics, Progress};

/// Steps between two logged ones.
const LOG_EVERY: usize = 50;

/// The speed of a training run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    /// Rows trained on per second, evaluations excluded.
    pub(crate) rows_per_second: f64,
    /// Time that the loop waited for steps to be prepared.
    pub(crate) waited_seconds: f64,
}

/// A training while it goes on.
pub(super) struct Watch {
    metrics: Metrics,
    progress: Progress,
    total_steps: usize,
    /// Of the latest step whose outcome is known.
    loss: f64,
    started: Instant,
    rows: usize,
    /// Time spent in evaluations, which the speed excludes.
    evaluating: Duration,
}

impl Watch {
    /// Of the steps from `first_step` on; `metrics.jsonl` is cut to what the checkpoint knows of it.
    pub(super) fn start(
        folder: &Path,
        metrics_bytes: u64,
        first_step: usize,
        total_steps: usize,
        batch_rows: usize,
        tensorboard: bool,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::open(folder, metrics_bytes)?;
        let metrics = if tensorboard { metrics.with_events(first_step)? } else { metrics };
        let progress = Progress::new("train", (total_steps - first_step) as u64 * batch_rows as u64, "rows");
        let (started, evaluating) = (Instant::now(), Duration::ZERO);
        Ok(Self { metrics, progress, total_steps, loss: 0.0, started, rows: 0, evaluating })
    }

    /// A step was taken on so many rows.
    pub(super) fn took(&mut self, rows: usize) {
        self.progress.inc(rows as u64);
        self.rows += rows;
    }

    /// Reports the outcome of a step.
    pub(super) fn outcome(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        let Outcome { step, gradient_norm, learning_rate, loss } = outcome;
        self.loss = loss.total();
        self.progress.loss(self.loss);
        if (step + 1) % LOG_EVERY == 0 || step + 1 == self.total_steps {
            let _span = debug_span!("log").entered();
            self.progress.message(format_args!("loss {:.4}", self.loss));
            self.metrics.step(*step, loss, *gradient_norm, *learning_rate)?;
        }
        Ok(())
    }

    /// The share of each term in the gradient before a step; none of a single term.
    pub(super) fn shares(&mut self, step: usize, shares: &[(String, f64)]) -> anyhow::Result<()> {
        match shares.is_empty() {
            true => Ok(()),
            false => self.metrics.shares(step, shares),
        }
    }

    /// The scores after so many steps, in this epoch.
    pub(super) fn evaluation(&mut self, steps: usize, epoch: usize, evaluated: &Evaluated) -> anyhow::Result<()> {
        let _span = debug_span!("log").entered();
        self.metrics.evaluation(steps, epoch, evaluated)?;
        let score = headline(&evaluated.scores);
        self.progress.message(format_args!("loss {:.4}, {score}", self.loss));
        self.progress.score(score);
        Ok(())
    }

    /// Excludes the time since then from the speed.
    pub(super) fn leave_out(&mut self, since: Instant) {
        self.evaluating += since.elapsed();
    }

    /// Bytes of `metrics.jsonl` by now.
    pub(super) fn metrics_bytes(&self) -> anyhow::Result<u64> {
        self.metrics.bytes()
    }

    /// Ends the report and returns the speed.
    pub(super) fn finish(self, waited: Duration) -> Speed {
        self.progress.finish();
        let seconds = (self.started.elapsed() - self.evaluating).as_secs_f64();
        Speed { rows_per_second: self.rows as f64 / seconds.max(1e-9), waited_seconds: waited.as_secs_f64() }
    }
}

/// The score to show in the progress bar.
fn headline(scores: &Scores) -> String {
    match (scores.accuracy, scores.agreement) {
        (Some(accuracy), _) => format!("accuracy {accuracy:.4}"),
        (None, Some(agreement)) => format!("agreement {agreement:.4}"),
        (None, None) => "not labelled".to_string(),
    }
}
