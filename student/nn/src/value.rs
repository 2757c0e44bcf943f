//! The values of a program, their rows, and the taps at which they can be read.

use std::fmt;

/// A point in a model where a value can be read and a gradient can be set. `B` rows, `T` tokens, `P` masked tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tap {
    /// The logits, `[B, labels]`, or `[P, vocabulary]` of a masked-language model.
    Logits,
    /// The output of the pooler on each row's first token, `[B, hidden]`; only in models with a pooler.
    Pooled,
    /// Hidden states, `[T, hidden]`: 0 is the input of the first layer, `i` the output of layer `i`, counted from 1.
    Hidden(usize),
    /// The queries of a layer (counted from 0), all heads concatenated: `[T, hidden]`, in MobileBERT `[T, bottleneck]`.
    Query(usize),
    /// The keys of a layer, with the same shape.
    Key(usize),
    /// The values of a layer, with the same shape.
    Value(usize),
}

impl Tap {
    /// All hidden states of a model with this many layers, including the output of the embeddings.
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

/// The set of rows that a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rows {
    /// One per token.
    Tokens,
    /// One per text: its first token.
    First,
    /// One per masked token of a masked-language model.
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
