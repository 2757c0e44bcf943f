//! Flags for looking at a run while it goes on and afterwards. They do not change its result.

use clap::Args;

/// What `finetune` and `train` write of their progress, besides `metrics.jsonl`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct TelemetryArgs {
    /// Also write the losses and scores of metrics.jsonl as event files, to the folder tensorboard in --output
    #[arg(long)]
    pub(crate) tensorboard: bool,
}
