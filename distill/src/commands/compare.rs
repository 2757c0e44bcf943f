//! `distill compare`: what a teacher, or another recipe, is worth, over several seeds.

use std::path::Path;

use anyhow::bail;

use crate::cli::CompareArgs;
use crate::files;
use crate::jobs::compare::{Comparing, Comparison};
use crate::recipe;
use crate::ui::Ui;

pub(crate) fn run(args: CompareArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.device.resolve()?;
    let read = |path: &Path| {
        let (name, text) = (path.display().to_string(), files::read_to_string(path)?);
        anyhow::Ok((recipe::read(&name, &text, &args.set)?, recipe::sweep(&name, &text, &args.set, &args.sweep)?))
    };
    let (recipe, swept) = read(&args.recipe)?;
    let (against, swept_against) = args.against.as_deref().map(read).transpose()?.unzip();
    let output = match (args.output, &recipe.output) {
        (Some(output), _) => output,
        (None, Some(output)) => output.join("compare"),
        (None, None) => {
            bail!("{}: no `output`, and no --output is given; say which folder to write", args.recipe.display())
        }
    };
    let comparison = Comparing {
        recipe: &recipe,
        against: against.as_ref(),
        swept: [&swept, swept_against.as_ref().unwrap_or(&swept)],
        seeds: args.seeds,
        hub: &args.hub.into(),
        output: &output,
        overwrite: args.overwrite,
        tensorboard: args.telemetry.tensorboard,
        compute: &compute,
    }
    .run()?;
    Ok(ui.result(&comparison, Comparison::text)?)
}
