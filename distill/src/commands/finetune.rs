//! `distill finetune`: fine-tunes a model, to be the teacher.

use std::path::Path;
use std::time::Instant;

use crate::cli::FinetuneArgs;
use crate::files::refuse_source;
use crate::jobs::tune::Asked;
use crate::jobs::{Finetuning, TrainReport};
use crate::recipe::{ColumnsRecipe, Subject};
use crate::tasks::{Source, Start};
use crate::ui::Ui;

pub(crate) fn run(args: FinetuneArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let start = Instant::now();
    refuse_source(Path::new(&args.model), &args.output.output)?;
    let (fit, columns, objective) = (args.fit(), ColumnsRecipe::from(&args.columns), args.loss_terms()?);
    let hub = args.hub.into();
    let task = args.task.task(fit.seed)?;
    let source = Source {
        model: &args.model,
        hub: &hub,
        data: &args.data,
        validation: args.validation.as_deref(),
        columns: &columns,
        pack: args.packing.of(task)?,
        seed: fit.seed,
    };
    let run = |objective, fit, output: &Path, existing| {
        let finetuning = Finetuning {
            source,
            task,
            prune_vocabulary: args.prune_vocabulary,
            dropout: args.fitting.dropout,
            objective,
            fit,
            output,
            tensorboard: args.telemetry.tensorboard && output == args.output.output,
            compute: &compute,
        };
        finetuning.run(existing)
    };
    let output = args.output.output.as_path();
    let existing = args.output.existing(args.resume);
    let (trained, tuned) = match args.fitting.tune {
        None => (run(objective, fit, output, existing)?, None),
        Some(count) => {
            let Start { model, train, validation } = task.start(&source)?;
            let width = model.config.encoder.hidden_size;
            drop(model);
            let subject = Subject { rows: train.len(), width, trained: true };
            let asked = Asked {
                count,
                temperature: false,
                weights: false,
                cache: None,
                train: &train,
                validation: &validation,
                answered: task.masks().is_some(),
            };
            let (trained, tuned) = asked.run(
                fit.suited_to(subject),
                objective,
                output,
                existing,
                |fit, objective, folder, existing| run(objective, fit, folder, existing),
            )?;
            (trained, Some(tuned))
        }
    };
    let report = TrainReport::new(&args.output.output, &trained, tuned, start);
    ui.result(&report, TrainReport::text)?;
    Ok(())
}
