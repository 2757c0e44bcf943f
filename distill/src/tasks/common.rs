//! What every task takes, and what it gives.

use std::path::Path;

use cache::{Dtype, Outputs};
use datasets::TokenBatch;
use teacher::HubOptions;

use crate::data::Split;
use crate::model::TextModel;
use crate::recipe::ColumnsRecipe;

/// A model and rows to fine-tune it on, as asked for.
pub(crate) struct Source<'a> {
    pub(crate) model: &'a str,
    pub(crate) hub: &'a HubOptions,
    pub(crate) data: &'a Path,
    /// A tenth of the data where there is none.
    pub(crate) validation: Option<&'a Path>,
    pub(crate) columns: &'a ColumnsRecipe,
    /// Of what starts at random.
    pub(crate) seed: u64,
}

/// A model with the task's head, and rows with the answers that the task takes from them.
pub(crate) struct Start {
    pub(crate) model: TextModel,
    pub(crate) train: Split,
    pub(crate) validation: Split,
}

/// What is stored of a teacher's answers unless told otherwise.
pub(crate) struct StoredByDefault {
    pub(crate) outputs: Outputs,
    /// The largest logits alone, this many.
    pub(crate) top_k: Option<usize>,
    pub(crate) dtype: Dtype,
}

/// Some rows as a model reads them, with what they ask.
pub(crate) struct Questions {
    pub(crate) batch: TokenBatch,
    /// The tokens that are asked about; none where the row itself is.
    pub(crate) positions: Option<Vec<u32>>,
    /// One for each question, where it is known.
    pub(crate) answers: Vec<Option<u32>>,
}
