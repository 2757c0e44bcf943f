//! Identifiers for the parameters of a model, independent of the names in its family.

/// A parameter, identified by its role; each comment is its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// `[vocabulary, embedding]`
    WordEmbeddings,
    /// `[positions, embedding]`
    PositionEmbeddings,
    /// `[types, embedding]`; not in DistilBERT.
    TypeEmbeddings,
    /// `[embedding]`
    EmbeddingNormWeight,
    /// `[embedding]`
    EmbeddingNormBias,
    /// `[hidden, embedding]`, or `[hidden, 3 * embedding]` with trigrams.
    EmbeddingProjectionWeight,
    /// `[hidden]`
    EmbeddingProjectionBias,
    /// A parameter of the layer with this index.
    Layer(usize, LayerSlot),
    /// `[hidden, hidden]`: the first linear layer of the classification head (BERT's pooler).
    HeadDenseWeight,
    /// `[hidden]`
    HeadDenseBias,
    /// `[labels, hidden]`: the classifier.
    HeadOutputWeight,
    /// `[labels]`
    HeadOutputBias,
    /// `[hidden, hidden]`: the linear layer of the masked-language-model head, whose output matrix is
    /// [`WordEmbeddings`](Self::WordEmbeddings).
    LmDenseWeight,
    /// `[hidden]`
    LmDenseBias,
    /// `[hidden]`
    LmNormWeight,
    /// `[hidden]`
    LmNormBias,
    /// `[hidden - embedding, vocabulary]`: the rest of the output matrix, if the word embeddings are narrower than the
    /// hidden states.
    LmRestWeight,
    /// `[vocabulary]`
    LmOutputBias,
}

/// A parameter of one encoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it; shapes stand in `Layout`")]
pub enum LayerSlot {
    QueryWeight,
    KeyWeight,
    ValueWeight,
    QueryBias,
    KeyBias,
    ValueBias,
    AttentionOutputWeight,
    AttentionOutputBias,
    AttentionNormWeight,
    AttentionNormBias,
    IntermediateWeight,
    IntermediateBias,
    OutputWeight,
    OutputBias,
    OutputNormWeight,
    OutputNormBias,
    InputBottleneckWeight,
    InputBottleneckBias,
    InputBottleneckNormWeight,
    InputBottleneckNormBias,
    AttentionBottleneckWeight,
    AttentionBottleneckBias,
    AttentionBottleneckNormWeight,
    AttentionBottleneckNormBias,
    OutputBottleneckWeight,
    OutputBottleneckBias,
    OutputBottleneckNormWeight,
    OutputBottleneckNormBias,
    FeedForward(usize, FeedForwardSlot),
}

/// A parameter of a feed-forward block other than the last one of its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it; shapes stand in `Layout`")]
pub enum FeedForwardSlot {
    IntermediateWeight,
    IntermediateBias,
    OutputWeight,
    OutputBias,
    OutputNormWeight,
    OutputNormBias,
}

impl Slot {
    /// Whether it is the scale of a norm, which starts at one.
    pub(crate) fn is_norm_weight(self) -> bool {
        use LayerSlot::*;
        matches!(
            self,
            Self::EmbeddingNormWeight
                | Self::LmNormWeight
                | Self::Layer(
                    _,
                    AttentionNormWeight
                        | OutputNormWeight
                        | InputBottleneckNormWeight
                        | AttentionBottleneckNormWeight
                        | OutputBottleneckNormWeight
                        | FeedForward(_, FeedForwardSlot::OutputNormWeight)
                )
        )
    }
}

/// A parameter, or several that stand side by side in the flat buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub(crate) first: Slot,
    pub(crate) last: Slot,
}

impl Span {
    /// From this one's first to the other one's last.
    pub(crate) fn to(self, other: Self) -> Self {
        Self { first: self.first, last: other.last }
    }
}

impl From<Slot> for Span {
    fn from(slot: Slot) -> Self {
        Self { first: slot, last: slot }
    }
}
