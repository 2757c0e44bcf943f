//! Operations of matrix products, and what they are counted from.

use std::ops::AddAssign;

use crate::value::Rows;

/// Operations of a forward pass by kind.
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

/// What counts need of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lengths {
    texts: u64,
    pub(crate) tokens: u64,
    /// Sum of the squares of the texts' lengths.
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
