//! `distill run`: caches, trains, evaluates and exports as a recipe says.

use std::time::Instant;

use anyhow::{Context, bail};
use datasets::read_rows;
use serde::Serialize;
use toml::Value;

use crate::cli::{HubArgs, RunArgs, Setting};
use crate::files;
use crate::pipeline::{Pipeline, PipelineReport};
use crate::recipe::Recipe;
use crate::task_data::columns_of;
use crate::ui::Ui;

/// Runs a recipe.
pub(crate) fn run(args: RunArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.device.resolve()?;
    let start = Instant::now();
    let name = args.recipe.display().to_string();
    let recipe = read(&name, &files::read_to_string(&args.recipe)?, &args.set)?;
    let Some(output) = args.output.as_deref().or(recipe.output.as_deref()) else {
        bail!("{name}: no `output`, and no --output is given; say which folder to write");
    };
    let columns = columns_of(&recipe.data.columns());
    let data = &recipe.data;
    let read = |path: &Option<_>| path.as_ref().map(|path: &std::path::PathBuf| read_rows(path, &columns)).transpose();
    let report = Pipeline {
        recipe: &recipe,
        hub: &HubArgs { revision: recipe.teacher.revision.clone().or(args.hub.revision), offline: args.hub.offline },
        output,
        rows: read_rows(&data.train, &columns)?,
        validation: read(&data.validation)?,
        test: read(&data.test)?,
        measured_on: if data.test.is_some() { "the test rows" } else { "the validation rows" }.to_string(),
        baseline: false,
        overwrite: args.overwrite,
        compute: &compute,
    }
    .run()?;
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

/// Parses a recipe, with the values of `--set` put in.
pub(crate) fn read(name: &str, text: &str, settings: &[Setting]) -> anyhow::Result<Recipe> {
    let table: toml::Table = toml::from_str(text).with_context(|| format!("{name}: no TOML"))?;
    let mut recipe = Value::Table(table);
    for setting in settings {
        set(&mut recipe, setting)?;
    }
    recipe.try_into().with_context(|| format!("{name}: not a recipe"))
}

/// Puts one value in, as TOML where it is TOML, else as a string.
fn set(recipe: &mut Value, Setting { key, value }: &Setting) -> anyhow::Result<()> {
    let typed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let typed = typed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(value.clone()));
    let mut place = recipe;
    let mut path: Vec<&str> = key.split('.').collect();
    let last = path.pop().unwrap_or_default();
    for part in path {
        place = step(place, part).with_context(|| format!("--set {key}: `{part}` is no table of the recipe"))?;
    }
    match place {
        Value::Table(table) => {
            table.insert(last.to_string(), typed);
        }
        other => {
            let element = step(other, last).with_context(|| format!("--set {key}: there is no element `{last}`"))?;
            *element = typed;
        }
    }
    Ok(())
}

/// The part of a table, made if it is missing, or the element of a list.
fn step<'a>(place: &'a mut Value, part: &str) -> Option<&'a mut Value> {
    match place {
        Value::Table(table) => Some(table.entry(part).or_insert_with(|| Value::Table(toml::Table::new()))),
        Value::Array(list) => list.get_mut(part.parse::<usize>().ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "[teacher]\nmodel = \"t\"\n[data]\ntrain = \"a.tsv\"\n[[objective]]\nterm = \"soft_target\"\n\
                          weight = 0.5\ntemperature = 2.0\n";

    fn with(settings: &[&str]) -> anyhow::Result<Recipe> {
        let settings: Vec<Setting> = settings.iter().map(|text| text.parse().unwrap()).collect();
        read("recipe.toml", RECIPE, &settings)
    }

    #[test]
    fn settings_reach_every_depth() {
        let recipe = with(&[
            "train.epochs=7",
            "student.layers=0,2,4",
            "objective.0.temperature=4.0",
            "teacher.model=other/name",
            "train.keep=last",
        ])
        .unwrap();
        assert_eq!(recipe.train.epochs, 7);
        assert_eq!(recipe.student.layers.to_string(), "0,2,4");
        assert_eq!(recipe.teacher.model, "other/name");
        assert_eq!(serde_json::to_value(&recipe.objective).unwrap()[0]["temperature"], 4.0);
    }

    #[test]
    fn unknown_keys_and_values_are_named() {
        let error = |settings: &[&str]| format!("{:#}", with(settings).unwrap_err());
        assert!(error(&["train.epoch=7"]).contains("unknown field `epoch`"), "{}", error(&["train.epoch=7"]));
        assert!(error(&["train.epochs=many"]).contains("invalid type"), "{}", error(&["train.epochs=many"]));
        assert!(error(&["objective.3.weight=1"]).contains("--set objective.3.weight"));
        assert!(error(&["teacher.model.x=1"]).contains("--set teacher.model.x"));
    }
}
