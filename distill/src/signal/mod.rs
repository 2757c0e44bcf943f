//! Where a teacher's answers come from: what it said of some rows, in the form in which it was stored. So far they are
//! read from a cache ([`cached`]).

pub(crate) mod cached;

/// The teacher's side of a micro-batch of `B` rows over `K` classes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TeacherSignal {
    /// `[B, K]` logits, before softmax.
    Dense(Vec<f32>),
    /// The `k` largest logits of each row, and what the others add to the softmax.
    TopK {
        k: usize,
        /// `[B, k]`: which classes these are.
        indices: Vec<u32>,
        /// `[B, k]`
        logits: Vec<f32>,
        /// The temperatures that the tails are of.
        temperatures: Vec<f64>,
        /// `[B, temperatures]`: `log(sum(exp(z / T)))` over the other classes.
        tails: Vec<f32>,
    },
    /// Classes drawn from the softmax at one temperature, with replacement.
    Sample {
        draws: usize,
        /// `[B, draws]`
        indices: Vec<u32>,
    },
}

/// What a teacher said of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum TeacherRow<'a> {
    /// `[K]`
    Dense(&'a [f32]),
    /// `[k]` each, and the tail at the temperature asked for.
    TopK { indices: &'a [u32], logits: &'a [f32], tail: f32 },
    /// `[draws]`
    Sample(&'a [u32]),
}

impl TeacherSignal {
    /// The logits, if they are all there.
    pub(crate) fn dense(&self) -> Option<&[f32]> {
        match self {
            Self::Dense(logits) => Some(logits),
            Self::TopK { .. } | Self::Sample { .. } => None,
        }
    }

    /// The numbers of each row, and how many there are; for checks.
    pub(crate) fn size(&self, classes: usize) -> (usize, usize) {
        match self {
            Self::Dense(logits) => (classes, logits.len()),
            Self::TopK { k, logits, .. } => (*k, logits.len()),
            Self::Sample { draws, indices } => (*draws, indices.len()),
        }
    }

    /// One row at a temperature; none where nothing is known at it.
    pub(crate) fn row(&self, row: usize, classes: usize, temperature: f64) -> Option<TeacherRow<'_>> {
        Some(match self {
            Self::Dense(logits) => TeacherRow::Dense(&logits[row * classes..(row + 1) * classes]),
            Self::TopK { k, indices, logits, temperatures, tails } => {
                let at = temperatures.iter().position(|&known| known == temperature)?;
                let span = row * k..(row + 1) * k;
                let tail = tails[row * temperatures.len() + at];
                TeacherRow::TopK { indices: &indices[span.clone()], logits: &logits[span], tail }
            }
            Self::Sample { draws, indices } => TeacherRow::Sample(&indices[row * draws..(row + 1) * draws]),
        })
    }
}
