//! The places in a model where dropout is applied.

/// A place in a model where dropout is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// Unique number of the place in its model; part of the mask's key.
    pub(crate) number: u64,
    /// Dropout rate.
    pub(crate) rate: f32,
}

impl Site {
    /// `None` if the rate is 0.
    pub(crate) fn new(number: u64, rate: f32) -> Option<Self> {
        (rate > 0.0).then_some(Self { number, rate })
    }
}
