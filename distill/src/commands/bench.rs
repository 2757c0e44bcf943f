//! `distill bench`: measures speed on this machine, and checks GPU kernels.

use crate::cli::{BenchArgs, BenchCommand};
use crate::jobs::bench::cache::CacheReport;
use crate::jobs::bench::kernels::KernelsReport;
use crate::jobs::bench::{self, GemmReport, Report};
use crate::ui::Ui;

/// Runs one of the benchmarks.
pub(crate) fn run(args: BenchArgs, ui: &Ui) -> anyhow::Result<()> {
    match args.what {
        BenchCommand::Capture(args) => {
            let compute = args.measurement.device.resolve()?;
            ui.result(&bench::capture(&args.into(), &compute)?, Report::text)?;
        }
        BenchCommand::Train(args) => {
            let compute = args.measurement.device.resolve()?;
            ui.result(&bench::train(&args.into(), &compute)?, Report::text)?;
        }
        BenchCommand::Cache(args) => ui.result(&bench::cache::run(&args.into())?, CacheReport::text)?,
        BenchCommand::Gemm(args) => {
            let compute = args.device.resolve()?;
            let autotune = args.products.autotune;
            let report = bench::gemm(args.hidden_size, args.intermediate_size, autotune, &compute)?;
            ui.result(&report, GemmReport::text)?;
        }
        BenchCommand::Kernels(args) => {
            if let Some(part) = args.part {
                return bench::kernels::run_part(&args.into(), part);
            }
            let report = bench::kernels::check(&args.into())?;
            ui.result(&report, KernelsReport::text)?;
            report.verdict()?;
        }
    }
    Ok(())
}
