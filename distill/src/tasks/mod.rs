//! Tasks: what a model is to tell of a text. Each has a file with its head, its targets, its loss terms, its scores, and
//! what is said of a prediction or on a card; whatever depends on the task is asked here and answered there. A new task is
//! a file, a variant of [`Task`] and, where its rows ask in another way, one of [`Targets`].

mod common;
mod masked_lm;
pub(crate) mod single_label;

use cache::{Dtype, Fingerprint, Masks, Outputs, Preprocessing};
use datasets::{Encodings, LabelNames, Masking, TextTokenizer};
use nn::Model;
use nn::hf::HfConfig;
use teacher::HubOptions;

use crate::model::TextModel;
use crate::objective::LossTermRecipe;
use crate::scores::Evaluated;
pub(crate) use common::{Questions, Source, Start, StoredByDefault};

/// What a model is to tell of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Task {
    /// Which of several classes it belongs to.
    SingleLabel,
    /// What stood at tokens that are masked.
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

    /// The task that a cache was made for, as far as its keys follow from it.
    pub(crate) fn of_cache(fingerprint: &Fingerprint) -> Self {
        fingerprint.preprocessing.masks().map_or(Self::SingleLabel, Self::MaskedLm)
    }

    /// What is done to a text before a teacher reads it: to be changed when that changes.
    pub(crate) fn preprocessing(self) -> Preprocessing {
        match self {
            Self::SingleLabel => Preprocessing::none(),
            Self::MaskedLm(masked) => Preprocessing::Masked { masked },
        }
    }

    /// How rows are masked, where they are.
    pub(crate) fn masks(self) -> Option<Masks> {
        match self {
            Self::SingleLabel => None,
            Self::MaskedLm(masks) => Some(masks),
        }
    }

    /// Loads a model that has the task's head; `label_names` for a model without names of its own.
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

    /// Loads a model and rows to fine-tune it on; what the model lacks of the head starts at random.
    pub(crate) fn start(self, source: &Source<'_>) -> anyhow::Result<Start> {
        match self {
            Self::SingleLabel => single_label::start(source),
            Self::MaskedLm(_) => masked_lm::start(source),
        }
    }

    /// The class names that labels are matched with; none where labels do not matter.
    pub(crate) fn class_names(self, config: &HfConfig) -> anyhow::Result<Option<LabelNames>> {
        match self {
            Self::SingleLabel => Ok(Some(LabelNames::new(config.labels.clone())?)),
            Self::MaskedLm(_) => Ok(None),
        }
    }

    /// What is learned from without a teacher.
    pub(crate) fn terms_without_teacher(self) -> Vec<LossTermRecipe> {
        match self {
            Self::SingleLabel | Self::MaskedLm(_) => vec![LossTermRecipe::HardLabel { weight: 1.0 }],
        }
    }

    /// What is stored of a teacher's answers unless told otherwise.
    pub(crate) fn stored_by_default(self) -> StoredByDefault {
        match self {
            Self::SingleLabel => StoredByDefault { outputs: Outputs::Row, top_k: None, dtype: Dtype::F32 },
            Self::MaskedLm(_) => masked_lm::STORED_BY_DEFAULT,
        }
    }

    /// Most tokens of a forward batch in a capture, where so many are asked for.
    pub(crate) fn batch_tokens(self, asked: usize) -> usize {
        match self {
            Self::SingleLabel => asked,
            Self::MaskedLm(_) => asked.min(masked_lm::MOST_BATCH_TOKENS),
        }
    }

    /// The task in the tokens of a model.
    pub(crate) fn targets(self, tokenizer: &TextTokenizer) -> anyhow::Result<Targets> {
        Ok(match self {
            Self::SingleLabel => Targets::Labels,
            Self::MaskedLm(masks) => Targets::MaskedTokens(masked_lm::masking(masks, tokenizer)?),
        })
    }
}

/// What rows ask of a model, and what answers them.
pub(crate) enum Targets {
    /// Each row asks for its label.
    Labels,
    /// Each row asks what stood at its masked tokens.
    MaskedTokens(Masking),
}

impl Targets {
    /// Rows of a data set, as this pass over the data asks them.
    pub(crate) fn ask(&self, pass: u64, encodings: &Encodings, labels: &[Option<u32>], rows: &[u32]) -> Questions {
        match self {
            Self::Labels => single_label::ask(encodings, labels, rows),
            Self::MaskedTokens(masking) => masked_lm::ask(masking, pass, encodings, rows),
        }
    }

    /// Rows as a teacher reads them, from which their keys are made.
    pub(crate) fn read_by_teacher(&self, encodings: Encodings) -> Encodings {
        match self {
            Self::Labels => encodings,
            Self::MaskedTokens(masking) => masking.masked(0, &encodings),
        }
    }

    /// How good a model's answers are; `teacher` has what the teacher chose for each row, where that is known.
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
            Self::MaskedTokens(masking) => masked_lm::score(model, masking, encodings, batch_tokens),
        }
    }
}
