//! Flags for looking at a run while it goes on and afterwards. They do not change its result.

use std::path::PathBuf;

use clap::Args;

/// What trainings write of their progress, besides `metrics.jsonl`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct TelemetryArgs {
    /// Also write the losses and scores of metrics.jsonl as event files, to a folder tensorboard beside it
    #[arg(long)]
    pub(crate) tensorboard: bool,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// A trace of what a command does when.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct TraceArgs {
    /// Also write when each thread did what (steps, forward and backward passes, evaluations) to a file that
    /// ui.perfetto.dev opens; replaces an earlier trace
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
}
