//! Postponed weight decay of word embeddings that no batch has used yet: as in `cpu/adamw.rs`, with the same bits as
//! updating every row at every step.
//!
//! The host tracks which rows have been used; the device has a mark for each of them, and the factors by which the
//! other rows still have to be multiplied. Gradient norm and optimiser only read marked rows. If a data set uses a
//! tenth of the vocabulary, this saves reading most of a small model's bytes in each step.

use super::device::{Buffer, Device};
use super::op::optimizer::launch::{CatchUpAndMark, CatchUpUnmarked};
use super::operand::{Matrix, Number, Vector, Words};
use super::transfer::Staging;
use super::weights::Weights;
use crate::{Error, Slot};

/// Factors that are kept before all rows are brought up to date; few in tests, so that they come to it.
const MOST: usize = if cfg!(test) { 8 } else { 1024 };

/// Which rows take part in a step, and what the others have to catch up on.
pub(super) struct PutOff {
    device: Device,
    /// Rows that were looked up; empty where every row takes part in every step.
    looked_up: Vec<bool>,
    /// `u32 [rows]`: 1 where a row was.
    marks: Buffer,
    /// `f32 [MOST]`
    factors: Buffer,
    /// How many factors there are.
    count: usize,
    /// Rows on their way to the device.
    rows: Staging,
}

/// The word table on the device.
pub(super) struct WordTable {
    pub(super) parameters: Matrix,
    pub(super) gradients: Matrix,
    pub(super) moments: [Matrix; 2],
    pub(super) marks: Words,
}

impl PutOff {
    /// No row of the table was looked up.
    pub(super) fn new(device: &Device, weights: &Weights) -> Self {
        let rows = if weights.layout.words.is_empty() { 0 } else { weights.shape(Slot::WordEmbeddings)[0] };
        Self {
            device: device.clone(),
            looked_up: vec![false; rows],
            marks: Buffer::empty(device),
            factors: Buffer::empty(device),
            count: 0,
            rows: Staging::new(device),
        }
    }

    fn factors(&self) -> Vector {
        Vector { at: self.factors.ptr(), len: self.count }
    }

    /// The table, unless every row takes part in every step.
    pub(super) fn words(&mut self, weights: &Weights) -> Result<Option<WordTable>, Error> {
        if self.looked_up.is_empty() {
            return Ok(None);
        }
        self.marks.reserve(self.looked_up.len() * 4)?;
        self.factors.reserve(MOST * 4)?;
        let [parameters, gradients, first, second, _] = weights.flat(weights.layout.words.start);
        let shape = weights.shape(Slot::WordEmbeddings);
        let [parameters, gradients, first, second] =
            [parameters, gradients, first, second].map(|at| Matrix::new(Number::F32, at, shape));
        let marks = Words { at: self.marks.ptr(), len: self.looked_up.len() };
        Ok(Some(WordTable { parameters, gradients, moments: [first, second], marks }))
    }

    /// Brings the rows of these words up to date before training reads them; from now on they take part in every step.
    pub(super) fn look_up<'a>(
        &mut self,
        weights: &Weights,
        words: impl IntoIterator<Item = &'a u32>,
    ) -> Result<(), Error> {
        let mut new = Vec::new();
        for &word in words {
            if let Some(looked_up) = self.looked_up.get_mut(word as usize)
                && !std::mem::replace(looked_up, true)
            {
                new.push(word);
            }
        }
        let result = self.mark(weights, &new);
        if result.is_err() {
            // The device has not marked them.
            new.iter().for_each(|&word| self.looked_up[word as usize] = false);
        }
        result
    }

    /// Brings these rows up to date and marks them.
    fn mark(&mut self, weights: &Weights, new: &[u32]) -> Result<(), Error> {
        if new.is_empty() {
            return Ok(());
        }
        let Some(WordTable { parameters: x, marks, .. }) = self.words(weights)? else { return Ok(()) };
        self.rows.begin(1, new.len())?;
        let which = self.rows.put(new.iter().copied());
        self.rows.send()?;
        CatchUpAndMark { x, which, marks, factors: self.factors() }.launch(&self.device)
    }

    /// Brings all other rows up to date: before the weights are read as a whole, and by a pass that is not training's.
    pub(super) fn settle(&mut self, weights: &Weights) -> Result<(), Error> {
        if self.count == 0 {
            return Ok(());
        }
        if let Some(WordTable { parameters: x, marks, .. }) = self.words(weights)? {
            CatchUpUnmarked { x, marks, factors: self.factors() }.launch(&self.device)?;
        }
        self.count = 0;
        Ok(())
    }

    /// Leaves nothing to catch up on: all weights are replaced.
    pub(super) fn forget(&mut self) {
        self.count = 0;
    }

    /// Where a step that decays writes its factor, behind [`words`](Self::words); nowhere if no row puts it off.
    pub(super) fn next_factor(&mut self, weights: &Weights, decay: f32) -> Result<Option<Matrix>, Error> {
        if self.looked_up.is_empty() || decay == 1.0 {
            return Ok(None);
        }
        if self.count == MOST {
            self.settle(weights)?;
        }
        let at = self.factors.ptr().offset_bytes(self.count * 4);
        self.count += 1;
        Ok(Some(Matrix::new(Number::F32, at, [1, 1])))
    }
}
