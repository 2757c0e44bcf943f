//! The flags of `distill plot`.

use std::path::PathBuf;

use clap::Args;

/// `distill plot`: draw training runs.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill plot student baseline --output plot.svg")]
pub(crate) struct PlotArgs {
    /// Folders written by `distill train` or `distill finetune`, complete or not; several are drawn over each other
    #[arg(value_name = "RUN", required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// SVG file to write; replaces an earlier plot
    #[arg(long, value_name = "FILE", default_value = "plot.svg", help_heading = "Output")]
    pub(crate) output: PathBuf,
}
