//! `distill data`: looks into data files, cleans them, makes new texts of them, and chooses rows.

use std::path::Path;

use anyhow::bail;
use serde::Serialize;

use crate::cli::DataCommand;
use crate::jobs::Augmenting;
use crate::jobs::data::inputs::{self, expanded};
use crate::jobs::data::{augment, clean, inspect, select};
use crate::model;
use crate::recipe;
use crate::ui::{self, Ui};

pub(crate) fn run(command: DataCommand, ui: &Ui) -> anyhow::Result<()> {
    match command {
        DataCommand::Inspect(args) => {
            let inspecting = inspect::Inspecting {
                files: &expanded(&args.files, &args.reading.stdin_format)?,
                validation: &expanded(&args.validation, &args.reading.stdin_format)?,
                test: &expanded(&args.test, &args.reading.stdin_format)?,
                columns: &inputs::columns(&args.reading.columns(), args.reading.skip_bad_rows),
                max_length: args.max_length,
                model: args.model.as_deref(),
                hub: &args.hub.clone().into(),
            };
            ui.result(&inspecting.run()?, inspect::Report::text)?;
        }
        DataCommand::Clean(args) => {
            refuse_existing(&args.output, args.overwrite)?;
            let steps = args.steps();
            steps.check()?;
            let hub = args.hub.clone().into();
            let model = args.model.as_ref().map(|name| model::describe(name, &hub)).transpose()?;
            let cleaning = clean::Cleaning {
                files: &expanded(&args.files, &args.reading.stdin_format)?,
                validation: &expanded(&args.validation, &args.reading.stdin_format)?,
                test: &expanded(&args.test, &args.reading.stdin_format)?,
                columns: &inputs::columns(&args.reading.columns(), args.reading.skip_bad_rows),
                steps: &steps,
                tokenizer: model.as_ref().map(|(_, tokenizer)| tokenizer),
                output: &args.output,
            };
            let report = cleaning.run()?;
            told(&report, clean::Report::text, ui)?;
        }
        DataCommand::Augment(args) => {
            refuse_existing(&args.output, args.overwrite)?;
            let hub = args.hub.clone().into();
            let mask_token = match &args.model {
                Some(name) => model::describe(name, &hub)?.1.mask_token().map(str::to_owned),
                None => Some("[MASK]".to_owned()),
            };
            recipe::check_ways(&args.method)?;
            let making = augment::Making {
                files: &expanded(&args.files, &args.reading.stdin_format)?,
                validation: &expanded(&args.validation, &args.reading.stdin_format)?,
                test: &expanded(&args.test, &args.reading.stdin_format)?,
                columns: &inputs::columns(&args.reading.columns(), args.reading.skip_bad_rows),
                augmenting: Augmenting {
                    ways: &args.method,
                    dictionary: args.dictionary.as_deref(),
                    mask_token,
                    seed: args.seed,
                },
                all_rows: args.all_rows,
                copy_labels: args.copy_labels,
                output: &args.output,
            };
            told(&making.run()?, augment::Report::text, ui)?;
        }
        DataCommand::Select(args) => {
            for output in std::iter::once(&args.output).chain(&args.rest) {
                refuse_existing(output, args.overwrite)?;
            }
            let selecting = select::Selecting {
                files: &expanded(&args.files, &args.reading.stdin_format)?,
                columns: &inputs::columns(&args.reading.columns(), args.reading.skip_bad_rows),
                by: args.by,
                how_many: args.how_many(),
                reverse: args.reverse,
                per_class: args.per_class,
                cache: args.cache.as_deref(),
                seed: args.seed,
                output: &args.output,
                rest: args.rest.as_deref(),
            };
            told(&selecting.run()?, select::Report::text, ui)?;
        }
    }
    Ok(())
}

fn refuse_existing(output: &Path, overwrite: bool) -> anyhow::Result<()> {
    if output.exists() && !overwrite {
        bail!("{} is there already; choose another --output, or give --overwrite", output.display());
    }
    Ok(())
}

/// The data is in the file, so that the report is for the person, and on stdout only if a script asks for it.
fn told<T: Serialize>(report: &T, text: impl Fn(&T) -> String, ui: &Ui) -> anyhow::Result<()> {
    match ui.is_json() {
        true => ui.result(report, text)?,
        false => ui::say(text(report)),
    }
    Ok(())
}
