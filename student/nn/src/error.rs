//! What can be wrong with a model's description, its tensors or a batch.

/// An error of this crate; the message names the field, tensor or token, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of `config.json` that is absent.
    #[error("config.json has no `{field}`")]
    MissingField {
        /// The field's name.
        field: String,
    },
    /// A field of `config.json` that holds something else than it should.
    #[error("config.json: `{field}` is {found}, expected {expected}")]
    BadField {
        /// The field's name.
        field: String,
        /// What stands there.
        found: String,
        /// What could stand there.
        expected: String,
    },
    /// A tensor whose shape contradicts the configuration.
    #[error("tensor `{name}` is {found:?}, the config says {expected:?}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// A token id beyond the embedding table.
    #[error("token id {id} at position {position} of the batch is beyond the vocabulary of {vocabulary}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Its index in the packed batch.
        position: usize,
        /// Rows of the embedding table.
        vocabulary: usize,
    },
    /// A row that is empty or longer than the position table.
    #[error("row {row} of the batch has {length} tokens, the model takes 1 to {limit}")]
    RowLength {
        /// The row's index in the batch.
        row: usize,
        /// Its tokens.
        length: usize,
        /// The most the model takes.
        limit: usize,
    },
    /// A packed batch whose parts do not fit together.
    #[error("malformed batch: {0}")]
    Batch(String),
    /// A backward pass without the forward pass in training mode that it belongs to.
    #[error("backward needs a forward pass in training mode before it")]
    NoForward,
    /// A backward pass at none of whose taps a gradient entered.
    #[error("backward needs a gradient at one of the pass's taps")]
    NoGradient,
    /// A tap that the model does not have.
    #[error("the model has no tap `{tap}`; it has {known}")]
    NoTap {
        /// The tap.
        tap: String,
        /// Those that it has.
        known: String,
    },
    /// A tap that a forward pass was not asked for.
    #[error("the forward pass was not asked for the tap `{tap}`, but for {asked}")]
    NotAsked {
        /// The tap.
        tap: String,
        /// What it was asked for.
        asked: String,
    },
    /// A tap that was read before.
    #[error("the tap `{tap}` of this forward pass was read already")]
    AlreadyRead {
        /// The tap.
        tap: String,
    },
    /// A pass whose memory on the device a later one has taken.
    #[error("this forward pass is over: a later one has taken its memory")]
    PassIsOver,
    /// A pass whose weights are no longer the model's.
    #[error("the weights have changed since this forward pass: run it again")]
    StalePass,
    /// An error of the GPU.
    #[error(transparent)]
    Device(#[from] crate::cuda::DeviceError),
    /// An error of the candle twin.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
