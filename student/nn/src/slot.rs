//! The parameters of models, whatever their family calls them.

/// A parameter, whatever its family calls it.
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
    /// `[hidden, embedding]`, or `[hidden, 3 * embedding]` of three neighbours.
    EmbeddingProjectionWeight,
    /// `[hidden]`
    EmbeddingProjectionBias,
    /// A parameter of the layer with this index.
    Layer(usize, LayerSlot),
    /// `[hidden, hidden]`: the first linear map of the classification head.
    HeadDenseWeight,
    /// `[hidden]`
    HeadDenseBias,
    /// `[labels, hidden]`: the last linear map.
    HeadOutputWeight,
    /// `[labels]`
    HeadOutputBias,
    /// `[hidden, hidden]`: the linear map of the masked-language-model head. Its output matrix is [`WordEmbeddings`](Self::WordEmbeddings).
    LmDenseWeight,
    /// `[hidden]`
    LmDenseBias,
    /// `[hidden]`
    LmNormWeight,
    /// `[hidden]`
    LmNormBias,
    /// `[hidden - embedding, vocabulary]`: what meets the columns that the word embeddings are too narrow for.
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

/// A parameter of a feed-forward part that stands before the last one of its layer.
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
