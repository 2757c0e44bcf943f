//! The teacher's stored outputs for some rows. The only source so far is a cache ([`cached`]).

pub(crate) mod cached;
pub(crate) mod quality;

/// The teacher's outputs for a micro-batch of `B` rows over `K` classes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TeacherSignal {
    /// `[B, K]` logits, before softmax.
    Dense(Vec<f32>),
    /// The `k` largest logits of each row, and the others' contribution to the softmax.
    TopK {
        k: usize,
        /// Their classes, `[B, k]`.
        indices: Vec<u32>,
        /// `[B, k]`
        logits: Vec<f32>,
        /// The temperatures of the tails.
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

/// The teacher's output for one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum TeacherRow<'a> {
    /// `[K]`
    Dense(&'a [f32]),
    /// `[k]` each, and the tail at the requested temperature.
    TopK { indices: &'a [u32], logits: &'a [f32], tail: f32 },
    /// `[draws]`
    Sample(&'a [u32]),
}

impl TeacherSignal {
    /// The logits, if all are stored.
    pub(crate) fn dense(&self) -> Option<&[f32]> {
        match self {
            Self::Dense(logits) => Some(logits),
            Self::TopK { .. } | Self::Sample { .. } => None,
        }
    }

    /// The outputs with these numbers alone, ascending; all of them are over so many classes.
    pub(crate) fn at(self, numbers: &[u32], classes: usize) -> Self {
        fn chosen<T: Copy>(all: &[T], numbers: &[u32], width: usize) -> Vec<T> {
            numbers.iter().flat_map(|&number| &all[number as usize * width..][..width]).copied().collect()
        }
        match self {
            Self::Dense(logits) => Self::Dense(chosen(&logits, numbers, classes)),
            Self::TopK { k, indices, logits, temperatures, tails } => Self::TopK {
                k,
                indices: chosen(&indices, numbers, k),
                logits: chosen(&logits, numbers, k),
                tails: chosen(&tails, numbers, temperatures.len()),
                temperatures,
            },
            Self::Sample { draws, indices } => Self::Sample { draws, indices: chosen(&indices, numbers, draws) },
        }
    }

    /// Values per row, and values in all, for checks.
    pub(crate) fn size(&self, classes: usize) -> (usize, usize) {
        match self {
            Self::Dense(logits) => (classes, logits.len()),
            Self::TopK { k, logits, .. } => (*k, logits.len()),
            Self::Sample { draws, indices } => (*draws, indices.len()),
        }
    }

    /// One row at a temperature; `None` if the stored form has no data for it.
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
