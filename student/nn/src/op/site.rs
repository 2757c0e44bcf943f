//! Where dropout stands in a model.

/// A place in a model where elements are dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// No other place of the model has this number; it goes into the mask's key.
    pub(crate) number: u64,
    /// The share of the elements that is dropped.
    pub(crate) rate: f32,
}

impl Site {
    /// `None` where nothing is dropped.
    pub(crate) fn new(number: u64, rate: f32) -> Option<Self> {
        (rate > 0.0).then_some(Self { number, rate })
    }
}
