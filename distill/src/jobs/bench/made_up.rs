//! What is made up for a measurement: random numbers, and a cache's fingerprint.

use cache::{Captured, Fingerprint, Preprocessing};

/// The fingerprint of a cache whose teacher does not matter.
pub(super) fn made_up_fingerprint(teacher: &str, captured: &Captured) -> Fingerprint {
    Fingerprint {
        teacher: teacher.to_owned(),
        head: Vec::new(),
        config: String::new(),
        tokenizer: String::new(),
        labels: Vec::new(),
        max_length: 0,
        preprocessing: Preprocessing::Words(String::new()),
        task: String::new(),
        precision: String::new(),
        captured: captured.clone(),
        average: None,
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers for the same seed, and different ones for different indices.
pub(super) fn number(seed: u64, index: u64) -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut number = seed.wrapping_add(index.wrapping_mul(STEP));
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
