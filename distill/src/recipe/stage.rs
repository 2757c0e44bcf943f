//! Stages of a training, one after another.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use toml::Value;

use super::{FitRecipe, Keep};
use crate::objective::{self, LossTermRecipe};

/// A part of the training with a loss and settings of its own. It starts from what the stage before it has kept: its best
/// weights or its last ones, as `keep` says there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StageRecipe {
    /// Name of its folder.
    pub(crate) name: String,
    /// The training rows that it learns from.
    #[serde(default)]
    pub(crate) rows: RowChoice,
    /// Texts of its own, besides those of the whole, that it learns from without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unlabelled: Option<PathBuf>,
    /// Whether it trains the student's layers one after the other, each in a training of its own by the terms at that layer
    /// alone; what is above it stays as it is, what is below goes on learning (`layer_decay` slows it).
    #[serde(default)]
    pub(crate) layer_by_layer: bool,
    /// Its loss.
    pub(crate) objective: Vec<LossTermRecipe>,
    /// The settings of the whole, and over them those of the stage.
    #[serde(default)]
    pub(crate) train: FitRecipe,
}

/// Which of the training rows a training learns from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RowChoice {
    /// Every row.
    #[default]
    All,
    /// Those that have a label.
    Labelled,
    /// Those that have none, which are all of `data.unlabelled`.
    Unlabelled,
}

impl RowChoice {
    /// Whether a row with this label, or without one, is among them.
    pub(crate) fn takes(self, label: Option<u32>) -> bool {
        match self {
            Self::All => true,
            Self::Labelled => label.is_some(),
            Self::Unlabelled => label.is_none(),
        }
    }
}

impl StageRecipe {
    /// The only training of a recipe without stages.
    pub(crate) fn only(objective: &[LossTermRecipe], train: &FitRecipe) -> Self {
        Self {
            name: String::new(),
            rows: RowChoice::All,
            unlabelled: None,
            layer_by_layer: false,
            objective: objective.to_vec(),
            train: train.clone(),
        }
    }

    /// An error that names the stage if its settings make no sense.
    pub(super) fn check(&self, dropout: f64) -> anyhow::Result<()> {
        let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        ensure!(
            !self.name.is_empty() && plain(&self.name),
            "the name of a stage is {:?}: it must be of letters, digits, - and _, since a folder has it",
            self.name
        );
        super::checks::refuse(&self.train.checks())?;
        self.train.check()?;
        ensure!(
            self.unlabelled.is_none() || self.rows != RowChoice::Labelled,
            "`rows = \"labelled\"` leaves out the texts of `unlabelled`: give one of the two"
        );
        ensure!(
            !self.layer_by_layer || self.train.keep == Keep::Last,
            "a student whose head has learned nothing has no best evaluation: layer_by_layer needs keep = \"last\""
        );
        Ok(objective::check(&self.objective, dropout)?)
    }

    /// The trainings that it consists of, for a student and a teacher with so many layers.
    pub(crate) fn trainings(&self, models: [usize; 2]) -> anyhow::Result<Vec<Self>> {
        if !self.layer_by_layer {
            return Ok(vec![self.clone()]);
        }
        let last = models[0] - 1;
        let of_layer = |layer: usize| {
            let mut training = self.clone();
            training.name = format!("{}-{layer}", self.name);
            training.objective.clear();
            for term in &self.objective {
                training.objective.extend(term.of_layer(models, layer)?);
            }
            ensure!(
                !training.objective.is_empty(),
                "no term compares layer {layer} of the student: give one of them layers = \"uniform\", or a pair for each"
            );
            let above = (layer < last).then(|| format!("{}-{last}", layer + 1));
            training.train.freeze.extend(above.into_iter().chain(["head".to_owned()]));
            Ok(training)
        };
        (0..=last).map(of_layer).collect()
    }
}

/// Refuses two stages of one name.
pub(crate) fn check_names<'a>(mut stages: impl Iterator<Item = &'a StageRecipe>) -> anyhow::Result<()> {
    let mut names = HashSet::new();
    match stages.find(|stage| !names.insert(&stage.name)) {
        Some(stage) => anyhow::bail!("two stages are called `{}`: give them names of their own", stage.name),
        None => Ok(()),
    }
}

/// Puts the `[train]` settings of a recipe under those of its stages.
pub(super) fn inherit(recipe: &mut Value) {
    let train = recipe.get("train").and_then(Value::as_table).cloned().unwrap_or_default();
    let stages = recipe.get_mut("stage").and_then(Value::as_array_mut);
    for stage in stages.into_iter().flatten().filter_map(Value::as_table_mut) {
        let mut settings = train.clone();
        match stage.get("train") {
            // What is no table is the reader's to refuse.
            Some(Value::Table(own)) => settings.extend(own.clone()),
            Some(_) => continue,
            None => {}
        }
        stage.insert("train".to_owned(), Value::Table(settings));
    }
}
