//! What can go wrong with a cache, each with the file, the finding and the way out.

use std::io;
use std::path::PathBuf;

use crate::Difference;

/// Why a cache could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not there, or is no folder.
    #[error("{dir}: no such folder; make the cache first with `distill cache`")]
    NoFolder {
        /// Where the cache was looked for.
        dir: PathBuf,
    },
    /// The folder holds something else.
    #[error("{dir}: no cache, it holds {found} and no manifest.json; give an empty folder, or the folder of a cache")]
    NotACache {
        /// The folder.
        dir: PathBuf,
        /// What lies there instead.
        found: String,
    },
    /// Shards without the manifest that says whose they are.
    #[error(
        "{dir}: {shards} shards but no manifest.json, so nobody can say which teacher made them; put the manifest back, \
         or remove the folder and capture again"
    )]
    NoManifest {
        /// The folder.
        dir: PathBuf,
        /// How many shards lie there.
        shards: usize,
    },
    /// Another format, most likely of a later version.
    #[error("{path}: schema_version is {found}, this build reads up to {newest}; update distill, or capture again")]
    SchemaVersion {
        /// The manifest.
        path: PathBuf,
        /// What it says.
        found: String,
        /// The newest that this build knows.
        newest: u32,
    },
    /// The manifest cannot be understood.
    #[error(
        "{path}: {finding}; it was edited or damaged: put it back from a copy, or remove the folder and capture again"
    )]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// The cache was made with something else.
    #[error(
        "{dir}: this cache was made otherwise: {difference}; give another folder, or remove this one and capture again"
    )]
    Fingerprint {
        /// The folder.
        dir: PathBuf,
        /// The field that differs.
        difference: Difference,
    },
    /// A shard that the manifest names is not what it was when it was written.
    #[error("{path}: {finding}; put the file back from a copy, or remove the folder and capture again")]
    Shard {
        /// The shard.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// Somebody else is writing.
    #[error("{dir}: another process is writing this cache; wait for it to end, or give another folder")]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// The teacher said something that nobody can learn from.
    #[error(
        "logit {position} of the row with key {key} is {value}; the teacher's weights or its precision are at fault"
    )]
    NotFinite {
        /// The row's key, in hexadecimal.
        key: String,
        /// Which logit of the row.
        position: usize,
        /// Infinite, or not a number.
        value: f32,
    },
    /// A row of another width than the cache's.
    #[error("the row with key {key} has {found} logits, this cache holds {expected} a row")]
    Width {
        /// The row's key, in hexadecimal.
        key: String,
        /// The length of the row.
        found: usize,
        /// The width of the cache.
        expected: usize,
    },
    /// A file could not be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file could not be written: a full disk, a read-only folder.
    #[error("{path}: cannot be written: {source}; {}", what_remains(*committed))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Rows that the cache holds all the same.
        committed: usize,
        /// What the system says.
        source: io::Error,
    },
}

fn what_remains(committed: usize) -> String {
    match committed {
        0 => "see that there is room on the disk and leave to write, or give another folder".to_owned(),
        rows => format!(
            "the {rows} rows committed before are safe: once there is room on the disk and leave to write, the same \
             command goes on from there"
        ),
    }
}
