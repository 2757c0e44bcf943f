//! The trainings of a comparison's arms.

use std::path::{Path, PathBuf};

use anyhow::Context;
use datasets::{LabelNames, Row};
use nn::{Compute, EncoderConfig};
use teacher::HubOptions;

use super::super::capture::capture_recipe;
use super::super::run_folder::Existing;
use super::super::staged::Staged;
use super::super::student::planned;
use super::super::teacher::Teacher;
use super::super::texts::Texts;
use super::super::train::Training;
use super::super::tune::{Search, Tuned, whole_steps};
use super::folders;
use crate::data::{self, Split, TaskData};
use crate::model::TextModel;
use crate::objective::{self, LossTermRecipe};
use crate::recipe::{FitRecipe, Recipe, RowChoice, StageRecipe, StudentRecipe, Swept};
use crate::run_record::RunFigures;
use crate::tasks::Task;
use crate::ui;

/// Only classifiers can be compared so far.
pub(super) const TASK: Task = Task::SingleLabel;

/// A comparison, with everything that determines it.
pub(crate) struct Comparing<'a> {
    pub(crate) recipe: &'a Recipe,
    /// Against this one, or the same recipe without its teacher.
    pub(crate) against: Option<&'a Recipe>,
    /// The recipes of which each arm takes its best, by the validation rows; without any, the one above.
    pub(crate) swept: [&'a [Swept]; 2],
    pub(crate) seeds: usize,
    pub(crate) hub: &'a HubOptions,
    /// A folder for each training, and the result.
    pub(crate) output: &'a Path,
    /// Whether to remove the output of an earlier comparison first.
    pub(crate) overwrite: bool,
    /// Whether to write event files for TensorBoard.
    pub(crate) tensorboard: bool,
    pub(crate) compute: &'a Compute,
}

/// An arm before its trainings.
pub(super) struct Arm<'a> {
    pub(super) name: String,
    pub(super) folder: &'static str,
    pub(super) recipe: &'a Recipe,
    pub(super) with_teacher: bool,
    pub(super) tuned: Option<Tuned>,
}

/// A recipe's rows.
pub(super) struct Rows {
    pub(super) names: LabelNames,
    pub(super) all: Vec<Row>,
    pub(super) validation: Option<Vec<Row>>,
    pub(super) texts: Texts,
}

impl Rows {
    /// Rows to learn from and rows to validate on, the same ones every time.
    pub(super) fn split(&self, recipe: &Recipe) -> anyhow::Result<TaskData> {
        let data = data::split(self.all.clone(), self.validation.clone(), Some(&self.names), recipe.data.origins())?;
        Ok(data.with_unlabelled(&self.texts.of_all))
    }
}

/// The result of one training, or of the last one of a recipe with stages.
pub(super) struct Run {
    pub(super) figures: RunFigures,
    /// Of all stages together.
    pub(super) steps: usize,
    pub(super) folder: PathBuf,
}

/// One training of an arm.
struct Learning<'a> {
    student: &'a StudentRecipe,
    objective: Vec<LossTermRecipe>,
    learns_from: RowChoice,
    /// Besides those of the whole.
    texts: &'a [Row],
    fit: FitRecipe,
}

impl Comparing<'_> {
    pub(super) fn teacher(&self, recipe: &Recipe) -> anyhow::Result<TextModel> {
        TASK.load(&recipe.teacher.model, &recipe.teacher.hub(self.hub), &recipe.data.label_names.0)
    }

    /// The trainings of a recipe.
    pub(super) fn staged<'t>(
        &self,
        recipe: &Recipe,
        rows: &'t Rows,
        teacher: &EncoderConfig,
    ) -> anyhow::Result<Staged<'t>> {
        let student = planned(&recipe.student, Some(teacher), &recipe.student.hub(self.hub))?;
        Staged::of(recipe, &rows.split(recipe)?.train.labels, &rows.texts, [&student, teacher])
    }

    /// Captures the teachers' answers; those that both arms need run once.
    pub(super) fn captures(&self, arms: &[Arm<'_>; 2], rows: &[Rows]) -> anyhow::Result<[Option<PathBuf>; 2]> {
        // What the teacher answers: the seed draws new texts, and stages may have texts of their own.
        let [first, second] = arms.each_ref().map(|arm| {
            let Recipe { teacher, data, train, stages, .. } = arm.recipe;
            let seed = Some(train.seed).filter(|_| !data.augment.is_empty());
            (teacher, data, seed, stages.iter().map(|stage| &stage.unlabelled).collect::<Vec<_>>())
        });
        let own = usize::from(first != second);
        let folders = [folders::CACHES[0], folders::CACHES[own]];
        let mut caches = [None, None];
        for (side, arm) in arms.iter().enumerate().filter(|(_, arm)| arm.with_teacher) {
            let folder = self.output.join(folders[side]);
            if caches[0].as_ref() != Some(&folder) {
                let (recipe, rows) = (arm.recipe, &rows[side]);
                let labels = data::labels_of(&rows.all, &rows.names, &recipe.data.train)?;
                let all = Split::new(rows.all.clone(), labels).with_unlabelled(&rows.texts.distinct());
                capture_recipe(recipe, TASK, self.teacher(recipe)?, &all, &folder, self.compute).context("capture")?;
            }
            caches[side] = Some(folder);
        }
        if self.against.is_none() {
            // For its evaluations, so that both choose their epochs by the same figures.
            caches[1] = caches[0].clone();
        }
        Ok(caches)
    }

    pub(super) fn train(
        &self,
        arm: &Arm<'_>,
        rows: &Rows,
        cache: Option<&Path>,
        number: usize,
        steps: Option<usize>,
    ) -> anyhow::Result<Run> {
        let seed = folders::of_seed(self.recipe.train.seed + number as u64);
        let (recipe, place) = (arm.recipe, self.output.join(arm.folder));
        let (folder, earlier) = (place.join(&seed), place.join(folders::STAGES).join(&seed));
        let seeded = |fit: &FitRecipe, of_arm: u64| {
            let seed = of_arm.wrapping_add(number as u64);
            FitRecipe { seed, max_steps: steps.or(fit.max_steps), ..fit.clone() }
        };
        if self.labels_alone(arm) {
            let fit = seeded(&recipe.train, self.recipe.train.seed);
            let figures = self.train_in(&folder, arm, recipe, rows, cache, self.learning(arm, recipe, fit))?;
            return Ok(Run { steps: figures.steps, figures, folder });
        }
        let staged = self.staged(recipe, rows, &self.teacher(recipe)?.config.encoder)?;
        let train = |student: &StudentRecipe, stage: &StageRecipe, texts, folder: &Path| {
            // A stage's own seed stays as far from that of its recipe.
            let apart = stage.train.seed.wrapping_sub(recipe.train.seed);
            let fit = seeded(&stage.train, self.recipe.train.seed.wrapping_add(apart));
            let (objective, learns_from) = (stage.objective.clone(), stage.rows);
            self.train_in(folder, arm, recipe, rows, cache, Learning { student, objective, learns_from, texts, fit })
        };
        let (figures, steps) = staged.run(&recipe.student, &folder, &earlier, train)?;
        Ok(Run { steps, figures, folder })
    }

    /// Whether an arm is the other one's student without its teacher.
    fn labels_alone(&self, arm: &Arm<'_>) -> bool {
        self.against.is_none() && !arm.with_teacher
    }

    /// The training of an arm without stages.
    fn learning<'r>(&self, arm: &Arm<'_>, recipe: &'r Recipe, fit: FitRecipe) -> Learning<'r> {
        let learns_from = if self.labels_alone(arm) { RowChoice::Labelled } else { RowChoice::All };
        Learning { student: &recipe.student, objective: self.objective(arm, recipe), learns_from, texts: &[], fit }
    }

    /// The settings of an arm by the validation rows, with the first seed. Settings that are the same without a teacher are
    /// tried once.
    pub(super) fn choose<'s>(
        &'s self,
        arm: &mut Arm<'s>,
        swept: &'s [Swept],
        rows: &Rows,
        cache: Option<&Path>,
    ) -> anyhow::Result<()> {
        let mut candidates: Vec<&Swept> = Vec::new();
        for swept in swept {
            let of = |recipe: &Recipe| (recipe.student.clone(), recipe.train.clone(), self.objective(arm, recipe));
            if !candidates.iter().any(|other| of(&other.recipe) == of(&swept.recipe)) {
                candidates.push(swept);
            }
        }
        let mut best = 0;
        if candidates.len() > 1 {
            ui::say(format!("{}: settings are chosen on the validation rows", arm.name));
            let labels = rows.split(arm.recipe)?.train.labels;
            let steps = |swept: &&Swept| {
                let count = swept.recipe.train.epoch_rows(&labels);
                whole_steps(&swept.recipe.train_over(count), count)
            };
            let search = Search {
                settings: candidates.iter().map(|swept| swept.settings.clone()).collect(),
                steps: candidates.iter().map(steps).collect(),
                metric: arm.recipe.train.metric,
                output: &self.output.join(arm.folder),
                existing: Existing::Resume.begun(),
            };
            let (number, tuned) = search.run(|trial| {
                let recipe = &candidates[trial.number].recipe;
                let fit = FitRecipe { seed: self.recipe.train.seed, ..recipe.train.clone() };
                let learning = self.learning(arm, recipe, trial.fit(&fit));
                self.train_in(&trial.folder, arm, recipe, rows, cache, learning)
            })?;
            (best, arm.tuned) = (number, Some(tuned));
        }
        arm.recipe = &candidates[best].recipe;
        Ok(())
    }

    /// The loss of an arm.
    fn objective(&self, arm: &Arm<'_>, recipe: &Recipe) -> Vec<LossTermRecipe> {
        match self.labels_alone(arm) {
            false => recipe.objective.clone(),
            true => objective::without_teacher(&recipe.objective),
        }
    }

    fn train_in(
        &self,
        folder: &Path,
        arm: &Arm<'_>,
        recipe: &Recipe,
        rows: &Rows,
        cache: Option<&Path>,
        learning: Learning<'_>,
    ) -> anyhow::Result<RunFigures> {
        let Learning { student, objective, learns_from, texts, mut fit } = learning;
        let split = rows.split(recipe)?.with_unlabelled(texts);
        let (all, unlabelled) =
            (fit.epoch_rows(&split.train.labels), split.train.labels.iter().filter(|label| label.is_none()).count());
        if let Some(steps) = fit.max_steps.filter(|_| self.labels_alone(arm) && unlabelled > 0) {
            fit = fit.over_fewer_rows(steps, all);
        }
        if self.labels_alone(arm) {
            fit.unlabelled_rate = None;
        }
        let trained = Training {
            task: TASK,
            teacher: Teacher::of_model(self.teacher(recipe)?, recipe.data.max_length)?,
            data: split,
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
            force: recipe.teacher.force,
            // Not of the trials of a search.
            tensorboard: self.tensorboard && folder.parent() == Some(&self.output.join(arm.folder)),
            learns_from,
            compute: self.compute,
        }
        .run(Existing::Resume)?;
        Ok(trained.figures)
    }
}
