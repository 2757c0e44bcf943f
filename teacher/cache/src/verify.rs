//! Every checksum of a cache, and that every key leads to a row of its own.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::container::FileEntry;
use crate::index::Run;
use crate::manifest::Manifest;
use crate::reader::{CacheReader, no_manifest};
use crate::shard::Shard;

/// What [`verify`] found.
#[derive(Debug, Default)]
pub struct Verification {
    /// Files looked at, the manifest among them.
    pub files: usize,
    /// Their bytes, the manifest's left out.
    pub bytes: u64,
    /// Rows that the manifest counts.
    pub rows: u64,
    /// What is wrong, one error a file.
    pub damage: Vec<Error>,
}

/// Checks every byte of a cache. A manifest that cannot be read is the only damage found then.
pub fn verify(dir: &Path) -> Result<Verification, Error> {
    let manifest = match Manifest::read(dir) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Err(no_manifest(dir)),
        Err(error @ (Error::Manifest { .. } | Error::SchemaVersion { .. })) => {
            return Ok(Verification { files: 1, damage: vec![error], ..Verification::default() });
        }
        Err(error) => return Err(error),
    };
    let mut found = Verification { files: 1, bytes: manifest.bytes(), rows: manifest.rows, damage: Vec::new() };
    let captured = &manifest.fingerprint.captured;
    let mut check = |result: Result<(), Error>| {
        found.files += 1;
        found.damage.extend(result.err());
    };
    for entry in &manifest.shards {
        check(Shard::open(dir, entry).and_then(|shard| shard.verify(captured)));
    }
    let mut taken = vec![false; manifest.next_row() as usize];
    let mut rows = 0;
    for entry in &manifest.indexes {
        check(verify_index(dir, entry, &mut taken, &mut rows));
    }
    for entry in &manifest.attachments {
        let reader = CacheReader {
            dir: dir.to_owned(),
            manifest: std::sync::Arc::new(manifest.clone()),
            index: crate::index::Index::default(),
            shards: Vec::new(),
            first_rows: Vec::new(),
        };
        check(reader.attachment(&entry.file).map(drop));
    }
    if found.damage.is_empty() && rows != manifest.rows {
        let (path, finding): (PathBuf, _) =
            (dir.to_owned(), format!("the indexes lead to {rows} rows, the manifest counts {}", manifest.rows));
        found.damage.push(Error::File { path, finding });
    }
    Ok(found)
}

fn verify_index(dir: &Path, entry: &FileEntry, taken: &mut [bool], rows: &mut u64) -> Result<(), Error> {
    Run::open(dir, entry)?.verify(|row| {
        *rows += 1;
        match taken.get_mut(row as usize) {
            None => Err(format!("it leads to row {row}, which no shard holds")),
            Some(true) => Err(format!("two keys lead to row {row}")),
            Some(free) => {
                *free = true;
                Ok(())
            }
        }
    })
}
