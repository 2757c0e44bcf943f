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
    /// Somebody else's file beside a cache that is to be removed.
    #[error("{dir}: `{found}` lies beside the cache and is none of its files; nothing was removed: take it away first")]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// What lies there.
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
    #[error(
        "{path}: schema_version is {found}, this build reads {newest} alone; take the distill that made it, or capture again"
    )]
    SchemaVersion {
        /// The manifest.
        path: PathBuf,
        /// What it says.
        found: String,
        /// The one that this build reads.
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
        "{dir}: this cache was made otherwise: {difference}; give another folder, or bring this one up to date with \
         `distill cache --refresh`"
    )]
    Fingerprint {
        /// The folder.
        dir: PathBuf,
        /// The field that differs.
        difference: Difference,
    },
    /// A file that the manifest names is not what it was when it was written.
    #[error("{path}: {finding}; put the file back from a copy, or remove the folder and capture again")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// Some bytes of a file are not what they were when they were written.
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
    /// Something that no cache can hold.
    #[error("cannot store {finding}")]
    Captured {
        /// What, and why.
        finding: String,
    },
    /// More rows than the format counts.
    #[error("{dir}: a cache holds up to {} rows; capture the rest into another folder", u32::MAX)]
    Full {
        /// The folder.
        dir: PathBuf,
    },
    /// Somebody else is writing.
    #[error("{dir}: another process is writing this cache; wait for it to end, or give another folder")]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// The teacher said something that nobody can learn from.
    #[error(
        "{what} {position} of the row with key {key} is {value}; the teacher's weights or its precision are at fault"
    )]
    NotFinite {
        /// The row's key, in hexadecimal.
        key: String,
        /// A logit, or a value of a hidden state.
        what: &'static str,
        /// Which one of the row.
        position: usize,
        /// Infinite, or not a number.
        value: f32,
    },
    /// A row of another width than the cache's.
    #[error("the row with key {key} has {found} logits, this cache holds {expected} an output")]
    Width {
        /// The row's key, in hexadecimal.
        key: String,
        /// The length of the row.
        found: usize,
        /// The width of the cache's outputs.
        expected: usize,
    },
    /// A row with other hidden states than the cache's.
    #[error("the row with key {key} has {found} values of hidden states, this cache holds {expected} a token")]
    HiddenWidth {
        /// The row's key, in hexadecimal.
        key: String,
        /// How many values it has.
        found: usize,
        /// Those of one token, of all layers.
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
        committed: u64,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    /// A failed write with the rows that are safe all the same.
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
