//! What a reader makes of a line.

use super::rest::Rest;
use std::ops::ControlFlow;

/// One labelled text, or a pair of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The text, or the first of two. Never blank.
    pub text: String,
    /// The second text where the task is about pairs.
    pub text_b: Option<String>,
    /// The label as the file spells it, alike in every format: a JSON number by its digits. Which class it stands for is
    /// settled by [`reconcile`](crate::reconcile).
    pub label: Option<String>,
    /// The line of the file that the row starts on, from 1.
    pub line: usize,
}

/// What a label may be.
pub(super) const EXPECTED_LABEL: &str = "a string, a number, a truth value, or null for no label";

/// Takes the rows of a file in order, each with its other columns.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Row, Rest<'_>) -> ControlFlow<()>;

/// What a reader returns: the name of the label column, where nobody asked for it and it is not called `label`.
pub(super) type GuessedLabel = Option<String>;
