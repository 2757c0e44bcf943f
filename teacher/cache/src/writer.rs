//! Adds rows to a cache, in portions that are there whole or not at all.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::{MANIFEST_FILE, Manifest, TEMPORARY_PREFIX, shard_number};
use crate::shard::Shard;
use crate::{Error, Fingerprint, Key, key_hex};

const LOCK_FILE: &str = ".lock";

/// The one writer of a cache folder.
///
/// Rows wait in memory until [`commit`](Self::commit); a writer that is dropped or killed before takes them with it,
/// and leaves what was committed.
pub struct CacheWriter {
    dir: PathBuf,
    manifest: Manifest,
    committed: HashSet<Key>,
    pending: BTreeMap<Key, Vec<f32>>,
    /// Holds the advisory lock for as long as it is open.
    _lock: File,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It waits for the next commit.
    Added,
    /// Its key is known; the first row stays. A resumed capture redoes an unfinished batch whole, so this is no error.
    Known,
}

impl CacheWriter {
    /// Makes a cache in `dir`, or goes on with the one that is there. Refuses a cache with another fingerprint or
    /// width, a folder that holds something else, and a second writer; checks every shard.
    pub fn create_or_resume(dir: &Path, fingerprint: &Fingerprint, width: usize) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| Error::Write { path, committed: 0, source }
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        if Manifest::read(dir)?.is_none() {
            refuse_foreign(dir)?;
        }
        let lock = lock(dir)?;
        // Read again: only now can nobody change it.
        let manifest = match Manifest::read(dir)? {
            Some(manifest) => {
                manifest.check(dir, fingerprint, Some(width))?;
                manifest
            }
            None => {
                let manifest = Manifest::new(fingerprint.clone(), width);
                manifest.write(dir)?;
                manifest
            }
        };
        let mut committed = HashSet::new();
        for entry in &manifest.shards {
            let shard = Shard::open(dir, entry, width)?;
            committed.reserve(entry.rows);
            for key in shard.keys() {
                if !committed.insert(key) {
                    let finding = format!("key {} is in an earlier shard too", key_hex(&key));
                    return Err(Error::Shard { path: dir.join(&entry.file), finding });
                }
            }
        }
        remove_leftovers(dir, &manifest)?;
        Ok(Self { dir: dir.to_owned(), manifest, committed, pending: BTreeMap::new(), _lock: lock })
    }

    /// Whether there is a row under this key, committed or waiting.
    pub fn contains(&self, key: &Key) -> bool {
        self.committed.contains(key) || self.pending.contains_key(key)
    }

    /// Takes a row for the next commit.
    ///
    /// # Shapes
    /// - `logits`: `[width]`, finite
    pub fn push(&mut self, key: Key, logits: &[f32]) -> Result<Push, Error> {
        if logits.len() != self.manifest.width {
            return Err(Error::Width { key: key_hex(&key), found: logits.len(), expected: self.manifest.width });
        }
        if let Some(position) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(Error::NotFinite { key: key_hex(&key), position, value: logits[position] });
        }
        if self.contains(&key) {
            return Ok(Push::Known);
        }
        self.pending.insert(key, logits.to_vec());
        Ok(Push::Added)
    }

    /// Writes the waiting rows as one shard, then the manifest that counts them in. Nothing waiting, nothing written.
    /// After an error the rows wait still, and another commit may be tried.
    pub fn commit(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let name = self.manifest.next_shard();
        let path = self.dir.join(&name);
        let rows: Vec<(Key, &[f32])> = self.pending.iter().map(|(key, row)| (*key, row.as_slice())).collect();
        let entry = Shard::write(&self.dir, name, &rows, self.manifest.width).map_err(|source| Error::Write {
            path,
            committed: self.manifest.rows(),
            source,
        })?;
        self.manifest.shards.push(entry);
        if let Err(error) = self.manifest.write(&self.dir) {
            self.manifest.shards.pop();
            return Err(match error {
                Error::Write { path, source, .. } => Error::Write { path, committed: self.manifest.rows(), source },
                other => other,
            });
        }
        self.committed.extend(self.pending.keys());
        self.pending.clear();
        Ok(())
    }

    /// Rows committed.
    pub fn rows(&self) -> usize {
        self.manifest.rows()
    }

    /// Rows that wait for a commit.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of all committed shards.
    pub fn bytes(&self) -> u64 {
        self.manifest.bytes()
    }
}

/// Removes the cache in `dir`: its manifest, then its shards. Refuses, and removes nothing, while a writer is at work
/// and where other files lie beside it; does nothing where there is no cache.
pub fn remove(dir: &Path) -> Result<(), Error> {
    if !dir.join(MANIFEST_FILE).exists() {
        return Ok(());
    }
    let _lock = lock(dir)?;
    let names = list(dir)?;
    if let Some(name) = names.iter().find(|name| is_foreign(name)) {
        return Err(Error::NotACache { dir: dir.to_owned(), found: format!("`{name}`") });
    }
    let names = names.into_iter().filter(|name| shard_number(name).is_some());
    // Without its manifest a cache is nothing: a kill in the middle leaves no half of one.
    for name in std::iter::once(MANIFEST_FILE.to_owned()).chain(names) {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(|source| Error::Write { path, committed: 0, source })?;
    }
    Ok(())
}

/// A folder without a manifest is taken only when nothing in it could be anybody's: an empty one, or one whose writer
/// was killed before its first manifest.
fn refuse_foreign(dir: &Path) -> Result<(), Error> {
    let names = list(dir)?;
    let shards = names.iter().filter(|name| shard_number(name).is_some()).count();
    if shards > 0 {
        return Err(Error::NoManifest { dir: dir.to_owned(), shards });
    }
    match names.iter().find(|name| is_foreign(name)) {
        Some(name) => Err(Error::NotACache { dir: dir.to_owned(), found: format!("`{name}`") }),
        None => Ok(()),
    }
}

/// Whether no writer of ours gives a file this name.
fn is_foreign(name: &str) -> bool {
    name != LOCK_FILE && !name.starts_with(TEMPORARY_PREFIX) && shard_number(name).is_none()
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK_FILE);
    let failed = |source: io::Error| Error::Write { path: path.clone(), committed: 0, source };
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Removes what a killed writer left: half-written files, and shards that no manifest came to count.
fn remove_leftovers(dir: &Path, manifest: &Manifest) -> Result<(), Error> {
    for name in list(dir)? {
        let uncounted = shard_number(&name).is_some() && !manifest.lists(&name);
        if uncounted || name.starts_with(TEMPORARY_PREFIX) {
            let path = dir.join(name);
            let committed = manifest.rows();
            fs::remove_file(&path).map_err(|source| Error::Write { path, committed, source })?;
        }
    }
    Ok(())
}

/// The names in a folder, sorted, the manifest's left out.
fn list(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |source: io::Error| Error::Read { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != MANIFEST_FILE);
    names.sort();
    Ok(names)
}
