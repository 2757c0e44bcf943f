#![doc = include_str!("../FORMAT.md")]

#[cfg(target_endian = "big")]
compile_error!("cached rows are read in place and are little-endian");

mod ahead;
mod captured;
mod container;
mod encode;
mod error;
mod files;
mod fingerprint;
mod index;
mod manifest;
mod merge;
mod reader;
mod recorded;
mod shard;
mod verify;
mod writer;

pub use captured::{Captured, Dtype, HiddenStates, HiddenTokens, LogitForm, Outputs};
pub use encode::{NewLogits, NewRow, TopLogits};
pub use error::Error;
pub use fingerprint::{Average, Difference, Fingerprint, Masks, Member, Preprocessing, Quantity, RowWeights, Stale};
pub use merge::{Merge, merge};
pub use reader::CacheReader;
pub use recorded::{Divergence, RecordedError};
pub use shard::StoredRow;
pub use verify::{Verification, verify};
pub use writer::{CacheWriter, NewCache, remove};

/// The key of a row: 128 bits of a hash over exactly what the teacher reads (token ids and type ids).
pub type Key = [u8; 16];

/// The version of the format that this build writes, and the only one that it reads.
pub const SCHEMA_VERSION: u32 = 2;

/// A key as 32 hexadecimal digits, for messages.
pub fn key_hex(key: &Key) -> String {
    container::hex(key)
}
