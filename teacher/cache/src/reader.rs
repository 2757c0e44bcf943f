//! Looks up rows by key without copying them. A reader can be shared between threads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::ahead::touch;
use crate::container::hex;
use crate::index::{Index, Merged, SIDE_BY_SIDE};
use crate::manifest::{Attachment, Manifest, sha256, shard_number};
use crate::recorded::RecordedError;
use crate::shard::{Shard, StoredRow};
use crate::{Captured, Error, Fingerprint, Key};

/// A read-only view of a cache at the time of opening; rows committed later are not visible.
#[derive(Clone)]
pub struct CacheReader {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) index: Index,
    pub(crate) shards: Vec<Arc<Shard>>,
    /// The number of each shard's first row.
    pub(crate) first_rows: Vec<u32>,
}

impl CacheReader {
    /// Opens a cache: reads its manifest and maps its files, whose checksums are verified on first access. With an
    /// `expected` fingerprint, a cache that differs in anything but the form of its logits is refused.
    pub fn open(dir: &Path, expected: Option<&Fingerprint>) -> Result<Self, Error> {
        loop {
            let Some(manifest) = Manifest::read(dir)? else { return Err(no_manifest(dir)) };
            if let Some(expected) = expected
                && let Some(difference) = manifest.fingerprint.difference_for_reading(expected)
            {
                return Err(Error::Fingerprint { dir: dir.to_owned(), difference });
            }
            let error = match Self::of(dir, Arc::new(manifest.clone())) {
                Ok(reader) => return Ok(reader),
                Err(error) => error,
            };
            // A writer may have put other files in the place of the ones that were named a moment ago.
            if !manifest.was_replaced(dir) {
                return Err(error);
            }
        }
    }

    /// Maps all files that a manifest names.
    pub(crate) fn of(dir: &Path, manifest: Arc<Manifest>) -> Result<Self, Error> {
        let (dir, index) = (dir.to_owned(), Index::default());
        Self { dir, manifest: manifest.clone(), index, shards: Vec::new(), first_rows: Vec::new() }.remapped(manifest)
    }

    /// The reader of another manifest; files that both name are kept with what was checked of them.
    pub(crate) fn remapped(&self, manifest: Arc<Manifest>) -> Result<Self, Error> {
        let (mut shards, mut first_rows, mut first_row) = (Vec::new(), Vec::new(), 0);
        for (position, entry) in manifest.shards.iter().enumerate() {
            shards.push(match self.shards.get(position).filter(|shard| shard.is(entry)) {
                Some(shard) => shard.clone(),
                None => Arc::new(Shard::open(&self.dir, entry)?),
            });
            first_rows.push(first_row);
            first_row += entry.rows;
        }
        let index = self.index.reopen(&self.dir, &manifest.indexes)?;
        Ok(Self { dir: self.dir.clone(), manifest, index, shards, first_rows })
    }

    /// The row with this key, if there is one; not copied.
    pub fn get(&self, key: &Key) -> Result<Option<StoredRow<'_>>, Error> {
        match self.index.find(key)? {
            Some(row) => self.row(row).map(Some),
            None => Ok(None),
        }
    }

    /// Calls `then` with the row for each key, in the order of `keys`. Several times as fast as [`get`](Self::get) for
    /// each key if the cache does not fit into the CPU's caches.
    pub fn get_many<'a>(
        &'a self,
        keys: &[Key],
        mut then: impl FnMut(&Key, Option<StoredRow<'a>>),
    ) -> Result<(), Error> {
        for keys in keys.chunks(SIDE_BY_SIDE) {
            let numbers = self.index.find_many(keys)?;
            let mut rows = [None; SIDE_BY_SIDE];
            for (row, number) in rows.iter_mut().zip(numbers) {
                *row = number.map(|number| self.row(number)).transpose()?;
                if let Some(row) = row {
                    [row.logits, row.tails, row.indices].into_iter().for_each(touch);
                }
            }
            keys.iter().zip(rows).for_each(|(key, row)| then(key, row));
        }
        Ok(())
    }

    /// The number of the row with this key; rows are numbered in the order in which they were committed.
    pub fn number(&self, key: &Key) -> Result<Option<u32>, Error> {
        self.index.find(key)
    }

    /// The number that the next row will get; larger than all numbers so far.
    pub fn next_number(&self) -> u64 {
        self.manifest.next_row()
    }

    /// Whether there is a row with this key.
    pub fn contains(&self, key: &Key) -> Result<bool, Error> {
        Ok(self.index.find(key)?.is_some())
    }

    /// Every row, in the order of their keys.
    pub fn rows(&self) -> impl Iterator<Item = Result<(Key, StoredRow<'_>), Error>> {
        let runs = Merged::new(self.index.runs().iter().map(|run| run.entries()));
        runs.map(|entry| {
            let (_, key, row) = entry?;
            Ok((key, self.row(row)?))
        })
    }

    /// SHA-256 over the form of storage and all rows in the order of their keys: key, number of outputs and bytes.
    /// Equal for caches with equal content, however they were made.
    pub fn content(&self) -> Result<String, Error> {
        let mut hasher = Sha256::new();
        let captured = serde_json::to_vec(self.captured()).unwrap_or_default();
        hasher.update((captured.len() as u64).to_le_bytes());
        hasher.update(captured);
        for entry in self.rows() {
            let (key, row) = entry?;
            hasher.update(key);
            hasher.update((row.outputs() as u64).to_le_bytes());
            hasher.update((row.hidden_states.len() as u64).to_le_bytes());
            row.parts().into_iter().for_each(|part| hasher.update(part));
        }
        Ok(hex(&hasher.finalize()))
    }

    /// A row by its number.
    pub(crate) fn row(&self, row: u32) -> Result<StoredRow<'_>, Error> {
        let shard = self.first_rows.partition_point(|&first| first <= row).saturating_sub(1);
        let Some(holder) = self.shards.get(shard) else {
            let (path, finding) = (self.dir.clone(), format!("the index leads to row {row}, and there is no shard"));
            return Err(Error::File { path, finding });
        };
        holder.row(&self.manifest.fingerprint.captured, (row - self.first_rows[shard]) as usize)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.manifest.rows as usize
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.manifest.rows == 0
    }

    /// What is stored for each row.
    pub fn captured(&self) -> &Captured {
        &self.manifest.fingerprint.captured
    }

    /// The fingerprint of the cache.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.manifest.fingerprint
    }

    /// The maximum number of tokens per forward pass during the capture.
    pub fn batch_tokens(&self) -> usize {
        self.manifest.batch_tokens
    }

    /// The error of the form of storage, measured when rows were written.
    pub fn recorded_error(&self) -> &RecordedError {
        &self.manifest.recorded_error
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Rows in the shards that no key refers to; `gc` drops them.
    pub fn unreachable_rows(&self) -> u64 {
        self.manifest.next_row() - self.manifest.rows
    }

    /// Bytes of all files but the manifest.
    pub fn bytes(&self) -> u64 {
        self.manifest.bytes()
    }

    /// The content of an attachment, with its checksum verified; `None` if there is none of this name.
    pub fn attachment(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let entry = self.manifest.attachments.iter().find(|entry| entry.file == name);
        entry.map(|entry| read_attachment(&self.dir, entry)).transpose()
    }
}

/// A file that is kept beside the rows, checked.
pub(crate) fn read_attachment(dir: &Path, entry: &Attachment) -> Result<Vec<u8>, Error> {
    let path = dir.join(&entry.file);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::File { path, finding: "missing".to_owned() });
        }
        Err(source) => return Err(Error::Read { path, source }),
        Ok(bytes) => bytes,
    };
    let found = sha256(&bytes);
    if found != entry.checksum {
        let finding = format!("its checksum is {found}, the manifest says {}", entry.checksum);
        return Err(Error::File { path, finding });
    }
    Ok(bytes)
}

/// Says what there is instead of a cache.
pub(crate) fn no_manifest(dir: &Path) -> Error {
    let dir = dir.to_owned();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Error::NoFolder { dir };
        }
        Err(source) => return Error::Read { path: dir, source },
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    let shards = names.iter().filter(|name| shard_number(name).is_some()).count();
    if shards > 0 {
        return Error::NoManifest { dir, shards };
    }
    let found = names.first().map_or_else(|| "nothing".to_owned(), |name| format!("`{name}`"));
    Error::NotACache { dir, found }
}
