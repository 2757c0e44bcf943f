//! `distill.json`, the record of a trained model: resolved recipe, inputs and results.
//!
//! It contains nothing that depends on the time, the folder or the machine's name.

use std::path::Path;

use anyhow::Context;
use nn::Compute;
use nn::cuda::{Precision, ProductChoices};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::default::is_default;
use crate::files;
use crate::objective::LossTermRecipe;
use crate::recipe::{AugmentRecipe, CleanRecipe, FitRecipe, StudentRecipe};
use crate::scores::Scores;

/// The record's file name.
pub(crate) const RECORD: &str = "distill.json";

/// Version of the record's fields. In version 1, which is still read, macro-F1 was over all classes, also those that do not
/// occur.
const SCHEMA_VERSION: u32 = 2;

/// The record of one trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) schema_version: u32,
    pub(crate) inputs: RunInputs,
    pub(crate) figures: RunFigures,
}

/// Everything that determines the result of a run: equal inputs give equal models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunInputs {
    /// `finetune` or `train`.
    pub(crate) command: String,
    /// The program's version.
    pub(crate) distill: String,
    /// Hash of the weights of the teacher, or of the model to fine-tune.
    pub(crate) model: String,
    /// Hash of that model's configuration.
    pub(crate) config: String,
    /// Hash of the trained model's tokenizer.
    pub(crate) tokenizer: String,
    /// How the training rows were cleaned; absent if they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clean: Option<CleanRecipe>,
    /// How new texts were made; absent if none were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) augment: Vec<AugmentRecipe>,
    /// Hash of the training rows: token ids and class ids.
    pub(crate) train: String,
    /// Hash of the validation rows.
    pub(crate) validation: String,
    /// Class names, by id.
    pub(crate) labels: Vec<String>,
    pub(crate) max_length: usize,
    /// Tokens that the teacher read of a text, where that is another number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) teacher_max_length: Option<usize>,
    pub(crate) objective: Vec<LossTermRecipe>,
    /// `None` for fine-tuning.
    pub(crate) student: Option<StudentRecipe>,
    /// Hash of the pretrained model that a student starts from; absent where it starts from its teacher or at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) student_weights: Option<String>,
    /// Hash of the projections that come with it from an earlier training, if this one has use for some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) student_projections: Option<String>,
    pub(crate) prune_vocabulary: bool,
    /// The form in which the teacher's logits were stored; `None` if none are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) teacher_logits: Option<cache::LogitForm>,
    /// Whether the teacher's hidden states are those of a cache; where it runs beside the student, they are not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) stored_hidden_states: bool,
    /// For a masked-language model only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mask_probability: Option<f64>,
    /// The seed of the masks, where it is that of a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mask_seed: Option<u64>,
    pub(crate) fit: FitRecipe,
    /// `cpu` or `cuda`; missing in older records.
    #[serde(default = "cpu")]
    pub(crate) device: String,
    /// The precision.
    #[serde(default = "f32")]
    pub(crate) precision: Precision,
}

fn cpu() -> String {
    Compute::Cpu.kind().to_string()
}

fn f32() -> Precision {
    Compute::Cpu.precision()
}

impl RunInputs {
    /// The first field in which this run differs from an earlier one, as a path such as `fit.learning_rate`, with both
    /// values. What the earlier one has found out by measuring is no difference.
    pub(crate) fn difference(&self, earlier: &Self) -> Option<(String, String, String)> {
        let json = |inputs: &Self| serde_json::to_value(inputs).unwrap_or_default();
        let mut ours = Self { fit: self.fit.as_measured(&earlier.fit), ..self.clone() };
        // Who was stopped for lack of memory may go on with less of it.
        ours.fit.recompute = earlier.fit.recompute;
        let (path, ours, theirs) = first_difference(&json(&ours), &json(earlier))?;
        Some((path.join("."), ours.to_string(), theirs.to_string()))
    }
}

/// The path at which two JSON values first differ, and both values there.
fn first_difference(ours: &Value, theirs: &Value) -> Option<(Vec<String>, Value, Value)> {
    let parts: Vec<(String, &Value, &Value)> = match (ours, theirs) {
        (ours, theirs) if ours == theirs => return None,
        (Value::Object(ours), Value::Object(theirs)) => {
            // What either leaves out has its default there.
            let others = theirs.iter().filter(|(name, _)| !ours.contains_key(*name));
            let others = others.map(|(name, value)| (name.clone(), &Value::Null, value));
            let pair = |(name, value)| -> (String, &Value, &Value) {
                let name: &String = name;
                (name.clone(), value, theirs.get(name).unwrap_or(&Value::Null))
            };
            ours.iter().map(pair).chain(others).collect()
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => ours
            .iter()
            .zip(theirs)
            .enumerate()
            .map(|(index, (ours, theirs))| (index.to_string(), ours, theirs))
            .collect(),
        _ => Vec::new(),
    };
    let within = parts.into_iter().find_map(|(name, ours, theirs)| {
        let (mut path, ours, theirs) = first_difference(ours, theirs)?;
        path.insert(0, name);
        Some((path, ours, theirs))
    });
    Some(within.unwrap_or_else(|| (Vec::new(), ours.clone(), theirs.clone())))
}

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunFigures {
    /// Optimiser steps taken in all.
    pub(crate) steps: usize,
    /// Of these the ones that changed nothing, since a gradient was not finite.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) skipped_steps: usize,
    /// The epoch whose weights were kept, from 1.
    pub(crate) kept_epoch: usize,
    /// The step after which they were; missing in older records.
    #[serde(default)]
    pub(crate) kept_step: usize,
    pub(crate) parameters: usize,
    /// Size of `model.safetensors` in bytes.
    pub(crate) bytes: u64,
    /// Scores on the validation rows; `None` if there are none.
    pub(crate) validation: Option<Scores>,
    /// The loss there; missing in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) validation_loss: Option<f64>,
    /// The share of each of several terms in the gradient when it was last measured; missing in older records.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) gradient_shares: Vec<(String, f64)>,
    /// Peak GPU memory of buffers in bytes, since the run was started or last resumed; `None` on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_peak_memory_bytes: Option<u64>,
    /// How a GPU computed products, if that was chosen by timing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) products: Option<ProductChoices>,
}

impl RunRecord {
    pub(crate) fn new(inputs: RunInputs, figures: RunFigures) -> Self {
        Self { schema_version: SCHEMA_VERSION, inputs, figures }
    }

    /// The record in a run's folder; `None` if there is none, an error if it cannot be read.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(RECORD);
        if !path.exists() {
            return Ok(None);
        }
        let text = files::read_to_string(&path)?;
        let version: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{}: no JSON", path.display()))?;
        let found = version["schema_version"].as_u64().unwrap_or(0);
        if !(1..=u64::from(SCHEMA_VERSION)).contains(&found) {
            anyhow::bail!(
                "{}: schema_version is {found}, this build reads {SCHEMA_VERSION}; update distill, or train again",
                path.display()
            );
        }
        let record: Self =
            serde_json::from_str(&text).with_context(|| format!("{}: not a run's record", path.display()))?;
        Ok(Some(record.in_this_version()))
    }

    /// The same as this version would have it, without what an earlier one understood in another way.
    pub(crate) fn in_this_version(mut self) -> Self {
        if let Some(scores) = self.figures.validation.as_mut().filter(|_| self.schema_version < 2) {
            scores.macro_f1 = None;
        }
        Self { schema_version: SCHEMA_VERSION, ..self }
    }

    /// Writes the record. It is the last file of a run: if it exists, the run is complete.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(files::write_whole(&folder.join(RECORD), json.as_bytes())?)
    }
}
