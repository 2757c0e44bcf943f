//! What is learned from and measured on, and how its files are read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is learned from and measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataRecipe {
    pub(crate) train: PathBuf,
    pub(crate) validation: Option<PathBuf>,
    /// Rows for the final figures; the validation rows where there are none.
    pub(crate) test: Option<PathBuf>,
    pub(crate) text_column: Option<String>,
    pub(crate) pair_column: Option<String>,
    pub(crate) label_column: Option<String>,
    #[serde(default)]
    pub(crate) label_names: Vec<String>,
    pub(crate) max_length: Option<usize>,
}

impl DataRecipe {
    pub(crate) fn columns(&self) -> ColumnsRecipe {
        ColumnsRecipe {
            text_column: self.text_column.clone(),
            pair_column: self.pair_column.clone(),
            label_column: self.label_column.clone(),
            label_names: self.label_names.clone(),
            max_length: self.max_length,
        }
    }
}

/// How a data file is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ColumnsRecipe {
    pub(crate) text_column: Option<String>,
    pub(crate) pair_column: Option<String>,
    pub(crate) label_column: Option<String>,
    pub(crate) label_names: Vec<String>,
    pub(crate) max_length: Option<usize>,
}
