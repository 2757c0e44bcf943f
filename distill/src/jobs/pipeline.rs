//! The whole pipeline in one folder, for `run` and `demo`: cache, train, evaluate, export.
//!
//! All checks are made before the teacher runs. A stage is skipped if its output exists and was made from the same
//! inputs; output made from other inputs is an error.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use datasets::Row;
use nn::Compute;
use serde::{Deserialize, Serialize};
use teacher::HubOptions;

use super::augment;
use super::capture::{CacheReport, TOKENIZER, capture_recipe};
use super::evaluate::{Measured, measure, teacher_predictions};
use super::export::{Exported, export, exported, refuse_foreign};
use super::run_folder::{Existing, clear_run, search_files};
use super::staged::Staged;
use super::student::{check_students, planned};
use super::teacher::Teacher;
use super::texts::Texts;
use super::train::Training;
use super::tune::{Search, Trial, Tuned, check_fit, check_validation, whole_steps};
use crate::data::{self, NO_FIGURES, Split, TaskData};
use crate::files::{self, FileError, prepare_output, refuse_source};
use crate::fingerprint;
use crate::inference::Running;
use crate::model::{self, TextModel};
use crate::objective::{self, LossTermRecipe};
use crate::recipe::{FitRecipe, Recipe, RowChoice, StageRecipe, StudentRecipe, Swept};
use crate::run_record::RECORD;
use crate::scores::MACRO_F1;
use crate::tasks::{Task, single_label};
use crate::ui;

/// The pipeline only supports classifiers so far.
const TASK: Task = Task::SingleLabel;

/// The pipeline's settings, resolved.
pub(crate) struct Pipeline<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) hub: &'a HubOptions,
    pub(crate) output: &'a Path,
    /// Training rows.
    pub(crate) rows: Vec<Row>,
    /// Validation rows; without them, a tenth of the training rows is held out.
    pub(crate) validation: Option<Vec<Row>>,
    /// Texts to learn from as well, which stand in none of the other rows.
    pub(crate) texts: Texts,
    /// Test rows; without them, scores are on the validation rows.
    pub(crate) test: Option<Vec<Row>>,
    /// Name of the rows that scores are on, for messages and the model card.
    pub(crate) measured_on: String,
    /// Whether to train the same student on the labelled rows alone as well, for as many steps.
    pub(crate) baseline: bool,
    /// Whether to remove the output of an earlier run first.
    pub(crate) overwrite: bool,
    /// Whether trainings write event files for TensorBoard.
    pub(crate) tensorboard: bool,
    pub(crate) compute: &'a Compute,
}

/// What a training learns from, and how long.
#[derive(Default)]
struct Arm<'a> {
    /// Besides those of the whole.
    texts: &'a [Row],
    learns_from: RowChoice,
    objective: Vec<LossTermRecipe>,
    cache: Option<&'a Path>,
    fit: FitRecipe,
}

/// The folders that stages write, besides the cache.
const STAGES: [&str; 3] = ["student", "baseline", "export"];

/// The folder of the trainings before the student's last one.
const STAGES_FOLDER: &str = "stages";

/// The results of all stages.
#[derive(Debug, Serialize)]
pub(crate) struct PipelineReport {
    pub(crate) cache: CacheReport,
    pub(crate) teacher: Measured,
    pub(crate) student: Measured,
    pub(crate) baseline: Option<Measured>,
    pub(crate) export: Exported,
    /// If settings were searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tuned: Option<Tuned>,
}

impl Pipeline<'_> {
    /// Runs every stage.
    pub(crate) fn run(self) -> anyhow::Result<PipelineReport> {
        self.run_best_of(&[])
    }

    /// Runs every stage with the best of these recipes, which differ from [`recipe`](Self::recipe) in the student and its
    /// training alone; without any, with that one.
    pub(crate) fn run_best_of(self, swept: &[Swept]) -> anyhow::Result<PipelineReport> {
        let recipe = self.recipe;
        recipe.check()?;
        let recipes: Vec<&Recipe> = match swept {
            [] => vec![recipe],
            _ => swept.iter().map(|swept| &swept.recipe).collect(),
        };
        for recipe in &recipes {
            recipe.train.on(self.compute)?;
        }
        let (cache_folder, student_folder) = (self.output.join("cache"), self.output.join("student"));
        let given = &recipe.data.label_names.0;
        let load = || TASK.load(&recipe.teacher.model, self.hub, given);
        for stage in STAGES.into_iter().chain(["cache"]) {
            refuse_source(Path::new(&recipe.teacher.model), &self.output.join(stage))?;
        }
        let teacher = load()?;
        let names = datasets::LabelNames::new(teacher.config.labels.clone())?;
        let max_length = teacher.max_length(recipe.data.max_length)?;
        let labelled = |rows: Vec<Row>, origin: &Path| -> anyhow::Result<Split> {
            let labels = data::labels_of(&rows, &names, origin)?;
            Ok(Split::new(rows, labels))
        };
        let origins = recipe.data.origins();
        let own = data::split(self.rows.clone(), self.validation.clone(), Some(&names), origins)?;
        let test = match &self.test {
            Some(rows) => labelled(rows.clone(), recipe.data.test.as_deref().unwrap_or(origins[0]))?,
            None => own.validation.clone(),
        };
        let mut texts = self.texts.clone();
        augment::extend(&mut texts, recipe, &own, &test.rows, &teacher.tokenizer)?;
        let split = || -> anyhow::Result<TaskData> { Ok(own.clone().with_unlabelled(&texts.of_all)) };
        let all = labelled(self.rows.clone(), origins[0])?.with_unlabelled(&texts.distinct());
        let learned = split()?;
        let staged = |recipe: &&Recipe| {
            let student = planned(&recipe.student, Some(&teacher.config.encoder), &recipe.student.hub(self.hub))?;
            Staged::of(recipe, &learned.train.labels, &texts, [&student, &teacher.config.encoder])
        };
        let staged = recipes.iter().map(staged).collect::<anyhow::Result<Vec<_>>>()?;
        let epoch_rows = {
            let labels = learned.train.labels.clone();
            move |recipe: &Recipe| recipe.train.epoch_rows(&labels)
        };
        if !swept.is_empty() {
            if !recipe.stages.is_empty() {
                bail!(
                    "--sweep tries settings of a single training, and the recipe has stages; leave out one of the two"
                );
            }
            check_fit("--sweep", &recipe.train)?;
            // Held out, they are among the rows that the teacher answers.
            check_validation("--sweep", &learned.validation, self.validation.is_none())?;
            let teacher = || Teacher::of_model(load()?, recipe.data.max_length);
            let students = recipes.iter().map(|recipe| &recipe.student);
            check_students(students, teacher, &learned.train, recipe.data.max_length, self.hub)?;
        }
        drop(learned);
        if self.overwrite {
            self.clear()?;
        }
        let export_folder = self.output.join("export");
        refuse_foreign(&export_folder)?;
        let cache = capture_recipe(recipe, TASK, teacher, &all, &cache_folder, self.compute).context("stage cache")?;

        let train = |student: &StudentRecipe, arm: Arm<'_>, folder: &Path, existing| {
            let Arm { texts, learns_from, objective, cache, fit } = arm;
            let training = Training {
                task: TASK,
                teacher: Teacher::of_model(load()?, recipe.data.max_length)?,
                data: split()?.with_unlabelled(texts),
                clean: recipe.data.clean.clone(),
                augment: recipe.data.augment.clone(),
                max_length: recipe.data.max_length,
                student,
                hub: &student.hub(self.hub),
                objective,
                fit,
                cache,
                live: false,
                output: folder,
                // Not of the trials of a search.
                tensorboard: self.tensorboard && folder.parent() == Some(self.output),
                force: recipe.teacher.force,
                learns_from,
                compute: self.compute,
            };
            training.run(existing)
        };
        let (number, tuned) = match swept {
            [] => (0, None),
            _ => {
                let search = Search {
                    settings: swept.iter().map(|swept| swept.settings.clone()).collect(),
                    steps: recipes
                        .iter()
                        .map(|recipe| whole_steps(&recipe.train_over(epoch_rows(recipe)), epoch_rows(recipe)))
                        .collect(),
                    metric: recipe.train.metric,
                    output: self.output,
                    existing: Existing::Resume.begun(),
                };
                let trial = |trial: &Trial| {
                    let recipe = recipes[trial.number];
                    let (objective, fit) = (recipe.objective.clone(), trial.fit(&recipe.train));
                    let arm = Arm { objective, cache: Some(&cache_folder), fit, ..Arm::default() };
                    Ok(train(&recipe.student, arm, &trial.folder, trial.existing)?.figures)
                };
                let (best, tuned) = search.run(trial).context("stage tune")?;
                (best, Some(tuned))
            }
        };
        let recipe = recipes[number];
        if recipe.stages.is_empty() {
            ui::say("training the student with its teacher");
        }
        let train_stage = |student: &StudentRecipe, stage: &StageRecipe, texts, folder: &Path| {
            let StageRecipe { rows, objective, train: fit, .. } = stage.clone();
            let arm = Arm { texts, learns_from: rows, objective, cache: Some(&cache_folder), fit };
            Ok(train(student, arm, folder, Existing::Resume)?.figures)
        };
        let earlier = self.output.join(STAGES_FOLDER);
        let (_, steps) = staged[number].run(&recipe.student, &student_folder, &earlier, train_stage)?;
        let baseline_folder = self.output.join("baseline");
        if self.baseline {
            let labelled = all.labels.iter().flatten().count();
            ui::say(format!(
                "training the same student from the same start on {} labels alone, for as many steps",
                ui::count(labelled as u64)
            ));
            let objective = objective::without_teacher(&recipe.objective);
            let fit = recipe.train.over_fewer_rows(steps, epoch_rows(recipe));
            let arm = Arm { learns_from: RowChoice::Labelled, objective, fit, ..Arm::default() };
            train(&recipe.student, arm, &baseline_folder, Existing::Resume).context("stage baseline")?;
        }

        test.say_unlabelled("row for the figures", NO_FIGURES);
        let evaluation = self.evaluate(&load, &test, max_length).context("stage evaluate")?;
        let Evaluation { teacher, student, baseline, .. } = evaluation;
        let measured = Some((self.measured_on.as_str(), &student));
        let export = export(&student_folder, &export_folder, recipe.export.dtype, measured).context("stage export")?;
        Ok(PipelineReport { cache, teacher, student, baseline, export, tuned })
    }

    /// Removes what an earlier run wrote, and nothing else.
    fn clear(&self) -> anyhow::Result<()> {
        cache::remove(&self.output.join("cache"), &[TOKENIZER])?;
        let evaluation = self.output.join(EVALUATION);
        if evaluation.exists() {
            fs::remove_file(&evaluation).map_err(|source| FileError::writing(&evaluation, source))?;
        }
        let search = search_files(self.output);
        prepare_output(self.output, true, &search.iter().map(String::as_str).collect::<Vec<_>>())?;
        let trainings: &[&str] = if self.baseline { &["student", "baseline"] } else { &["student"] };
        for training in trainings.iter().map(|name| self.output.join(name)).filter(|folder| folder.exists()) {
            clear_run(&training)?;
        }
        for stage in fs::read_dir(self.output.join(STAGES_FOLDER)).into_iter().flatten().flatten() {
            clear_run(&stage.path())?;
        }
        let export = self.output.join("export");
        if export.exists() {
            prepare_output(&export, true, &exported())?;
        }
        Ok(())
    }

    /// Evaluates all models on the same rows, one after another, unless that has been done.
    fn evaluate(
        &self,
        load: &impl Fn() -> anyhow::Result<TextModel>,
        test: &Split,
        max_length: usize,
    ) -> anyhow::Result<Evaluation> {
        let running = Running::new(self.compute, self.recipe.train.batch_tokens);
        let teacher = load()?;
        let labels = teacher.config.labels.clone();
        let encodings = teacher.tokenizer.encode(&test.rows, max_length)?;
        let folders = [("student", true), ("baseline", self.baseline)];
        let folders: Vec<_> =
            folders.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| (name, self.output.join(name))).collect();
        let weights = folders.iter().map(|(_, folder)| {
            let mut hasher = blake3::Hasher::new();
            for name in [model::WEIGHTS, RECORD] {
                let path = folder.join(name);
                hasher.update(&fs::read(&path).map_err(|source| FileError::Read { path, source })?);
            }
            Ok(hasher.finalize().to_hex().to_string())
        });
        let inputs = EvaluationInputs {
            teacher: teacher::weights_hash(&teacher.parameters),
            students: weights.collect::<anyhow::Result<_>>()?,
            rows: fingerprint::of_rows(&encodings, &test.labels),
            max_length,
        };
        let path = self.output.join(EVALUATION);
        if let Some(known) = Evaluation::read(&path).filter(|known| known.inputs == inputs) {
            return Ok(known);
        }
        let said = teacher_predictions(teacher, &labels, test, max_length, running)?;
        let mut measured = Vec::new();
        let names = std::iter::once(("teacher", self.recipe.teacher.model.clone()));
        for (label, name) in names.chain(folders.iter().map(|(label, folder)| (*label, folder.display().to_string()))) {
            let model = if label == "teacher" { load()? } else { single_label::load(&name, self.hub)? };
            let bytes = model::weights_bytes(&name, self.hub)?;
            let against = (label != "teacher").then_some(said.as_slice());
            let label = format!("evaluate {label}");
            let max_length = model.max_length_up_to(self.recipe.data.max_length)?;
            measured.push(measure(model, test, max_length, running, bytes, against, &label)?);
        }
        let mut measured = measured.into_iter();
        let (Some(teacher), Some(student)) = (measured.next(), measured.next()) else {
            anyhow::bail!("nothing was measured");
        };
        let evaluation =
            Evaluation { schema_version: SCHEMA_VERSION, inputs, teacher, student, baseline: measured.next() };
        let mut json = serde_json::to_string_pretty(&evaluation)?;
        json.push('\n');
        files::write_whole(&path, json.as_bytes())?;
        Ok(evaluation)
    }
}

/// The scores of all models. The only file that contains speeds, and so the only one that differs from run to run.
pub(crate) const EVALUATION: &str = "evaluation.json";

/// Version of the fields of [`EVALUATION`]. Before 2, macro-F1 was over all classes.
const SCHEMA_VERSION: u32 = 2;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Evaluation {
    schema_version: u32,
    inputs: EvaluationInputs,
    teacher: Measured,
    student: Measured,
    baseline: Option<Measured>,
}

/// Everything that determines the scores, except for speeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct EvaluationInputs {
    /// Hash of the teacher's weights.
    teacher: String,
    /// Hashes of the weights and the record of the student and, if there is one, of the baseline.
    students: Vec<String>,
    rows: String,
    max_length: usize,
}

impl Evaluation {
    /// The existing file, if it is valid; otherwise it will be replaced.
    fn read(path: &Path) -> Option<Self> {
        let found: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (found.schema_version == SCHEMA_VERSION).then_some(found)
    }
}

impl PipelineReport {
    /// A table with one column per model and one row per score.
    pub(crate) fn text(&self) -> String {
        let models: Vec<(&str, &Measured)> = [("teacher", &self.teacher), ("student", &self.student)]
            .into_iter()
            .chain(self.baseline.as_ref().map(|baseline| ("without teacher", baseline)))
            .collect();
        let figure = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
        let mut table = ui::Table::new(
            [format!("on {} rows", ui::count(self.student.scores.rows as u64))]
                .into_iter()
                .chain(models.iter().map(|(name, _)| (*name).to_string())),
        );
        let mut row = |what: &str, cell: &dyn Fn(&Measured) -> String| {
            table.row(std::iter::once(what.to_string()).chain(models.iter().map(|(_, measured)| cell(measured))));
        };
        row("accuracy", &|m| figure(m.scores.accuracy));
        row(MACRO_F1, &|m| figure(m.scores.macro_f1));
        row("agreement with the teacher", &|m| figure(m.scores.agreement));
        row("calibration error (ECE)", &|m| figure(m.scores.ece));
        row("parameters", &|m| ui::count(m.parameters as u64));
        row("bytes of its model.safetensors", &|m| ui::bytes(m.bytes));
        row("rows a second", &|m| format!("{:.0}", m.rows_per_second));
        let (teacher, student) = (&self.teacher, &self.student);
        let tuned = self.tuned.as_ref().map_or(String::new(), |tuned| format!("{}\n", tuned.text()));
        let mut text = format!(
            "{tuned}{table}\nstudent against teacher: {:.0} % of the parameters, {:.2} times the rows a second",
            100.0 * student.parameters as f64 / teacher.parameters as f64,
            student.rows_per_second / teacher.rows_per_second
        );
        if let (Some(theirs), Some(ours)) = (teacher.scores.accuracy, student.scores.accuracy) {
            text += &format!(", {:.1} % of the accuracy", 100.0 * ours / theirs);
        }
        text += &format!("\nexported in {}: {}", self.export.dtype, ui::bytes(self.export.bytes));
        text
    }
}
