//! `distill data`: looks into data files, and cleans them.

use anyhow::bail;

use crate::cli::DataCommand;
use crate::jobs::data::inputs::{self, expanded};
use crate::jobs::data::{clean, inspect};
use crate::model;
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
            if args.output.exists() && !args.overwrite {
                bail!("{} is there already; choose another --output, or give --overwrite", args.output.display());
            }
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
            // The data is in the file, so that the report is for the person, and on stdout only if a script asks for it.
            match ui.is_json() {
                true => ui.result(&report, clean::Report::text)?,
                false => ui::say(report.text()),
            }
        }
    }
    Ok(())
}
