//! The teacher of a training run: a model, or the cache of its logits where the model is not available.

use std::path::Path;

use cache::{CacheReader, Captured, Dtype, Fingerprint};
use datasets::{Key, LabelNames, TextTokenizer};
use nn::{Compute, EncoderConfig};

use super::cache::keys::{RowKeys, refuse_other_names};
use crate::data::Split;
use crate::fingerprint;
use crate::model::TextModel;
use crate::recipe::ColumnsRecipe;
use crate::tasks::Task;

/// A teacher, as far as the training of a student needs it.
pub(crate) enum Teacher {
    /// The model, and the maximum length of its texts in tokens.
    Model(Box<TextModel>, usize),
    /// The fingerprint of the cache, and how it makes the keys of rows.
    Cached(Box<Fingerprint>, RowKeys),
}

impl Teacher {
    /// A model, with its texts truncated to this many tokens, or to the default.
    pub(crate) fn of_model(model: TextModel, max_length: Option<usize>) -> anyhow::Result<Self> {
        let max_length = model.max_length(max_length)?;
        Ok(Self::Model(Box::new(model), max_length))
    }

    /// The teacher whose logits are in a cache. An error if they are not a classifier's.
    pub(crate) fn of_cache(folder: &Path, columns: &ColumnsRecipe) -> anyhow::Result<Self> {
        let reader = CacheReader::open(folder, None)?;
        let fingerprint = reader.fingerprint().clone();
        if !matches!(Task::of_cache(&fingerprint), Task::SingleLabel) {
            anyhow::bail!(
                "{}: holds the answers of a masked-language model, which a student learns from with --task masked-lm and \
                 --teacher",
                folder.display()
            );
        }
        refuse_other_names(folder, &fingerprint, columns)?;
        let keys = RowKeys::of(folder, &reader)?;
        Ok(Self::Cached(Box::new(fingerprint), keys))
    }

    /// The classes, in the order of its logits.
    pub(crate) fn names(&self) -> anyhow::Result<LabelNames> {
        let labels = match self {
            Self::Model(model, _) => &model.config.labels,
            Self::Cached(fingerprint, _) => &fingerprint.labels,
        };
        Ok(LabelNames::new(labels.clone())?)
    }

    /// Its configuration; `None` if only its logits are here.
    pub(crate) fn encoder(&self) -> Option<&EncoderConfig> {
        match self {
            Self::Model(model, _) => Some(&model.config.encoder),
            Self::Cached(..) => None,
        }
    }

    /// Its tokenizer; `None` if the logits were imported.
    pub(crate) fn tokenizer(&self) -> Option<&TextTokenizer> {
        match self {
            Self::Model(model, _) => Some(&model.tokenizer),
            Self::Cached(_, RowKeys::Tokens { tokenizer, .. }) => Some(tokenizer),
            Self::Cached(_, RowKeys::Texts) => None,
        }
    }

    /// Maximum length of its texts in tokens; `None` if the logits were imported, which are of whole texts.
    pub(crate) fn max_length(&self) -> Option<usize> {
        match self {
            Self::Model(_, max_length) | Self::Cached(_, RowKeys::Tokens { max_length, .. }) => Some(*max_length),
            Self::Cached(_, RowKeys::Texts) => None,
        }
    }

    /// The cache keys of these rows, and how many of the rows are truncated.
    pub(crate) fn keys(&self, task: Task, rows: &Split) -> anyhow::Result<(Vec<Key>, usize)> {
        match self {
            Self::Model(model, max_length) => {
                let targets = task.targets(&model.tokenizer)?;
                let encodings = rows.encode(&model.tokenizer, *max_length)?;
                Ok((targets.keys(&encodings), encodings.truncated_count()))
            }
            Self::Cached(_, keys) => keys.keys(&rows.rows),
        }
    }

    /// The fingerprint that a cache of its logits must have; the form in which they are stored does not matter.
    pub(crate) fn fingerprint(&self, task: Task, compute: &Compute) -> Fingerprint {
        match self {
            Self::Model(model, max_length) => {
                // Whatever the teacher computed in, a student learns from it.
                let (captured, precision) =
                    (Captured::dense(model.config.encoder.outputs(), Dtype::F32), compute.precision());
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
