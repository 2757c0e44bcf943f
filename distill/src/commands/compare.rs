//! `distill compare`: what a teacher, or another recipe, is worth, over several seeds.

use anyhow::bail;

use crate::cli::CompareArgs;
use crate::files;
use crate::jobs::compare::{Comparing, Comparison};
use crate::recipe;
use crate::ui::Ui;

pub(crate) fn run(args: CompareArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.device.resolve()?;
    let read =
        |path: &std::path::Path| recipe::read(&path.display().to_string(), &files::read_to_string(path)?, &args.set);
    let recipe = read(&args.recipe)?;
    let against = args.against.as_deref().map(read).transpose()?;
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
        seeds: args.seeds,
        hub: &args.hub.into(),
        output: &output,
        compute: &compute,
    }
    .run()?;
    Ok(ui.result(&comparison, Comparison::text)?)
}
