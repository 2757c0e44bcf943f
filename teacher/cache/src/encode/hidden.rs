//! Hidden states in f16, each row one zstd frame: first the low bytes of all numbers, then the high ones, which repeat
//! more and compress better side by side.

use half::f16;
use zstd::bulk;

use crate::recorded::RecordedError;

/// Of zstd. Higher ones gain nothing on such numbers: the low bytes are noise.
const LEVEL: i32 = 1;

/// The largest number that 16 bits of f16 hold.
const F16_MAX: f32 = 65_504.0;

pub(super) struct Compressor {
    /// None where zstd could not be set up, for want of memory; each row then sets up its own.
    compressor: Option<bulk::Compressor<'static>>,
    planes: Vec<u8>,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self { compressor: bulk::Compressor::new(LEVEL).ok(), planes: Vec::new() }
    }

    pub(super) fn append(&mut self, values: &[f32], bytes: &mut Vec<u8>, error: &mut RecordedError) {
        self.planes.clear();
        self.planes.resize(2 * values.len(), 0);
        let (low, high) = self.planes.split_at_mut(values.len());
        for ((value, low), high) in values.iter().zip(low).zip(high) {
            let half = f16::from_f32(value.clamp(-F16_MAX, F16_MAX));
            [*low, *high] = half.to_le_bytes();
            error.compare_hidden(*value, half.to_f32());
        }
        let compressed = match &mut self.compressor {
            Some(compressor) => compressor.compress(&self.planes),
            None => bulk::compress(&self.planes, LEVEL),
        };
        // Compressing in memory fails when memory runs out, and then so would anything else.
        bytes.extend(compressed.expect("zstd compresses any bytes"));
    }
}

/// The numbers of a row; none where the frame is not what was written.
pub(crate) fn decode(frame: &[u8], values: usize) -> Option<Vec<f32>> {
    let planes = bulk::decompress(frame, 2 * values).ok().filter(|planes| planes.len() == 2 * values)?;
    let (low, high) = planes.split_at(values);
    Some(low.iter().zip(high).map(|(low, high)| f16::from_le_bytes([*low, *high]).to_f32()).collect())
}
