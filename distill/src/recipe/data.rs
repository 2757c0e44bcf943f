//! Training, validation and test data, and how their files are read.

use std::path::{Path, PathBuf};

use datasets::Quotes;
use serde::{Deserialize, Serialize};

use super::AugmentRecipe;
use super::clean::CleanRecipe;
use super::label_names::LabelNameList;

/// Training, validation and test data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataRecipe {
    pub(crate) train: PathBuf,
    pub(crate) validation: Option<PathBuf>,
    /// Texts that the student learns from as well, without labels.
    pub(crate) unlabelled: Option<PathBuf>,
    /// Rows for the final figures; the validation rows where there are none.
    pub(crate) test: Option<PathBuf>,
    pub(crate) text_column: Option<String>,
    pub(crate) pair_column: Option<String>,
    pub(crate) label_column: Option<String>,
    /// What stands in the label's column of a row that has no label.
    pub(crate) unlabelled_value: Option<String>,
    pub(crate) quotes: Option<Quotes>,
    /// A list, or `@FILE` with one a line.
    #[serde(default)]
    pub(crate) label_names: LabelNameList,
    pub(crate) max_length: Option<usize>,
    /// Ways to make new texts of the training rows and of `unlabelled`, which the student learns from without labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) augment: Vec<AugmentRecipe>,
    /// Words of Chinese texts for `augment`, as in jieba's dictionary.
    pub(crate) dictionary: Option<PathBuf>,
    /// What is done to the training rows before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clean: Option<CleanRecipe>,
}

impl DataRecipe {
    /// Where training and validation rows are from, for messages.
    pub(crate) fn origins(&self) -> [&Path; 2] {
        [&self.train, self.validation.as_ref().unwrap_or(&self.train)]
    }

    pub(crate) fn columns(&self) -> ColumnsRecipe {
        ColumnsRecipe {
            text_column: self.text_column.clone(),
            pair_column: self.pair_column.clone(),
            label_column: self.label_column.clone(),
            unlabelled_value: self.unlabelled_value.clone(),
            quotes: self.quotes,
            label_names: self.label_names.0.clone(),
            max_length: self.max_length,
        }
    }
}

/// How a data file is read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ColumnsRecipe {
    pub(crate) text_column: Option<String>,
    pub(crate) pair_column: Option<String>,
    pub(crate) label_column: Option<String>,
    pub(crate) unlabelled_value: Option<String>,
    pub(crate) quotes: Option<Quotes>,
    pub(crate) label_names: Vec<String>,
    pub(crate) max_length: Option<usize>,
}
