//! `distill plot`: draws training runs as one SVG.

use crate::cli::PlotArgs;
use crate::jobs::plot::{Report, plot};
use crate::ui::Ui;

pub(crate) fn run(args: PlotArgs, ui: &Ui) -> anyhow::Result<()> {
    let report = plot(&args.runs, &args.output)?;
    Ok(ui.result(&report, Report::text)?)
}
