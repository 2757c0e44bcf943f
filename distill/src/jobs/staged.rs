//! The trainings of a recipe: a single one, or those of its stages one after the other, each from what the one before has kept.

use std::path::Path;

use anyhow::Context;
use datasets::Row;
use nn::{EncoderConfig, Layout};

use super::texts::Texts;
use crate::recipe::{Recipe, StageRecipe, StudentRecipe, check_names};
use crate::run_record::RunFigures;
use crate::training::optimizer::rate_factors;
use crate::ui;

/// The trainings, in their order, each with the texts that it has for itself.
pub(super) struct Staged<'a> {
    trainings: Vec<(StageRecipe, &'a [Row])>,
}

impl<'a> Staged<'a> {
    /// Those of a recipe, for training rows with these labels and the texts of its stages, and for a student and its teacher. An
    /// error if a setting does not fit the student or the rows.
    pub(super) fn of(
        recipe: &Recipe,
        labels: &[Option<u32>],
        texts: &'a Texts,
        [student, teacher]: [&EncoderConfig; 2],
    ) -> anyhow::Result<Self> {
        let layout = Layout::new(student);
        rate_factors(&recipe.train, &layout)?;
        let mut trainings = Vec::new();
        for (number, stage) in recipe.stages.iter().enumerate() {
            let texts = texts.of_stage(number);
            let checked = || {
                let rows = labels.iter().copied().chain(texts.iter().map(|_| None));
                stage.train.check_mixing(rows.filter(|label| stage.rows.takes(*label)))?;
                let of_stage = stage.trainings([student.num_layers, teacher.num_layers])?;
                of_stage.iter().try_for_each(|training| rate_factors(&training.train, &layout).map(drop))?;
                anyhow::Ok(of_stage)
            };
            let of_stage = checked().with_context(|| format!("stage {}", stage.name))?;
            trainings.extend(of_stage.into_iter().map(|training| (training, texts)));
        }
        check_names(trainings.iter().map(|(training, _)| training))?;
        if trainings.is_empty() {
            recipe.train.check_mixing(labels.iter().copied())?;
            trainings.push((StageRecipe::only(&recipe.objective, &recipe.train), &[]));
        }
        Ok(Self { trainings })
    }

    /// Takes them all, the last one in `folder` and the others in folders of their names in `earlier`. Returns the figures of the
    /// last one, and the steps of all together.
    pub(super) fn run(
        &self,
        student: &StudentRecipe,
        folder: &Path,
        earlier: &Path,
        mut train: impl FnMut(&StudentRecipe, &StageRecipe, &'a [Row], &Path) -> anyhow::Result<RunFigures>,
    ) -> anyhow::Result<(RunFigures, usize)> {
        let (mut student, mut steps, mut last) = (student.clone(), 0, None);
        for (number, (stage, texts)) in self.trainings.iter().enumerate() {
            let (name, count) = (&stage.name, self.trainings.len());
            let folder = if number + 1 == count { folder.to_owned() } else { earlier.join(name) };
            if count > 1 {
                ui::say(format!("training the student, stage {name}, {} of {count}", number + 1));
            }
            let what = || format!("stage {}", if name.is_empty() { "train" } else { name });
            let figures = train(&student, stage, texts, &folder).with_context(what)?;
            steps += figures.steps;
            // The next one goes on from here, with the sizes and the tokenizer that it has by now.
            let (model, dropout) = (Some(folder.display().to_string()), student.dropout);
            student = StudentRecipe { model, dropout, ..StudentRecipe::DEFAULT };
            last = Some(figures);
        }
        Ok((last.context("a training")?, steps))
    }
}
