//! Checks every checksum of a cache, and that every key refers to a row of its own.

use std::path::Path;

use crate::index::Run;
use crate::manifest::Manifest;
use crate::reader::{no_manifest, read_attachment};
use crate::shard::Shard;
use crate::{Error, key_hex};

/// The result of [`verify`].
#[derive(Debug, Default)]
pub struct Verification {
    /// Number of files checked, including the manifest.
    pub files: usize,
    /// Total bytes of these files, without the manifest.
    pub bytes: u64,
    /// Number of rows according to the manifest.
    pub rows: u64,
    /// One error for each damaged file.
    pub damage: Vec<Error>,
}

/// Checks every byte of a cache. If the manifest cannot be read, that is the only damage reported.
pub fn verify(dir: &Path) -> Result<Verification, Error> {
    loop {
        let manifest = match Manifest::read(dir) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Err(no_manifest(dir)),
            Err(error @ (Error::Manifest { .. } | Error::SchemaVersion { .. })) => {
                return Ok(Verification { files: 1, damage: vec![error], ..Verification::default() });
            }
            Err(error) => return Err(error),
        };
        let found = verify_files(dir, &manifest);
        // A writer may have put other files in the place of the ones that were named a moment ago.
        if found.damage.is_empty() || !manifest.was_replaced(dir) {
            return Ok(found);
        }
    }
}

fn verify_files(dir: &Path, manifest: &Manifest) -> Verification {
    let mut found = Verification { files: 1, bytes: manifest.bytes(), rows: manifest.rows, damage: Vec::new() };
    let captured = &manifest.fingerprint.captured;
    let mut check = |result: Result<(), Error>| {
        found.files += 1;
        found.damage.extend(result.err());
    };
    for entry in &manifest.shards {
        check(Shard::open(dir, entry).and_then(|shard| shard.verify(captured)));
    }
    let mut rows = Rows { count: manifest.next_row(), taken: vec![0; manifest.next_row().div_ceil(64) as usize] };
    let mut runs: Vec<Run> = Vec::new();
    for entry in &manifest.indexes {
        let sound = Run::open(dir, entry).and_then(|run| {
            run.verify(|key, row| {
                for earlier in &runs {
                    // What is wrong with an earlier index has been said.
                    if let Ok(Some(_)) = earlier.find(key) {
                        return Err(format!("key {} is in another index, too", key_hex(key)));
                    }
                }
                rows.take(row)
            })?;
            Ok(run)
        });
        check(sound.map(|run| runs.push(run)));
    }
    for entry in &manifest.attachments {
        check(read_attachment(dir, entry).map(drop));
    }
    found
}

/// Which rows a key was found to lead to.
struct Rows {
    count: u64,
    taken: Vec<u64>,
}

impl Rows {
    fn take(&mut self, row: u32) -> Result<(), String> {
        if u64::from(row) >= self.count {
            return Err(format!("it leads to row {row}, which no shard holds"));
        }
        let (word, bit) = (&mut self.taken[row as usize / 64], 1 << (row % 64));
        if *word & bit != 0 {
            return Err(format!("two keys lead to row {row}"));
        }
        *word |= bit;
        Ok(())
    }
}
