//! Tasks: what a model is trained to predict. Each has a file with its head, targets, default loss terms, scores, and
//! the text of predictions and model cards; this module dispatches to them. A new task is a file, a variant of [`Task`]
//! and, if its targets are of a new kind, one of [`Targets`].

mod common;
pub(crate) mod masked_lm;
pub(crate) mod single_label;

use anyhow::bail;
use cache::{Captured, Dtype, Fingerprint, Masks, Outputs, Preprocessing};
use datasets::{Encodings, Key, LabelNames, Masking, TextTokenizer};
use nn::hf::HfConfig;
use nn::{Compute, Model};
use teacher::HubOptions;

use crate::model::TextModel;
use crate::objective::{LossTermRecipe, about_classes};
use crate::recipe::Metric;
use crate::scores::Evaluated;
pub(crate) use common::{Questions, Source, Start, StoredByDefault};

/// What a model is trained to predict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Task {
    /// One of several classes for each text.
    SingleLabel,
    /// The original tokens at masked positions.
    MaskedLm(Masks),
}

impl Task {
    /// The name in fingerprints.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SingleLabel => "single_label",
            Self::MaskedLm(_) => "masked_lm",
        }
    }

    /// The task that a cache was made for, as far as it affects the keys.
    pub(crate) fn of_cache(fingerprint: &Fingerprint) -> Self {
        fingerprint.preprocessing.masks().map_or(Self::SingleLabel, Self::MaskedLm)
    }

    /// How tokens are changed before the teacher reads them; part of the fingerprint of a cache.
    pub(crate) fn preprocessing(self) -> Preprocessing {
        match self {
            Self::SingleLabel => Preprocessing::none(),
            Self::MaskedLm(masked) => Preprocessing::Masked { masked },
        }
    }

    /// The parameters of the masks, if rows are masked.
    pub(crate) fn masks(self) -> Option<Masks> {
        match self {
            Self::SingleLabel => None,
            Self::MaskedLm(masks) => Some(masks),
        }
    }

    /// Refuses terms with options that this task has no use for.
    pub(crate) fn check(self, terms: &[LossTermRecipe]) -> anyhow::Result<()> {
        match (self, about_classes(terms)) {
            (Self::MaskedLm(_), Some(flag)) => {
                bail!("{flag} goes with --task single-label: it is about classes of rows, not about masked tokens")
            }
            _ => Ok(()),
        }
    }

    /// Loads a model that has the task's head; `label_names` are for a model without class names.
    pub(crate) fn load(self, name: &str, hub: &HubOptions, label_names: &[String]) -> anyhow::Result<TextModel> {
        match self {
            Self::SingleLabel => {
                let mut model = single_label::load(name, hub)?;
                single_label::name_labels(&mut model, label_names)?;
                Ok(model)
            }
            Self::MaskedLm(_) => masked_lm::load(name, hub),
        }
    }

    /// Loads a model and rows to fine-tune it on; missing parameters of the head are initialised at random.
    pub(crate) fn start(self, source: &Source<'_>) -> anyhow::Result<Start> {
        match self {
            Self::SingleLabel => single_label::start(source),
            Self::MaskedLm(_) => masked_lm::start(source),
        }
    }

    /// Reads the rows again for a model whose vocabulary is another one by now.
    pub(crate) fn read_again(self, source: &Source<'_>, start: Start) -> anyhow::Result<Start> {
        match self {
            Self::SingleLabel => Ok(start),
            Self::MaskedLm(_) => {
                let (train, validation) = masked_lm::read(source, &start.model)?;
                Ok(Start { train, validation, ..start })
            }
        }
    }

    /// The class names to match labels with; `None` for tasks without labels.
    pub(crate) fn class_names(self, config: &HfConfig) -> anyhow::Result<Option<LabelNames>> {
        match self {
            Self::SingleLabel => Ok(Some(LabelNames::new(config.labels.clone())?)),
            Self::MaskedLm(_) => Ok(None),
        }
    }

    /// What a capture stores by default.
    pub(crate) fn stored_by_default(self) -> StoredByDefault {
        match self {
            Self::SingleLabel => StoredByDefault { outputs: Outputs::Row, top_k: None, dtype: Dtype::F32 },
            Self::MaskedLm(_) => masked_lm::STORED_BY_DEFAULT,
        }
    }

    /// The maximum tokens per forward pass in a capture of this form, given the requested number.
    pub(crate) fn batch_tokens(self, asked: usize, captured: &Captured, compute: &Compute) -> usize {
        match self {
            Self::SingleLabel => asked,
            Self::MaskedLm(_) => asked.min(masked_lm::most_batch_tokens(captured, compute)),
        }
    }

    /// The targets of this task, for a model with this tokenizer.
    pub(crate) fn targets(self, tokenizer: &TextTokenizer) -> anyhow::Result<Targets> {
        Ok(match self {
            Self::SingleLabel => Targets::Labels,
            Self::MaskedLm(masks) => Targets::MaskedTokens(masked_lm::masking(masks, tokenizer)?),
        })
    }
}

/// What a model predicts for each row, and the correct answers.
pub(crate) enum Targets {
    /// The label of each row.
    Labels,
    /// The original tokens at the masked positions of each row.
    MaskedTokens(Masking),
    /// The same at the positions of the first pass in every pass, which are those that a cache has the answers to.
    SameMaskedTokens(Masking),
}

impl Targets {
    /// With the same masks in every pass over the rows.
    pub(crate) fn same_in_every_pass(self) -> Self {
        match self {
            Self::MaskedTokens(masking) => Self::SameMaskedTokens(masking),
            other => other,
        }
    }

    /// Model inputs and targets for these rows in this pass over the data, each row in so many views; masked tokens are
    /// always in one.
    pub(crate) fn ask(
        &self,
        pass: u64,
        encodings: &Encodings,
        labels: &[Option<u32>],
        rows: &[u32],
        views: usize,
    ) -> Questions {
        match self {
            Self::Labels => single_label::ask(encodings, labels, rows, views),
            Self::MaskedTokens(masking) => masked_lm::ask(masking, pass, encodings, rows),
            Self::SameMaskedTokens(masking) => masked_lm::ask(masking, 0, encodings, rows),
        }
    }

    /// The rows as the teacher reads them; their keys are made from these.
    pub(crate) fn read_by_teacher(&self, encodings: Encodings) -> Encodings {
        match self {
            Self::Labels => encodings,
            Self::MaskedTokens(masking) | Self::SameMaskedTokens(masking) => masking.masked(0, &encodings),
        }
    }

    /// The keys of rows as the teacher reads them.
    pub(crate) fn keys(&self, encodings: &Encodings) -> Vec<Key> {
        match self {
            Self::Labels => encodings.keys(),
            Self::MaskedTokens(masking) | Self::SameMaskedTokens(masking) => masking.keys(0, encodings),
        }
    }

    /// The figures of an evaluation, of rows with labels and of rows that a teacher has answered.
    pub(crate) fn metrics(&self, labelled: bool, answered: bool) -> Vec<Metric> {
        match self {
            Self::Labels => {
                let of_labels = [Metric::Accuracy, Metric::MacroF1, Metric::Loss, Metric::Ece];
                let of_labels = of_labels.into_iter().filter(|_| labelled);
                let of_answers = [Metric::Agreement].into_iter().filter(|_| answered);
                let loss = [Metric::Loss].into_iter().filter(|_| answered && !labelled);
                of_labels.chain(of_answers).chain(loss).collect()
            }
            Self::MaskedTokens(_) | Self::SameMaskedTokens(_) => vec![Metric::Accuracy, Metric::Loss],
        }
    }

    /// Scores a model's predictions; `teacher` has the teacher's predicted class for each row, if known.
    pub(crate) fn score(
        &self,
        model: &mut Model,
        encodings: &Encodings,
        labels: &[Option<u32>],
        teacher: impl FnOnce() -> anyhow::Result<Option<Vec<u32>>>,
        batch_tokens: usize,
    ) -> anyhow::Result<Evaluated> {
        match self {
            Self::Labels => single_label::score(model, encodings, labels, teacher, batch_tokens),
            Self::MaskedTokens(masking) | Self::SameMaskedTokens(masking) => {
                masked_lm::score(model, masking, encodings, batch_tokens)
            }
        }
    }
}
