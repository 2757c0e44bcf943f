//! Fine-tunes a model on labelled rows, or on texts for masked-language modelling.

use std::path::Path;

use nn::{Compute, Model};

use super::run_folder::{Existing, finish};
use super::student::prune;
use super::train::Trained;
use crate::data::Split;
use crate::fingerprint;
use crate::model;
use crate::objective::{self, LossTermRecipe, Objective};
use crate::recipe::{FitRecipe, Subject};
use crate::run_record::RunInputs;
use crate::tasks::{Source, Start, Task};
use crate::training::{Fit, FitRows};

/// A fine-tuning run, with everything that determines its result.
pub(crate) struct Finetuning<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) task: Task,
    pub(crate) prune_vocabulary: bool,
    pub(crate) dropout: f64,
    pub(crate) objective: Vec<LossTermRecipe>,
    pub(crate) fit: FitRecipe,
    pub(crate) output: &'a Path,
    /// Whether to write event files for TensorBoard.
    pub(crate) tensorboard: bool,
    pub(crate) compute: &'a Compute,
}

impl Finetuning<'_> {
    /// Trains, writes the model and its record.
    pub(crate) fn run(self, existing: Existing) -> anyhow::Result<Trained> {
        self.fit.check()?;
        objective::check(&self.objective, self.dropout)?;
        self.task.check(&self.objective)?;
        // Before the model is read.
        self.fit.on(self.compute)?;
        let mut start = self.task.start(&self.source)?;
        let encoder = &mut start.model.config.encoder;
        *encoder = encoder.clone().with_dropout(self.dropout as f32);
        let max_length = start.model.max_length(self.source.columns.max_length)?;
        let weights = teacher::weights_hash(&start.model.parameters);
        if self.prune_vocabulary {
            prune(&mut start.model, &start.train, max_length)?;
            start = self.task.read_again(&self.source, start)?;
        }
        let Start { model, train, validation } = start;
        let objective = Objective::new(&self.objective, &model.config.labels, &train.labels)?;
        let targets = self.task.targets(&model.tokenizer)?;
        let fit_rows = |split: Split| -> anyhow::Result<FitRows> {
            let rows = FitRows::of(&model.tokenizer, &split, max_length)?;
            model::report_truncated(rows.encodings.truncated_count(), rows.encodings.len(), max_length);
            Ok(rows)
        };
        let train = fit_rows(train)?;
        let subject = Subject { rows: train.encodings.len(), width: model.config.encoder.hidden_size, trained: true };
        let fit = self.fit.suited_to(subject).on(self.compute)?;
        let validation = fit_rows(validation)?;
        let inputs = RunInputs {
            command: "finetune".to_string(),
            distill: env!("CARGO_PKG_VERSION").to_string(),
            model: weights,
            config: fingerprint::of_config(&model.config.encoder),
            tokenizer: fingerprint::of_tokenizer(&model.tokenizer),
            clean: None,
            augment: Vec::new(),
            train: fingerprint::of_rows(&train.encodings, &train.labels),
            validation: fingerprint::of_rows(&validation.encodings, &validation.labels),
            labels: model.config.labels.clone(),
            max_length,
            teacher_max_length: None,
            objective: self.objective,
            student: None,
            student_weights: None,
            student_projections: None,
            prune_vocabulary: self.prune_vocabulary,
            teacher_logits: None,
            stored_hidden_states: false,
            mask_probability: self.task.masks().map(|masks| masks.probability),
            mask_seed: None,
            fit: fit.clone(),
            device: self.compute.kind().to_string(),
            precision: self.compute.precision(),
        };
        if let Some(figures) = existing.prepare(self.output, &inputs)? {
            return Ok(Trained { figures, speed: None, estimate: None });
        }
        let mut student = Model::on(self.compute, model.config, model.parameters)?;
        let fitted = Fit {
            objective: &objective,
            train: &train,
            validation: &validation,
            targets: &targets,
            cache: None,
            maps: None,
            recipe: &fit,
            inputs: &inputs,
            folder: self.output,
            resume: existing.resumes(),
            tensorboard: self.tensorboard,
            defaults: self.fit.suited_in_words(subject),
            way_on: existing.way_on(),
        }
        .run(&mut student, None)?;
        let figures = finish(self.output, &student, &model.tokenizer, inputs, &fitted)?;
        Ok(Trained { figures, speed: Some(fitted.speed), estimate: Some(fitted.estimate) })
    }
}
