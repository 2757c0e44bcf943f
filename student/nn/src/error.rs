//! Errors in a model's configuration, its tensors, a batch or a pass.

/// An error of this crate; the message names the field, tensor or token, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A required field of `config.json` is missing.
    #[error("config.json has no `{field}`")]
    MissingField {
        /// The field's name.
        field: String,
    },
    /// A field of `config.json` has an invalid or unsupported value.
    #[error("config.json: `{field}` is {found}, expected {expected}")]
    BadField {
        /// The field's name.
        field: String,
        /// Its value.
        found: String,
        /// The accepted values.
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
    /// A row that is empty or longer than the model's maximum length.
    #[error("row {row} of the batch has {length} tokens, the model takes 1 to {limit}")]
    RowLength {
        /// The row's index in the batch.
        row: usize,
        /// Its length in tokens.
        length: usize,
        /// The model's maximum length.
        limit: usize,
    },
    /// An inconsistent packed batch.
    #[error("malformed batch: {0}")]
    Batch(String),
    /// A backward pass for a forward pass that was not in training mode, or of another model.
    #[error("backward needs a forward pass in training mode before it")]
    NoForward,
    /// A backward pass without any gradient at a tap.
    #[error("backward needs a gradient at one of the pass's taps")]
    NoGradient,
    /// A tap that the model does not have.
    #[error("the model has no tap `{tap}`; it has {known}")]
    NoTap {
        /// The tap.
        tap: String,
        /// The taps of the model.
        known: String,
    },
    /// A tap that was not requested in the forward pass.
    #[error("the forward pass was not asked for the tap `{tap}`, but for {asked}")]
    NotAsked {
        /// The tap.
        tap: String,
        /// The taps that were requested.
        asked: String,
    },
    /// A tap that has already been read.
    #[error("the tap `{tap}` of this forward pass was read already")]
    AlreadyRead {
        /// The tap.
        tap: String,
    },
    /// A pass whose device memory has been reused by a later one.
    #[error("this forward pass is over: a later one has taken its memory")]
    PassIsOver,
    /// A pass that was run with weights that have since changed.
    #[error("the weights have changed since this forward pass: run it again")]
    StalePass,
    /// An error of the GPU.
    #[error(transparent)]
    Device(#[from] crate::cuda::DeviceError),
    /// An error of the candle twin.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
