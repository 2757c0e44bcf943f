//! The rows of a training.

use datasets::{Encodings, Error, Key, Sampler, TextTokenizer};

use crate::data::Split;
use crate::recipe::FitRecipe;

/// Rows as a model in training sees them.
pub(crate) struct FitRows {
    pub(crate) encodings: Encodings,
    pub(crate) labels: Vec<Option<u32>>,
    /// Under which the teacher's logits are stored.
    pub(crate) keys: Vec<Key>,
    /// The same rows as a teacher beside the student reads them, if there is one.
    pub(crate) read_by_teacher: Option<ReadByTeacher>,
    /// Whether its hidden states are read from the cache instead.
    pub(crate) hidden_states_stored: bool,
}

/// What a teacher beside a student reads.
pub(crate) enum ReadByTeacher {
    /// These rows, of its own tokenizer.
    Rows(Encodings),
    /// What the student reads, with the masks of each step.
    Masked,
}

impl FitRows {
    /// Rows of at most so many tokens, without a teacher.
    pub(crate) fn of(tokenizer: &TextTokenizer, split: &Split, max_length: usize) -> Result<Self, Error> {
        Ok(Self {
            encodings: split.encode(tokenizer, max_length)?,
            labels: split.labels.clone(),
            keys: Vec::new(),
            read_by_teacher: None,
            hidden_states_stored: false,
        })
    }

    /// Their order in each epoch, and how they are batched: so many in a pass that all their views fit.
    pub(super) fn sampler(&self, recipe: &FitRecipe, views: usize) -> Result<Sampler, Error> {
        let batch_tokens = (recipe.batch_tokens() / views).max(1);
        let sampler = Sampler::new(self.encodings.lengths(), recipe.seed, recipe.batch_rows, batch_tokens)?;
        if recipe.unlabelled_rate.is_none() {
            return Ok(sampler);
        }
        let rows = 0..self.labels.len() as u32;
        let (labelled, others): (Vec<u32>, Vec<u32>) = rows.partition(|row| self.labels[*row as usize].is_some());
        let count = recipe.unlabelled_rows(labelled.len());
        Ok(sampler.mixing(labelled, others, count))
    }
}
