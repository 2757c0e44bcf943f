//! `distill finetune`: fine-tunes a model, to be the teacher.

use std::path::Path;
use std::time::Instant;

use crate::cli::FinetuneArgs;
use crate::files::refuse_source;
use crate::jobs::{Finetuning, TrainReport};
use crate::recipe::ColumnsRecipe;
use crate::tasks::Source;
use crate::ui::Ui;

pub(crate) fn run(args: FinetuneArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let start = Instant::now();
    refuse_source(Path::new(&args.model), &args.output.output)?;
    let (fit, columns, objective) = (args.fit(), ColumnsRecipe::from(&args.columns), args.loss_terms()?);
    let trained = Finetuning {
        source: Source {
            model: &args.model,
            hub: &args.hub.into(),
            data: &args.data,
            validation: args.validation.as_deref(),
            columns: &columns,
            seed: fit.seed,
        },
        task: args.task.task(fit.seed)?,
        prune_vocabulary: args.prune_vocabulary,
        dropout: args.fitting.dropout,
        objective,
        fit,
        output: &args.output.output,
        tensorboard: args.telemetry.tensorboard,
        compute: &compute,
    }
    .run(args.output.existing(args.resume))?;
    let report = TrainReport::new(&args.output.output, &trained, start);
    ui.result(&report, TrainReport::text)?;
    Ok(())
}
