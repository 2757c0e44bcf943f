//! The teacher of a training: a model, or what a cache of its answers keeps of one that is not here.

use std::path::Path;

use cache::{CacheReader, Captured, Dtype, Fingerprint};
use datasets::{Key, LabelNames, Row, TextTokenizer};
use nn::Compute;

use super::cache::keys::RowKeys;
use crate::fingerprint;
use crate::model::TextModel;
use crate::recipe::ColumnsRecipe;
use crate::tasks::Task;

/// Who answers, as far as a training has to know.
pub(crate) enum Teacher {
    /// A model, with the number of tokens that it reads of a text.
    Model(Box<TextModel>, usize),
    /// The fingerprint of its cache, and how that names rows.
    Cached(Box<Fingerprint>, RowKeys),
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

    /// How it reads a text; none where its answers were imported.
    pub(crate) fn tokenizer(&self) -> Option<&TextTokenizer> {
        match self {
            Self::Model(model, _) => Some(&model.tokenizer),
            Self::Cached(_, RowKeys::Tokens { tokenizer, .. }) => Some(tokenizer),
            Self::Cached(_, RowKeys::Texts) => None,
        }
    }

    /// Tokens that it reads of a text; none where its answers are to whole texts.
    pub(crate) fn max_length(&self) -> Option<usize> {
        match self {
            Self::Model(_, max_length) | Self::Cached(_, RowKeys::Tokens { max_length, .. }) => Some(*max_length),
            Self::Cached(_, RowKeys::Texts) => None,
        }
    }

    /// The keys that its answers to these rows have, and how many of the rows it cuts.
    pub(crate) fn keys(&self, rows: &[Row]) -> anyhow::Result<(Vec<Key>, usize)> {
        match self {
            Self::Model(model, max_length) => {
                let encodings = model.tokenizer.encode(rows, *max_length)?;
                Ok(((0..encodings.len()).map(|row| encodings.key(row)).collect(), encodings.truncated_count()))
            }
            Self::Cached(_, keys) => keys.keys(rows),
        }
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
