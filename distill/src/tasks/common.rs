//! Types that all tasks share.

use std::path::Path;

use cache::{Dtype, Outputs};
use datasets::TokenBatch;
use teacher::HubOptions;

use crate::data::Split;
use crate::model::TextModel;
use crate::recipe::ColumnsRecipe;

/// The model to fine-tune and its data, as given by the user.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) model: &'a str,
    pub(crate) hub: &'a HubOptions,
    pub(crate) data: &'a Path,
    /// Without it, a tenth of the data is held out.
    pub(crate) validation: Option<&'a Path>,
    pub(crate) columns: &'a ColumnsRecipe,
    /// Whether texts are cut into rows one behind the other.
    pub(crate) pack: bool,
    /// Seed for parameters that are initialised at random.
    pub(crate) seed: u64,
}

/// A model with the task's head, and rows with their targets.
pub(crate) struct Start {
    pub(crate) model: TextModel,
    pub(crate) train: Split,
    pub(crate) validation: Split,
}

/// What a capture stores by default.
pub(crate) struct StoredByDefault {
    pub(crate) outputs: Outputs,
    /// Store only this many of the largest logits.
    pub(crate) top_k: Option<usize>,
    pub(crate) dtype: Dtype,
}

/// Model inputs with their targets.
pub(crate) struct Questions {
    pub(crate) batch: TokenBatch,
    /// The tokens to predict; `None` if there is one prediction per row.
    pub(crate) positions: Option<Vec<u32>>,
    /// The target of each prediction, if known; where rows are in the batch in several views, one for all of them.
    pub(crate) answers: Vec<Option<u32>>,
}
