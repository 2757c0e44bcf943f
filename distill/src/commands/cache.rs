//! `distill cache`: runs the teacher over a data set and stores its outputs; subcommands manage a cache.

use anyhow::bail;

use crate::cli::{CacheArgs, CacheCommand};
use crate::jobs::cache::{average, estimate, export, gc, import, inspect, merge, verify};
use crate::jobs::capture::{CacheReport, capture_file};
use crate::recipe::ColumnsRecipe;
use crate::ui::Ui;

pub(crate) fn run(args: CacheArgs, ui: &Ui) -> anyhow::Result<()> {
    match args {
        CacheArgs::Capture(args) => {
            let compute = args.compute.device.resolve()?;
            let report = capture_file(&args.asking()?, &args.output.output, args.existing(), args.force, &compute)?;
            ui.result(&report, CacheReport::text)?;
        }
        CacheArgs::Stored(CacheCommand::Inspect(args)) => {
            let report = inspect::inspect(&args.cache, args.data.as_deref(), &(&args.columns).into())?;
            ui.result(&report, inspect::Report::text)?;
        }
        CacheArgs::Stored(CacheCommand::Verify(args)) => {
            let report = verify::verify(&args.cache)?;
            ui.result(&report, verify::Report::text)?;
            // Damage is an error once it has been listed.
            if !report.sound {
                bail!("{}: {} of {} files damaged", args.cache.display(), report.damage.len(), report.files);
            }
        }
        CacheArgs::Stored(CacheCommand::Estimate(args)) => {
            let compute = args.compute.device.resolve()?;
            let report = estimate::estimate(&args.asking()?, args.probe_seconds, &compute)?;
            ui.result(&report, estimate::Report::text)?;
        }
        CacheArgs::Stored(CacheCommand::Import(args)) => {
            let (given, column) = args.answers.given();
            let importing = import::Importing {
                data: &args.data,
                columns: &(&args.columns).into(),
                given,
                column,
                output: &args.output.output,
                overwrite: args.output.overwrite,
                force: args.force,
            };
            ui.result(&importing.run()?, import::Report::text)?;
        }
        CacheArgs::Stored(CacheCommand::Merge(args)) => {
            if args.by_labels.is_none() && ColumnsRecipe::from(&args.columns) != ColumnsRecipe::default() {
                bail!("flags of columns and labels say how --by-labels is read, and it is not given");
            }
            if let Some(of) = args.average {
                let columns = (&args.columns).into();
                let by = match &args.by_labels {
                    Some(data) => Some(average::By::Labels { data, columns: &columns }),
                    None => args.by_confidence.then_some(average::By::Confidence),
                };
                let averaging = average::Averaging {
                    caches: &args.caches,
                    of,
                    weights: &args.weights,
                    by,
                    intersection: args.intersection,
                    output: &args.output,
                };
                ui.result(&averaging.run()?, average::Report::text)?;
                return Ok(());
            }
            let report = merge::merge(&args.caches, &args.output)?;
            ui.result(&report, merge::Report::text)?;
        }
        CacheArgs::Stored(CacheCommand::Export(args)) => {
            let report = export::export(&args.cache, &args.output, args.overwrite)?;
            ui.result(&report, export::Report::text)?;
        }
        CacheArgs::Stored(CacheCommand::Gc(args)) => {
            let report = gc::gc(&args.cache, &args.data, &(&args.columns).into())?;
            ui.result(&report, gc::Report::text)?;
        }
    }
    Ok(())
}
