//! What programs compute: values, their rows, and the places at which they can be read.

use std::fmt;

/// A place in a model whose value can be read and at which a gradient can enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tap {
    /// Before softmax: `[B, labels]`, or `[P, vocabulary]` of a masked-language model.
    Logits,
    /// The first tokens behind the pooler, `[B, hidden]`; BERT alone has one.
    Pooled,
    /// What enters the first layer (0), or the output of a layer (from 1): `[T, hidden]`.
    Hidden(usize),
    /// The queries of a layer (from 0), all heads side by side: `[T, hidden]`.
    Query(usize),
    /// The keys of a layer: `[T, hidden]`.
    Key(usize),
    /// The values of a layer: `[T, hidden]`.
    Value(usize),
}

impl Tap {
    /// All hidden states of a model with this many layers, the embeddings' output included.
    pub fn hidden_states(layers: usize) -> impl Iterator<Item = Self> {
        (0..=layers).map(Self::Hidden)
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logits => write!(f, "logits"),
            Self::Pooled => write!(f, "pooled"),
            Self::Hidden(index) => write!(f, "hidden {index}"),
            Self::Query(layer) => write!(f, "query {layer}"),
            Self::Key(layer) => write!(f, "key {layer}"),
            Self::Value(layer) => write!(f, "value {layer}"),
        }
    }
}

/// The rows that a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rows {
    /// One a token.
    Tokens,
    /// One a text: its first token.
    First,
    /// One for each token that a masked-language model is asked about.
    Positions,
}

impl Rows {
    pub(crate) const ALL: [Self; 3] = [Self::Tokens, Self::First, Self::Positions];
}

/// A value of a program, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ValueId(pub(crate) usize);

/// A matrix that an operation makes, `[rows, width]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    pub(crate) rows: Rows,
    pub(crate) width: usize,
}

/// Neighbouring columns of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) value: ValueId,
    /// The first of them.
    pub(crate) first: usize,
    pub(crate) width: usize,
}
