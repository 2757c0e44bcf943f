//! Counts of floating-point operations of matrix products.

use std::ops::AddAssign;

use crate::value::Rows;

/// Floating-point operations of a forward pass, by kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Products {
    pub(crate) linear: u64,
    pub(crate) attention: u64,
}

impl AddAssign for Products {
    fn add_assign(&mut self, other: Self) {
        self.linear += other.linear;
        self.attention += other.attention;
    }
}

/// The lengths of a batch, as needed for the counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lengths {
    texts: u64,
    pub(crate) tokens: u64,
    /// Sum of the squared lengths of the texts.
    pub(crate) pairs: u64,
}

impl Lengths {
    pub(crate) fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut counts = Self::default();
        for length in lengths {
            let length = length as u64;
            counts.texts += 1;
            counts.tokens += length;
            counts.pairs += length * length;
        }
        counts
    }

    pub(crate) fn rows(&self, rows: Rows) -> u64 {
        match rows {
            Rows::Tokens => self.tokens,
            Rows::First => self.texts,
            Rows::Positions => 0,
        }
    }
}
