//! Random numbers that depend on what they are for, and on nothing else.

use crate::Key;

/// Draws for one variant.
pub struct Draw {
    stream: blake3::OutputReader,
    block: [u8; 64],
    used: usize,
}

impl Draw {
    /// For the variant with this number of a row, in the way of that name.
    pub fn new(seed: u64, row: &Key, way: &str, copy: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"distill: a variant of a text").update(&seed.to_le_bytes());
        hasher.update(row).update(&(copy as u64).to_le_bytes()).update(way.as_bytes());
        Self { stream: hasher.finalize_xof(), block: [0; 64], used: 64 }
    }

    fn next(&mut self) -> u64 {
        if self.used == self.block.len() {
            self.stream.fill(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.block[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(bytes)
    }

    /// A number below `count`, which is not 0; uniform to within `count / 2^64`.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// One of these, which are not empty.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// So many different numbers below `count`, or all of them, in the order drawn.
    pub fn several(&mut self, wanted: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..count).collect();
        let wanted = wanted.min(count);
        for place in 0..wanted {
            let other = place + self.below(count - place);
            all.swap(place, other);
        }
        all.truncate(wanted);
        all
    }
}
