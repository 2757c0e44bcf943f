//! A fair claim: the same student with its teacher and without, or two recipes, over several seeds on the same test rows.
//!
//! With and without its teacher, a student starts from the same weights, learns from the same rows and takes as many steps;
//! only the terms of the loss that need the teacher are left out.
//! Two recipes are compared as they are, with the same seeds. Settings and epochs are
//! chosen on the validation rows; the test rows are read once, when all trainings are done.

mod arms;
mod folders;
mod statistics;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use datasets::{LabelNames, Row};
use serde::Serialize;

use super::augment;
use super::data::prepared;
use super::evaluate::{Measured, measure_and_choose, teacher_predictions};
use super::student::check_students;
use super::teacher::Teacher;
use super::texts::Texts;
use super::tune::{Tuned, check_validation};
use crate::data::{self, Split};
use crate::files;
use crate::inference::Running;
use crate::model;
use crate::recipe::{Metric, Recipe, RowChoice};
use crate::scores::MACRO_F1;
use crate::tasks::single_label;
use crate::ui;
pub(crate) use arms::Comparing;
use arms::{Arm, Rows, Run};
use folders::{COMPARISON, TABLE};
use statistics::{ClassChange, Difference, McNemar, Summary, changes, mean};

/// Version of what `--json` prints and of the file.
const SCHEMA_VERSION: u32 = 1;

/// Keys that say how many steps a training takes.
const OF_LENGTH: [&str; 3] = ["train.epochs", "train.max_steps", "train.batch_rows"];

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// Test rows with a label.
    pub(crate) rows: usize,
    /// Which rows those are.
    measured_on: String,
    seeds: Vec<u64>,
    pub(crate) arms: Vec<ArmReport>,
    /// Of the first arm to the second, by metric.
    pub(crate) difference: BTreeMap<Metric, Difference>,
    /// Of each seed.
    mcnemar: Vec<McNemar>,
    /// Classes that stand out.
    classes: Vec<ClassChange>,
    /// What may be said, in words.
    pub(crate) claims: Vec<String>,
    output: String,
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ArmReport {
    pub(crate) name: String,
    /// By metric.
    #[serde(flatten)]
    pub(crate) metrics: BTreeMap<Metric, Summary>,
    /// Steps of each training.
    steps: Vec<usize>,
    parameters: usize,
    /// Of `model.safetensors`.
    bytes: u64,
    rows_per_second: f64,
    /// If its settings were searched, and there was a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    tuned: Option<Tuned>,
}

/// A model's predictions for the test rows, and their scores.
struct Said {
    measured: Measured,
    chosen: Vec<u32>,
}

impl Comparing<'_> {
    /// Trains all runs that are not there yet, and compares them.
    pub(crate) fn run(self) -> anyhow::Result<Comparison> {
        let mut arms = self.arms()?;
        // Read before anything is trained, so that a bad file is told first; no model sees them before all are.
        let test = self.recipe.data.test.as_ref().map(|path| data::read_rows(path, &self.recipe.data.columns()));
        let test = test.transpose()?;
        let cleaned = if self.against.is_some() { folders::CLEAN } else { [folders::CLEAN[0]; 2] };
        let rows = arms.iter().zip(cleaned).map(|(arm, clean)| self.rows(arm.recipe, clean, test.as_ref()));
        let rows: Vec<Rows> = rows.collect::<Result<_, _>>()?;
        if rows[0].names != rows[1].names {
            bail!("the two teachers do not have the same classes, so that their students cannot be compared");
        }
        if !self.swept[0].is_empty() {
            for ((arm, rows), swept) in arms.iter().zip(&rows).zip(self.swept) {
                // Held out, they are among the rows that a teacher answers.
                let answered = arm.recipe.data.validation.is_none() && (arm.with_teacher || self.against.is_none());
                let split = rows.split(arm.recipe)?;
                check_validation("--sweep", &split.validation, answered)?;
                let teacher = || Teacher::of_model(self.teacher(arm.recipe)?, arm.recipe.data.max_length);
                let students = swept.iter().map(|swept| &swept.recipe.student);
                check_students(students, teacher, &split.train, arm.recipe.data.max_length, self.hub)?;
            }
        }
        if self.overwrite {
            folders::clear(self.output)?;
        }
        let caches = self.captures(&arms, &rows)?;
        for (side, arm) in arms.iter_mut().enumerate().filter(|_| !self.swept[0].is_empty()) {
            self.choose(arm, self.swept[side], &rows[side], caches[side].as_deref())
                .with_context(|| format!("{}, settings", arm.name))?;
        }
        let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
        for number in 0..self.seeds {
            for (side, arm) in arms.iter().enumerate() {
                // An arm without a teacher takes as many steps as the one with it.
                let without = self.against.is_none() && !arm.with_teacher;
                let steps = runs[0].get(number).map(|run| run.steps).filter(|_| without);
                ui::say(format!("{}, seed {} of {}", arm.name, number + 1, self.seeds));
                let run = self.train(arm, &rows[side], caches[side].as_deref(), number, steps);
                runs[side].push(run.with_context(|| format!("{}, seed {}", arm.name, number + 1))?);
            }
        }
        self.compare(&arms, &rows[0], test, &runs)
    }

    fn arms(&self) -> anyhow::Result<[Arm<'_>; 2]> {
        let swept = self.swept.into_iter().flatten().map(|swept| &swept.recipe);
        for recipe in [Some(self.recipe), self.against].into_iter().flatten().chain(swept) {
            recipe.check()?;
            if !recipe.stages.is_empty() && !self.swept[0].is_empty() {
                bail!(
                    "--sweep tries settings of a single training, and the recipe has stages; leave out one of the two"
                );
            }
            if recipe.fits().any(|fit| fit.max_minutes.is_some()) {
                bail!(
                    "`train.max_minutes` would give the arms different numbers of steps; give `train.max_steps` to compare"
                );
            }
            if recipe.fits().any(|fit| fit.patience.is_some()) {
                bail!("`train.patience` would give the arms different numbers of steps; leave it out to compare");
            }
        }
        let keys = self.swept[0].first().map(|swept| swept.settings.keys()).into_iter().flatten();
        if let Some(key) = keys.into_iter().find(|key| OF_LENGTH.contains(&key.as_str())) {
            bail!("--sweep {key} would give the arms different numbers of steps; sweep it with `distill run`");
        }
        let arm = |name: &str, folder, recipe, with_teacher| Arm {
            name: name.to_owned(),
            folder,
            recipe,
            with_teacher,
            tuned: None,
        };
        Ok(match self.against {
            Some(other) => {
                if self.recipe.data.test != other.data.test {
                    bail!("the recipes have different test rows (`data.test`); give both the same");
                }
                if self.recipe.data.test.is_none() && self.recipe.data != other.data {
                    bail!(
                        "the recipes have different rows, and no `data.test` that neither learns from; give both the same"
                    );
                }
                [
                    arm("recipe", folders::RECIPES[0], self.recipe, self.recipe.needs_teacher()),
                    arm("against", folders::RECIPES[1], other, other.needs_teacher()),
                ]
            }
            None if !self.recipe.needs_teacher() => {
                bail!("the recipe has no term that needs its teacher, and nothing is left to compare; see --against")
            }
            None => [
                arm("with teacher", folders::TEACHER[0], self.recipe, true),
                arm("without teacher", folders::TEACHER[1], self.recipe, false),
            ],
        })
    }

    /// The rows of a side, cleaned in this folder if its recipe asks for it.
    fn rows(&self, recipe: &Recipe, clean: &str, test: Option<&Vec<Row>>) -> anyhow::Result<Rows> {
        let hub = recipe.teacher.hub(self.hub);
        let recipe =
            &prepared(recipe, &self.output.join(clean), || Ok(model::describe(&recipe.teacher.model, &hub)?.1))?;
        let columns = recipe.data.columns();
        let validation = recipe.data.validation.as_ref().map(|path| data::read_rows(path, &columns)).transpose()?;
        let all = data::read_rows(&recipe.data.train, &columns)?;
        let others = [Some(&all), validation.as_ref(), test];
        let texts = Texts::read(recipe, others)?;
        let teacher = self.teacher(recipe)?;
        let names = LabelNames::new(teacher.config.labels.clone())?;
        let mut rows = Rows { names, all, validation, texts };
        let own = rows.split(recipe)?;
        let test = test.map_or(&own.validation.rows, |test| test);
        augment::extend(&mut rows.texts, recipe, &own, test, &teacher.tokenizer)?;
        self.staged(recipe, &rows, &teacher.config.encoder)?;
        Ok(rows)
    }

    /// Reads the test rows, and puts the models' answers side by side.
    fn compare(
        &self,
        arms: &[Arm<'_>; 2],
        rows: &Rows,
        test: Option<Vec<Row>>,
        runs: &[Vec<Run>; 2],
    ) -> anyhow::Result<Comparison> {
        let recipe = self.recipe;
        let (test, measured_on) = match test {
            Some(test) => {
                let origin = recipe.data.test.as_deref().unwrap_or(&recipe.data.train);
                let labels = data::labels_of(&test, &rows.names, origin)?;
                (Split::new(test, labels), "the test rows")
            }
            None => {
                ui::say(
                    "warning: the recipe has no `data.test`, so the figures are of the validation rows, by which epochs were \
                     chosen",
                );
                (rows.split(recipe)?.validation, "the validation rows")
            }
        };
        let test = test.taken(RowChoice::Labelled);
        if test.rows.is_empty() {
            bail!("no row of {measured_on} has a label, and without labels nothing can be compared");
        }
        let labels: Vec<u32> = test.labels.iter().copied().flatten().collect();
        let running = Running::new(self.compute, recipe.train.batch_tokens);
        let teacher = self.teacher(recipe)?;
        let max_length = teacher.max_length(recipe.data.max_length)?;
        let theirs = teacher_predictions(teacher, rows.names.names(), &test, max_length, running)?;
        let mut said: [Vec<Said>; 2] = [Vec::new(), Vec::new()];
        for (side, runs) in runs.iter().enumerate() {
            for run in runs {
                let what = format!("evaluate {}", arms[side].name);
                said[side].push(self.ask(run, arms[side].recipe, &test, &theirs, running, &what)?);
            }
        }
        let right = said.each_ref().map(|runs| runs.iter().map(|said| hits(&said.chosen, &labels)).collect::<Vec<_>>());
        let agreeing =
            said.each_ref().map(|runs| runs.iter().map(|said| hits(&said.chosen, &theirs)).collect::<Vec<_>>());
        let mut difference = BTreeMap::new();
        let metrics = self.metrics();
        for &metric in &metrics {
            let [first, second] = said.each_ref().map(|runs| values(runs, metric));
            let by_row = match metric {
                Metric::Accuracy => Some(row_differences(&right)),
                Metric::Agreement => Some(row_differences(&agreeing)),
                _ => None,
            };
            if let (Some(first), Some(second)) = (first, second) {
                difference.insert(metric, Difference::of(&first, &second, by_row.as_deref()));
            }
        }
        let report = |side: usize| {
            let summary = |metric: Metric| Some((metric, Summary::of(values(&said[side], metric)?)));
            let metrics = metrics.iter().filter_map(|&metric| summary(metric));
            let speeds: Vec<f64> = said[side].iter().map(|said| said.measured.rows_per_second).collect();
            let figures = &runs[side][0].figures;
            ArmReport {
                name: arms[side].name.clone(),
                metrics: metrics.collect(),
                steps: runs[side].iter().map(|run| run.steps).collect(),
                parameters: figures.parameters,
                bytes: figures.bytes,
                rows_per_second: mean(&speeds),
                tuned: arms[side].tuned.clone(),
            }
        };
        let pairs = right[0].iter().zip(&right[1]);
        let reports = vec![report(0), report(1)];
        let claims = claims(&reports, &difference, self.seeds);
        let comparison = Comparison {
            rows: labels.len(),
            measured_on: measured_on.to_owned(),
            seeds: (0..self.seeds as u64).map(|number| recipe.train.seed + number).collect(),
            arms: reports,
            difference,
            mcnemar: pairs.map(|(a, b)| McNemar::of(a.iter().copied().zip(b.iter().copied()))).collect(),
            classes: changes(rows.names.names(), &labels, [&right[0], &right[1]]),
            claims,
            output: self.output.display().to_string(),
        };
        comparison.write(self.output)?;
        Ok(comparison)
    }

    /// The metrics that both arms have: students of different teachers do not agree with the same one.
    fn metrics(&self) -> Vec<Metric> {
        let same = self.against.is_none_or(|other| other.teacher == self.recipe.teacher);
        METRICS.into_iter().filter(|metric| same || *metric != Metric::Agreement).collect()
    }

    /// What a trained model says of the test rows.
    fn ask(
        &self,
        run: &Run,
        recipe: &Recipe,
        test: &Split,
        theirs: &[u32],
        running: Running<'_>,
        what: &str,
    ) -> anyhow::Result<Said> {
        let student = single_label::load(&run.folder.display().to_string(), self.hub)?;
        let (max_length, bytes) = (student.max_length_up_to(recipe.data.max_length)?, run.figures.bytes);
        let (measured, chosen) = measure_and_choose(student, test, max_length, running, bytes, Some(theirs), what)?;
        Ok(Said { measured, chosen })
    }
}

/// Those that are compared.
const METRICS: [Metric; 4] = [Metric::Accuracy, Metric::MacroF1, Metric::Agreement, Metric::Ece];

/// A metric's value in each run; `None` if a run does not have it.
fn values(runs: &[Said], metric: Metric) -> Option<Vec<f64>> {
    runs.iter().map(|said| said.measured.scores.get(metric)).collect()
}

/// Whether each prediction is the wanted class.
fn hits(chosen: &[u32], wanted: &[u32]) -> Vec<bool> {
    chosen.iter().zip(wanted).map(|(chosen, wanted)| chosen == wanted).collect()
}

/// For each row, the fraction of seeds in which the first arm is right, minus that of the second.
fn row_differences([first, second]: &[Vec<Vec<bool>>; 2]) -> Vec<f64> {
    let rows = first.first().map_or(0, Vec::len);
    let part =
        |runs: &[Vec<bool>], row: usize| runs.iter().filter(|right| right[row]).count() as f64 / runs.len() as f64;
    (0..rows).map(|row| part(first, row) - part(second, row)).collect()
}

/// What may be said of the difference in accuracy.
fn claims(arms: &[ArmReport], difference: &BTreeMap<Metric, Difference>, seeds: usize) -> Vec<String> {
    let Some(found) = difference.get(&Metric::Accuracy) else { return Vec::new() };
    let points = |value: f64| format!("{:.1}", 100.0 * value);
    let between = |[low, high]: [f64; 2]| format!("95 % interval {} to {}", points(low), points(high));
    let excludes_zero = |[low, high]: [f64; 2]| low > 0.0 || high < 0.0;
    let turned = |[low, high]: [f64; 2]| if found.mean >= 0.0 { [low, high] } else { [-high, -low] };
    let (better, worse) = if found.mean >= 0.0 { (&arms[0], &arms[1]) } else { (&arms[1], &arms[0]) };
    let what =
        format!("`{}` has {} points of accuracy more than `{}`", better.name, points(found.mean.abs()), worse.name);
    let mut said = Vec::new();
    match found.interval {
        Some(interval) if seeds > 1 && excludes_zero(interval) => {
            said.push(format!("{what} ({}, over {seeds} seeds): the difference is not one of seeds.", between(turned(interval))));
        }
        Some(interval) if seeds > 1 => said.push(format!(
            "No difference in accuracy may be claimed: {} points ({}, over {seeds} seeds), and 0 is among them; more seeds \
             would narrow it.",
            points(found.mean.abs()),
            between(turned(interval))
        )),
        _ => said.push(format!("{what} with a single seed, which says nothing of other seeds; give --seeds 5 or more.")),
    }
    if let Some(interval) = found.interval_over_rows {
        let verdict = match excludes_zero(interval) {
            true => "other rows of the same kind would very likely say so too",
            false => "other rows of the same kind might say otherwise",
        };
        said.push(format!("Over the rows: {}; {verdict}.", between(turned(interval))));
    }
    said
}

impl Comparison {
    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_value(self)?;
        json["schema_version"] = SCHEMA_VERSION.into();
        // The folder may be moved.
        json.as_object_mut().and_then(|fields| fields.remove("output"));
        let text = format!("{}\n", serde_json::to_string_pretty(&json)?);
        files::write_whole(&folder.join(COMPARISON), text.as_bytes())?;
        Ok(files::write_whole(&folder.join(TABLE), format!("{}\n", self.text()).as_bytes())?)
    }

    /// A table in Markdown, and what may be claimed.
    pub(crate) fn text(&self) -> String {
        let [first, second] = [&self.arms[0], &self.arms[1]];
        let line = |cells: [String; 5]| format!("| {} |\n", cells.join(" | "));
        let mut text = line([
            format!("on {} of {} with {} seeds", ui::count(self.rows as u64), self.measured_on, self.seeds.len()),
            first.name.clone(),
            second.name.clone(),
            "difference".to_owned(),
            "95 % interval".to_owned(),
        ]);
        text += "|---|---|---|---|---|\n";
        for metric in METRICS {
            let (Some(a), Some(b)) = (first.metrics.get(&metric), second.metrics.get(&metric)) else { continue };
            let Some(difference) = self.difference.get(&metric) else { continue };
            let figure = |of: &Summary| match of.spread {
                Some(spread) => format!("{:.4} ± {spread:.4}", of.mean),
                None => format!("{:.4}", of.mean),
            };
            let name = match metric {
                Metric::MacroF1 => MACRO_F1,
                Metric::Agreement => "agreement with the teacher",
                Metric::Ece => "calibration error (ECE)",
                Metric::Accuracy | Metric::Loss => metric.name(),
            };
            let interval = difference.interval.map_or("-".to_owned(), |[low, high]| format!("{low:+.4} to {high:+.4}"));
            text += &line([name.to_owned(), figure(a), figure(b), format!("{:+.4}", difference.mean), interval]);
        }
        let mut plain = |what: &str, cell: &dyn Fn(&ArmReport) -> String| {
            text += &line([what.to_owned(), cell(first), cell(second), String::new(), String::new()]);
        };
        plain("parameters", &|arm| ui::count(arm.parameters as u64));
        plain("bytes of its model.safetensors", &|arm| ui::bytes(arm.bytes));
        plain("rows a second", &|arm| format!("{:.0}", arm.rows_per_second));
        plain("steps", &|arm| {
            let mut steps = arm.steps.clone();
            steps.dedup();
            steps.iter().map(|steps| ui::count(*steps as u64)).collect::<Vec<_>>().join(", ")
        });
        if [first, second].iter().any(|arm| arm.tuned.is_some()) {
            let chosen = |arm: &ArmReport| arm.tuned.as_ref().map_or("no choice".to_owned(), Tuned::chosen_in_words);
            plain("chosen on the validation rows", &chosen);
        }
        let p: Vec<String> = self.mcnemar.iter().map(|test| format!("{:.2e}", test.p)).collect();
        text += &format!("\nMcNemar's test, p of each seed: {}\n", p.join(", "));
        for change in &self.classes {
            text += &format!(
                "class `{}`, {} rows: {:.3} right against {:.3}\n",
                change.class, change.rows, change.first, change.second
            );
        }
        for claim in &self.claims {
            text += &format!("\n{claim}");
        }
        text
    }
}
