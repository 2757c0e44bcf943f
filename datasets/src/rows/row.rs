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

/// What a reader finds in a file.
pub(super) enum Found<'a> {
    /// The column of the labels, where it was chosen by a reader and is not called `label`. Comes once, before its rows.
    LabelColumn(String),
    /// With what else the file has of it.
    Row(Row, Rest<'a>),
}

/// What takes what is found, one after the other.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Found<'_>) -> ControlFlow<()>;
