//! What a frozen teacher said, on disk: one row of logits under each content key.
//! Bytes and keys alone. Which model said it, and how the key came about, is the caller's to know and to put into the
//! [`Fingerprint`].
//!
//! # Format, schema version 1
//!
//! A folder with
//!
//! - `manifest.json`: `schema_version`, `fingerprint` (an object, see [`Fingerprint`]), `width` (logits a row), `dtype`
//!   (`"f32"`), and `shards`, a list of `{file, rows, bytes, checksum}`. `checksum` is the BLAKE3 hash of the whole
//!   file, 64 hexadecimal digits. It is replaced whole, and always after the shard that it names.
//! - `shard-00000.safetensors` and so on: immutable, each with two tensors over the same `n` rows: `keys`, U8 `[n, 16]`,
//!   in strictly ascending order, and `logits`, F32 `[n, width]`. No key occurs twice in a cache.
//! - `.lock`: empty; who writes holds an advisory lock on it.
//!
//! Whatever else lies there was left by a writer that was killed: it is ignored by readers and removed by the next
//! writer, so a kill at any moment costs the rows that were not committed and nothing else.
//!
//! The writer of safetensors puts the tensor with the widest elements first and pads the header to a multiple of eight
//! bytes, so `logits` starts at a multiple of eight from the start of the (page-aligned) mapping and its rows are read in
//! place. A file where this does not hold is refused.
//!
//! A shard's bytes depend on the set of rows committed in it, not on the order they came in. Where one shard ends and
//! the next begins depends on the calls of [`CacheWriter::commit`]: equal rows committed in other portions give another
//! set of files with the same content.

#[cfg(target_endian = "big")]
compile_error!("cached rows are read in place and are little-endian");

mod error;
mod fingerprint;
mod manifest;
mod reader;
mod shard;
mod writer;

pub use error::Error;
pub use fingerprint::{Difference, Fingerprint};
pub use reader::CacheReader;
pub use writer::{CacheWriter, Push, remove};

/// A row's name: 128 bits of a hash over exactly what the teacher reads.
pub type Key = [u8; 16];

/// The version of the format that this build writes, and the newest that it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// A key as 32 hexadecimal digits, as messages show it.
pub fn key_hex(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}
