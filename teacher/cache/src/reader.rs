//! Looks rows up by key. Many threads may share one reader.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::manifest::Manifest;
use crate::shard::Shard;
use crate::{Error, Fingerprint, Key, key_hex};

/// A cache as its manifest described it at the moment of opening; rows committed later are not seen.
pub struct CacheReader {
    manifest: Manifest,
    shards: Vec<Shard>,
    index: HashMap<Key, Place>,
}

#[derive(Clone, Copy)]
struct Place {
    shard: u32,
    row: u32,
}

impl CacheReader {
    /// Opens a cache and checks every shard. With an `expected` fingerprint, refuses a cache made with another.
    pub fn open(dir: &Path, expected: Option<&Fingerprint>) -> Result<Self, Error> {
        let Some(manifest) = Manifest::read(dir)? else {
            return Err(no_manifest(dir));
        };
        if let Some(fingerprint) = expected {
            manifest.check(dir, fingerprint, None)?;
        }
        let mut shards = Vec::with_capacity(manifest.shards.len());
        let mut index = HashMap::new();
        for (shard_position, entry) in manifest.shards.iter().enumerate() {
            let shard = Shard::open(dir, entry, manifest.width)?;
            let wrong = |finding: String| Error::Shard { path: dir.join(&entry.file), finding };
            index.reserve(entry.rows);
            for (row, key) in shard.keys().enumerate() {
                let too_many = |_| wrong(format!("row {row} is more than this format counts"));
                let place = Place {
                    shard: u32::try_from(shard_position).map_err(too_many)?,
                    row: u32::try_from(row).map_err(too_many)?,
                };
                if index.insert(key, place).is_some() {
                    return Err(wrong(format!("key {} is in an earlier shard too", key_hex(&key))));
                }
            }
            shards.push(shard);
        }
        Ok(Self { manifest, shards, index })
    }

    /// The logits under a key, in place.
    ///
    /// # Shapes
    /// - returns: `[width]`
    pub fn get(&self, key: &Key) -> Option<&[f32]> {
        let place = self.index.get(key)?;
        Some(self.shards[place.shard as usize].logits(place.row as usize))
    }

    /// Whether there is a row under this key.
    pub fn contains(&self, key: &Key) -> bool {
        self.index.contains_key(key)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Logits a row.
    pub fn width(&self) -> usize {
        self.manifest.width
    }

    /// What the cache was made with.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.manifest.fingerprint
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.manifest.bytes()
    }
}

/// Says what there is instead of a cache.
fn no_manifest(dir: &Path) -> Error {
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
    let shards = names.iter().filter(|name| crate::manifest::shard_number(name).is_some()).count();
    if shards > 0 {
        return Error::NoManifest { dir, shards };
    }
    let found = names.first().map_or_else(|| "nothing".to_owned(), |name| format!("`{name}`"));
    Error::NotACache { dir, found }
}
