//! The teacher of a training: a model, or what a cache of its answers keeps of one that is not here.

use std::path::Path;

use anyhow::Context;
use cache::{CacheReader, Captured, Dtype, Fingerprint};
use datasets::{Encodings, LabelNames, Row, TextTokenizer, TokenizerFiles};
use nn::Compute;

use super::capture::TOKENIZER;
use crate::fingerprint;
use crate::hint::HintExt;
use crate::model::TextModel;
use crate::recipe::ColumnsRecipe;
use crate::tasks::Task;

/// Who answers, as far as a training has to know.
pub(crate) enum Teacher {
    /// A model, with the number of tokens that it reads of a text.
    Model(Box<TextModel>, usize),
    /// The fingerprint and the tokenizer that its cache keeps.
    Cached(Box<Fingerprint>, Box<TextTokenizer>),
}

impl Teacher {
    /// A model that reads this many tokens of a text, or as many as suit it.
    pub(crate) fn of_model(model: TextModel, max_length: Option<usize>) -> anyhow::Result<Self> {
        let max_length = model.max_length(max_length)?;
        Ok(Self::Model(Box::new(model), max_length))
    }

    /// What a cache tells of the teacher that filled it.
    pub(crate) fn of_cache(folder: &Path, columns: &ColumnsRecipe) -> anyhow::Result<Self> {
        let reader = CacheReader::open(folder, None)?;
        let fingerprint = reader.fingerprint().clone();
        if !matches!(Task::of_cache(&fingerprint), Task::SingleLabel) {
            anyhow::bail!("{}: holds the answers of a masked-language model, not of a classifier", folder.display());
        }
        if !columns.label_names.is_empty() && columns.label_names != fingerprint.labels {
            anyhow::bail!("{}: knows its class names; leave --label-names out", folder.display());
        }
        let json = reader.attachment(TOKENIZER)?;
        let json = json
            .with_context(|| format!("{}: keeps no {TOKENIZER} to read rows as its teacher does", folder.display()))
            .hint("give --teacher")?;
        let tokenizer =
            TextTokenizer::from_files(&TokenizerFiles { tokenizer_json: Some(&json), ..Default::default() })?;
        Ok(Self::Cached(Box::new(fingerprint), Box::new(tokenizer)))
    }

    /// The classes, in the order of its logits.
    pub(crate) fn names(&self) -> anyhow::Result<LabelNames> {
        let labels = match self {
            Self::Model(model, _) => &model.config.labels,
            Self::Cached(fingerprint, _) => &fingerprint.labels,
        };
        Ok(LabelNames::new(labels.clone())?)
    }

    /// How it reads a text.
    pub(crate) fn tokenizer(&self) -> &TextTokenizer {
        match self {
            Self::Model(model, _) => &model.tokenizer,
            Self::Cached(_, tokenizer) => tokenizer,
        }
    }

    /// Tokens that it reads of a text.
    pub(crate) fn max_length(&self) -> usize {
        match self {
            Self::Model(_, max_length) => *max_length,
            Self::Cached(fingerprint, _) => fingerprint.max_length,
        }
    }

    /// Rows as it reads them: what keys are made of.
    pub(crate) fn encode(&self, rows: &[Row]) -> anyhow::Result<Encodings> {
        Ok(self.tokenizer().encode(rows, self.max_length())?)
    }

    /// The fingerprint that a cache of its answers has to have, whatever form they are stored in.
    pub(crate) fn fingerprint(&self, task: Task, compute: &Compute) -> Fingerprint {
        match self {
            Self::Model(model, max_length) => {
                // Whatever the teacher computed in, a student learns from it.
                let (captured, precision) =
                    (Captured::dense(model.config.labels.len(), Dtype::F32), compute.precision());
                fingerprint::of_teacher(model, *max_length, task, &precision.to_string(), captured)
            }
            Self::Cached(fingerprint, _) => (**fingerprint).clone(),
        }
    }

    /// Hash of its weights, for a run's record.
    pub(crate) fn weights_hash(&self) -> String {
        match self {
            Self::Model(model, _) => teacher::weights_hash(&model.parameters),
            Self::Cached(fingerprint, _) => fingerprint.teacher.clone(),
        }
    }
}
