//! What is to be computed: the parts of a recipe file, which the flags of recipe-less commands map to as well.
//!
//! Each part says what it refuses; the flags of the same meaning are checked by the same rules as they are read.

mod checks;
mod data;
mod export;
mod fit;
mod read;
mod shape;
mod student;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use checks::{ABOVE_ZERO, FRACTION, Numbers, PART, PROBABILITY, ZERO_OR_MORE};
pub(crate) use data::{ColumnsRecipe, DataRecipe};
pub(crate) use export::{ExportDtype, ExportRecipe};
pub(crate) use fit::{FitRecipe, Keep};
pub(crate) use read::{Setting, read};
pub(crate) use shape::Shape;
pub(crate) use student::{LayerChoice, StudentFamily, StudentRecipe};

use crate::objective::{LossTermRecipe, Objective};
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
    #[serde(default)]
    pub(crate) export: ExportRecipe,
}

impl Recipe {
    /// Refuses values that no training survives, naming the key.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        refuse(&[self.train.checks(), self.student.checks()].concat())?;
        Objective::new(self.objective.clone())?;
        Ok(())
    }
}

/// Who teaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TeacherRecipe {
    /// A folder, or a name on the Hub.
    pub(crate) model: String,
    /// Branch, tag or commit on the Hub.
    pub(crate) revision: Option<String>,
    /// Goes on with a teacher that is no better than chance.
    #[serde(default)]
    pub(crate) force: bool,
}

fn default_objective() -> Vec<LossTermRecipe> {
    single_label::TERMS_WITH_TEACHER.to_vec()
}
