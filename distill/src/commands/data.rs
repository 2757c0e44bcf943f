//! `distill data`: looks into data files.

use crate::cli::DataCommand;
use crate::jobs::data::inspect;
use crate::ui::Ui;

pub(crate) fn run(command: DataCommand, ui: &Ui) -> anyhow::Result<()> {
    match command {
        DataCommand::Inspect(args) => {
            let inspecting = inspect::Inspecting {
                files: &args.files,
                validation: &args.validation,
                test: &args.test,
                columns: &args.columns(),
                model: args.model.as_deref(),
                hub: &args.hub.clone().into(),
            };
            ui.result(&inspecting.run()?, inspect::Report::text)?;
        }
    }
    Ok(())
}
