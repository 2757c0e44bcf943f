//! Recipes: the tables of a recipe file, which the flags of commands without a recipe map to as well.
//!
//! Each part says what it refuses; the flags of the same meaning are checked by the same rules as they are read.

mod augment;
mod bytes;
mod checks;
mod clean;
mod data;
mod export;
mod family;
mod fit;
mod label_names;
mod metric;
mod read;
mod schedule;
mod shape;
mod stage;
mod student;
mod suited;
mod sweep;

use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use teacher::HubOptions;

pub(crate) use augment::{AugmentRecipe, check as check_ways};
pub(crate) use bytes::{Bytes, with_unit};
pub(crate) use checks::{ABOVE_ZERO, FRACTION, Numbers, ONE_OR_MORE, PART, PROBABILITY, ZERO_OR_MORE};
pub(crate) use clean::CleanRecipe;
pub(crate) use data::{ColumnsRecipe, DataRecipe};
pub(crate) use export::{ExportDtype, ExportRecipe};
pub(crate) use family::StudentFamily;
pub(crate) use fit::{FitRecipe, Keep};
pub(crate) use label_names::LabelNameList;
pub(crate) use metric::Metric;
pub(crate) use read::{Setting, read};
pub(crate) use schedule::{ScheduleKind, ScheduleRecipe};
pub(crate) use shape::Shape;
pub(crate) use stage::{RowChoice, StageRecipe, check_names};
pub(crate) use student::{HeadChoice, LayerChoice, StudentRecipe};
pub(crate) use suited::{Subject, rounded};
pub(crate) use sweep::{MOST_SETTINGS, Sweep, Swept, sweep};

use crate::objective::{self, LossTermRecipe};
use crate::tasks::single_label;
use checks::refuse;

/// A recipe file, as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    /// Folder to write, one folder a stage in it.
    pub(crate) output: Option<PathBuf>,
    pub(crate) teacher: TeacherRecipe,
    pub(crate) data: DataRecipe,
    #[serde(default)]
    pub(crate) student: StudentRecipe,
    #[serde(default = "default_objective")]
    pub(crate) objective: Vec<LossTermRecipe>,
    #[serde(default)]
    pub(crate) train: FitRecipe,
    /// In place of a single training with the objective above.
    #[serde(default, rename = "stage", skip_serializing_if = "Vec::is_empty")]
    pub(crate) stages: Vec<StageRecipe>,
    #[serde(default)]
    pub(crate) export: ExportRecipe,
}

impl TeacherRecipe {
    /// How the teacher is found: its own revision comes before the one that is given for the run.
    pub(crate) fn hub(&self, run: &HubOptions) -> HubOptions {
        HubOptions { revision: self.revision.clone().or(run.revision.clone()), ..run.clone() }
    }
}

impl Recipe {
    /// The training settings with the epochs that suit so many rows, where none are given.
    pub(crate) fn train_over(&self, rows: usize) -> FitRecipe {
        self.train.with_epochs_for(rows, self.student.trained())
    }

    /// Whether a training of it needs the teacher.
    pub(crate) fn needs_teacher(&self) -> bool {
        match self.stages.is_empty() {
            true => objective::needs_teacher(&self.objective),
            false => self.stages.iter().any(|stage| objective::needs_teacher(&stage.objective)),
        }
    }

    /// The settings of each of its trainings.
    pub(crate) fn fits(&self) -> impl Iterator<Item = &FitRecipe> {
        std::iter::once(&self.train).chain(self.stages.iter().map(|stage| &stage.train))
    }

    /// An error that names the key if a value is not allowed.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        refuse(&[self.train.checks(), self.student.checks()].concat())?;
        check_ways(&self.data.augment)?;
        anyhow::ensure!(
            self.data.dictionary.is_none() || !self.data.augment.is_empty(),
            "`data.dictionary` goes with `data.augment`: nothing else reads it"
        );
        self.data.clean.iter().try_for_each(CleanRecipe::check).context("the recipe's data.clean")?;
        self.train.check()?;
        self.student.check()?;
        stage::check_names(self.stages.iter())?;
        self.stages
            .iter()
            .try_for_each(|stage| stage.check(self.student.dropout).with_context(|| format!("stage {}", stage.name)))?;
        if let Some(last) = self.stages.last().filter(|last| last.layer_by_layer) {
            anyhow::bail!(
                "stage {}: layer_by_layer leaves the head as it was, so it cannot be the last stage: add one behind it that \
                 trains the head",
                last.name
            );
        }
        Ok(objective::check(&self.objective, self.student.dropout)?)
    }
}

/// The teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TeacherRecipe {
    /// A folder, or a name on the Hub.
    pub(crate) model: String,
    /// Branch, tag or commit on the Hub.
    pub(crate) revision: Option<String>,
    /// Accept a teacher that is no better than chance.
    #[serde(default)]
    pub(crate) force: bool,
}

fn default_objective() -> Vec<LossTermRecipe> {
    single_label::TERMS_WITH_TEACHER.to_vec()
}
