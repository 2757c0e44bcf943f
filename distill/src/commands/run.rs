//! `distill run`: caches, trains, evaluates and exports, as described in a recipe.

use std::time::Instant;

use anyhow::bail;
use serde::Serialize;

use crate::cli::RunArgs;
use crate::data::read_rows;
use crate::files;
use crate::jobs::Texts;
use crate::jobs::data::{CLEAN, prepared};
use crate::jobs::pipeline::{Pipeline, PipelineReport};
use crate::model;
use crate::recipe;
use crate::ui::Ui;

/// Runs a recipe.
pub(crate) fn run(args: RunArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.device.resolve()?;
    let start = Instant::now();
    let name = args.recipe.display().to_string();
    let text = files::read_to_string(&args.recipe)?;
    let recipe = recipe::read(&name, &text, &args.set)?;
    let swept = recipe::sweep(&name, &text, &args.set, &args.sweep)?;
    let Some(output) = args.output.as_deref().or(recipe.output.as_deref()) else {
        bail!("{name}: no `output`, and no --output is given; say which folder to write");
    };
    let teacher_hub = recipe.teacher.hub(&args.hub.clone().into());
    let recipe =
        prepared(&recipe, &output.join(CLEAN), || Ok(model::describe(&recipe.teacher.model, &teacher_hub)?.1))?;
    let columns = recipe.data.columns();
    let files = &recipe.data;
    let read = |path: &Option<_>| path.as_ref().map(|path: &std::path::PathBuf| read_rows(path, &columns)).transpose();
    let (rows, validation, test) = (read_rows(&files.train, &columns)?, read(&files.validation)?, read(&files.test)?);
    let texts = Texts::read(&recipe, [Some(&rows), validation.as_ref(), test.as_ref()])?;
    let report = Pipeline {
        recipe: &recipe,
        hub: &teacher_hub,
        output,
        rows,
        validation,
        texts,
        test,
        measured_on: if files.test.is_some() { "the test rows" } else { "the validation rows" }.to_string(),
        baseline: false,
        tensorboard: args.telemetry.tensorboard,
        overwrite: args.overwrite,
        compute: &compute,
    }
    .run_best_of(&swept)?;
    let seconds = start.elapsed().as_secs_f64();
    let report = RunReport { report, seconds, output: output.display().to_string() };
    ui.result(&report, |report| format!("{}\nwritten: {}", report.report.text(), report.output))?;
    Ok(())
}

/// What `run` prints.
#[derive(Debug, Serialize)]
struct RunReport {
    #[serde(flatten)]
    report: PipelineReport,
    seconds: f64,
    output: String,
}
