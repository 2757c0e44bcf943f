//! The largest logits of a batch, on their way from the device.

use std::collections::VecDeque;

use super::launch::TopLogits as Launch;
use crate::Error;
use crate::cuda::device::{Buffer, Device};
use crate::cuda::operand::{Matrix, Number, Vector, Words};
use crate::cuda::transfer::LateReads;
use crate::session::{TopK, TopLogits};

/// Where they are put side by side, for one copy to the host.
pub(in crate::cuda) struct TopMemory {
    device: Device,
    /// As they stand on the device.
    temperatures: (Vec<f32>, Buffer),
    packed: Buffer,
    reads: LateReads,
    /// What was asked for and is not collected yet.
    pending: VecDeque<Shape>,
}

/// Of what is read back together.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    k: usize,
    temperatures: usize,
}

impl TopMemory {
    pub(in crate::cuda) fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            temperatures: (Vec::new(), Buffer::empty(device)),
            packed: Buffer::empty(device),
            reads: LateReads::new(device),
            pending: VecDeque::new(),
        }
    }

    /// Asks for the largest of these logits, for [`collect`](Self::collect).
    pub(in crate::cuda) fn submit(&mut self, logits: Matrix, top: &TopK) -> Result<(), Error> {
        let (packed, shape) = self.launch(logits, top)?;
        self.reads.request(0, packed.at, packed.len)?;
        self.pending.push_back(shape);
        Ok(())
    }

    /// What was asked for first, once more than `behind` requests are pending.
    pub(in crate::cuda) fn collect(&mut self, behind: usize) -> Result<Option<TopLogits>, Error> {
        let Some((_, words)) = self.reads.take(behind)? else { return Ok(None) };
        Ok(self.pending.pop_front().map(|shape| shape.unpack(words)))
    }

    /// The largest of these logits, now.
    pub(in crate::cuda) fn read(&mut self, logits: Matrix, top: &TopK) -> Result<TopLogits, Error> {
        let (packed, shape) = self.launch(logits, top)?;
        let mut words = vec![0; packed.len];
        self.device.download(packed.at, &mut words)?;
        Ok(shape.unpack(words))
    }

    /// Where they will stand.
    fn launch(&mut self, logits: Matrix, top: &TopK) -> Result<(Words, Shape), Error> {
        let given: Vec<f32> = top.temperatures.iter().map(|&temperature| temperature as f32).collect();
        let (known, temperatures) = &mut self.temperatures;
        if *known != given {
            temperatures.reserve(given.len() * 4)?;
            self.device.upload(temperatures.ptr(), &given)?;
            *known = given;
        }
        let shape = Shape { rows: logits.rows, k: top.k, temperatures: known.len() };
        let [values, columns, rest] = shape.sizes();
        // Somewhat more, so that batches of like sizes do not make it grow again and again.
        self.packed.reserve(((values + columns + rest) * 4).next_power_of_two())?;
        let at = |word: usize| self.packed.ptr().offset_bytes(word * 4);
        Launch {
            logits,
            temperatures: Vector { at: temperatures.ptr(), len: known.len() },
            values: Matrix::new(Number::F32, at(0), [shape.rows, shape.k]),
            columns: Words { at: at(values), len: columns },
            rest: Matrix::new(Number::F32, at(values + columns), [shape.rows, 1 + 2 * shape.temperatures]),
        }
        .launch(&self.device)?;
        Ok((Words { at: at(0), len: values + columns + rest }, shape))
    }
}

impl Shape {
    /// Words of the values, of their columns, and of the rest.
    fn sizes(self) -> [usize; 3] {
        [self.rows * self.k, self.rows * self.k, self.rows * (1 + 2 * self.temperatures)]
    }

    fn unpack(self, mut words: Vec<u32>) -> TopLogits {
        let [values, columns, _] = self.sizes();
        let floats = |words: &[u32]| words.iter().copied().map(f32::from_bits).collect();
        let rest = floats(&words[values + columns..]);
        words.truncate(values + columns);
        let columns = words.split_off(values);
        TopLogits { values: floats(&words), columns, rest }
    }
}
