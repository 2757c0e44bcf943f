//! The rows of a training.

use datasets::{Encodings, Key};

/// Rows as a model in training sees them.
pub(crate) struct FitRows {
    pub(crate) encodings: Encodings,
    pub(crate) labels: Vec<Option<u32>>,
    /// Under which the teacher's logits are stored.
    pub(crate) keys: Vec<Key>,
}
