//! Errors of a cache. Each message names the file, what was found and how to fix it.

use std::io;
use std::path::PathBuf;

use crate::Difference;

/// Why a cache could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder does not exist, or is not a folder.
    #[error("{dir}: no such folder; make the cache first with `distill cache`")]
    NoFolder {
        /// Where the cache was looked for.
        dir: PathBuf,
    },
    /// The folder contains something other than a cache.
    #[error("{dir}: no cache, it holds {found} and no manifest.json; give an empty folder, or the folder of a cache")]
    NotACache {
        /// The folder.
        dir: PathBuf,
        /// A file that was found.
        found: String,
    },
    /// The cache cannot be removed: a file that is not the cache's is in its folder.
    #[error("{dir}: `{found}` lies beside the cache and is none of its files; nothing was removed: take it away first")]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// The file.
        found: String,
    },
    /// Shards without a manifest.
    #[error(
        "{dir}: {shards} shards but no manifest.json, so nobody can say which teacher made them; put the manifest back, \
         or remove the folder and capture again"
    )]
    NoManifest {
        /// The folder.
        dir: PathBuf,
        /// The number of shards.
        shards: usize,
    },
    /// An unknown schema version, most likely a later one.
    #[error(
        "{path}: schema_version is {found}, this build reads {newest} alone; take the distill that made it, or capture again"
    )]
    SchemaVersion {
        /// The manifest.
        path: PathBuf,
        /// Its schema version.
        found: String,
        /// The version that this build reads.
        newest: u32,
    },
    /// The manifest is invalid.
    #[error(
        "{path}: {finding}; it was edited or damaged: put it back from a copy, or remove the folder and capture again"
    )]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// The cache has another fingerprint than expected.
    #[error(
        "{dir}: this cache was made otherwise: {difference}; give another folder, or bring this one up to date with \
         `distill cache --refresh`"
    )]
    Fingerprint {
        /// The folder.
        dir: PathBuf,
        /// The field that differs.
        difference: Difference,
    },
    /// A file named by the manifest is missing or has changed since it was written.
    #[error("{path}: {finding}; put the file back from a copy, or remove the folder and capture again")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// A block of a file has changed since it was written: its checksum differs.
    #[error(
        "{path}: block {block} of {blocks} (bytes {start} to {last}) is damaged: its checksum differs; put the file back \
         from a copy, or remove the folder and capture again"
    )]
    Block {
        /// The file.
        path: PathBuf,
        /// Which block, from 0.
        block: usize,
        /// How many there are.
        blocks: usize,
        /// Its first byte in the file.
        start: usize,
        /// Its last byte in the file.
        last: usize,
    },
    /// A [`Captured`](crate::Captured) that cannot be stored.
    #[error("cannot store {finding}")]
    Captured {
        /// What, and why.
        finding: String,
    },
    /// More rows than the format can number.
    #[error("{dir}: a cache holds up to {} rows; capture the rest into another folder", u32::MAX)]
    Full {
        /// The folder.
        dir: PathBuf,
    },
    /// Another process is writing to the cache.
    #[error("{dir}: another process is writing this cache; wait for it to end, or give another folder")]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// The teacher returned a value that is infinite or not a number.
    #[error(
        "{what} {position} of the row with key {key} is {value}; the teacher's weights or its precision are at fault"
    )]
    NotFinite {
        /// The row's key, in hexadecimal.
        key: String,
        /// `logit`, or the value of a hidden state.
        what: &'static str,
        /// Its index in the row.
        position: usize,
        /// Infinite, or not a number.
        value: f32,
    },
    /// The number of logits of a row does not match the cache.
    #[error("the row with key {key} has {found} logits, this cache holds {expected} an output")]
    Width {
        /// The row's key, in hexadecimal.
        key: String,
        /// The length of the row.
        found: usize,
        /// Logits per output.
        expected: usize,
    },
    /// The number of hidden-state values of a row does not match the cache.
    #[error("the row with key {key} has {found} values of hidden states, this cache holds {expected} a token")]
    HiddenWidth {
        /// The row's key, in hexadecimal.
        key: String,
        /// The number of values of the row.
        found: usize,
        /// The number of values per token, over all layers.
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
        /// Rows already committed, which are safe.
        committed: u64,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    /// Adds the number of rows already committed to a failed write.
    pub(crate) fn with_committed(self, rows: u64) -> Self {
        match self {
            Self::Write { path, source, .. } => Self::Write { path, committed: rows, source },
            other => other,
        }
    }
}

fn what_remains(committed: u64) -> String {
    match committed {
        0 => "see that there is room on the disk and leave to write, or give another folder".to_owned(),
        rows => format!(
            "the {rows} rows committed before are safe: once there is room on the disk and leave to write, the same \
             command goes on from there"
        ),
    }
}
