//! Adds rows to a cache, in atomic commits.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use crate::container::FileEntry;
use crate::encode::{Encoder, NewRow, Parts};
use crate::files::{TEMPORARY_PREFIX, flush_names, write_whole};
use crate::fingerprint::Stale;
use crate::index::{Index, Merged, Run, remove_superseded};
use crate::manifest::{
    Attachment, MANIFEST_FILE, Manifest, index_name, index_number, is_attachment_name, sha256, shard_name, shard_number,
};
use crate::reader::CacheReader;
use crate::recorded::RecordedError;
use crate::shard::{Shard, StoredRow};
use crate::{Error, Fingerprint, Key};

const LOCK_FILE: &str = ".lock";

/// Rows that one thread encodes at a time, and logits: those of a vocabulary take long, and the teacher's forward passes
/// want the threads as well. Neither changes the result.
const CHUNK_ROWS: usize = 64;
const CHUNK_LOGITS: usize = 1 << 19;

/// Indexes of more rows than this together are left as runs when a capture ends.
const MOST_MERGED_AT_END: u64 = 32_000_000;

/// Shards of fewer bytes are joined once there are so many at the end.
const SMALL_SHARD_BYTES: u64 = 2 << 20;
const MOST_SMALL_SHARDS: usize = 32;

/// Bytes of rows after which copied rows are committed.
pub(crate) const COPIED_SHARD_BYTES: usize = 64 << 20;

/// The one writer of a cache folder.
///
/// Rows are encoded and kept in memory until [`commit`](Self::commit). If the writer is dropped or killed before, they
/// are lost; committed rows are safe.
pub struct CacheWriter {
    reader: Arc<CacheReader>,
    pending: HashMap<Key, u32>,
    parts: Parts,
    error: RecordedError,
    /// Holds the advisory lock for as long as it is open.
    _lock: File,
}

/// The settings of a new cache.
#[derive(Clone, Copy, Debug)]
pub struct NewCache<'a> {
    /// Teacher, settings and form of storage.
    pub fingerprint: &'a Fingerprint,
    /// Maximum tokens per forward pass. An existing cache keeps its own.
    pub batch_tokens: usize,
    /// Files to store in the cache folder: name and content.
    pub attachments: &'a [(&'a str, &'a [u8])],
}

impl CacheWriter {
    /// Creates a cache in `dir`, or resumes the one that is there. An error if it has another fingerprint, if the
    /// folder holds something else, or if another process is writing to it.
    pub fn create_or_resume(dir: &Path, new: &NewCache<'_>) -> Result<Self, Error> {
        Self::open(dir, new, false).map(|(writer, _)| writer)
    }

    /// As [`create_or_resume`](Self::create_or_resume), but updates a cache with another fingerprint: stale rows are
    /// dropped, for the caller to recompute.
    pub fn refresh(dir: &Path, new: &NewCache<'_>) -> Result<(Self, Stale), Error> {
        Self::open(dir, new, true)
    }

    /// Resumes an existing cache, whatever its fingerprint.
    pub fn resume(dir: &Path) -> Result<Self, Error> {
        if Manifest::read(dir)?.is_none() {
            return Err(crate::reader::no_manifest(dir));
        }
        let lock = lock(dir)?;
        let Some(manifest) = Manifest::read(dir)? else { return Err(crate::reader::no_manifest(dir)) };
        Self::of(dir, manifest, lock)
    }

    fn open(dir: &Path, new: &NewCache<'_>, refresh: bool) -> Result<(Self, Stale), Error> {
        new.fingerprint.captured.check().map_err(|finding| Error::Captured { finding })?;
        if let Some((name, _)) = new.attachments.iter().find(|(name, _)| !is_attachment_name(name)) {
            return Err(Error::Captured { finding: format!("a file named `{name}` beside the rows") });
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| Error::Write { path, committed: 0, source }
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        if Manifest::read(dir)?.is_none()
            && let Err(error) = refuse_foreign(dir)
            // Unless another writer began just now.
            && Manifest::read(dir)?.is_none()
        {
            return Err(error);
        }
        let lock = lock(dir)?;
        // The manifest comes first and names an attachment once it is there: a kill in between leaves a cache without it.
        let attach = |mut manifest: Manifest| {
            for (name, bytes) in new.attachments {
                if !manifest.attachments.iter().any(|entry| entry.file == *name) {
                    let path = dir.join(name);
                    write_whole(&path, bytes).map_err(failed(&path))?;
                    let (file, length) = ((*name).to_owned(), bytes.len() as u64);
                    manifest.attachments.push(Attachment { file, bytes: length, checksum: sha256(bytes) });
                    manifest.write(dir)?;
                }
            }
            Ok::<Manifest, Error>(manifest)
        };
        let begin = || {
            let manifest = Manifest::new(new.fingerprint.clone(), new.batch_tokens);
            manifest.write(dir)?;
            attach(manifest)
        };
        // Read again: only now can nobody change it.
        let Some(mut manifest) = Manifest::read(dir)? else {
            return Ok((Self::of(dir, begin()?, lock)?, Stale::Nothing));
        };
        if !refresh {
            manifest.check(dir, new.fingerprint)?;
            return Ok((Self::of(dir, attach(manifest)?, lock)?, Stale::Nothing));
        }
        let stale = manifest.fingerprint.stale_for(new.fingerprint);
        let writer = match &stale {
            Stale::Nothing => Self::of(dir, attach(manifest)?, lock)?,
            Stale::Everything(_) => Self::of(dir, begin()?, lock)?,
            Stale::Order(order) if !order.is_sorted() => {
                let mut writer = Self::of(dir, attach(manifest)?, lock)?;
                writer.rewrite(|_| true, Some((order, new.fingerprint)))?;
                writer
            }
            Stale::Order(_) | Stale::Length => {
                manifest.fingerprint = new.fingerprint.clone();
                manifest.write(dir)?;
                Self::of(dir, attach(manifest)?, lock)?
            }
        };
        Ok((writer, stale))
    }

    fn of(dir: &Path, manifest: Manifest, lock: File) -> Result<Self, Error> {
        remove_leftovers(dir, &manifest)?;
        let error = RecordedError::new(&manifest.fingerprint.captured);
        let reader = Arc::new(CacheReader::of(dir, Arc::new(manifest))?);
        Ok(Self { reader, pending: HashMap::new(), parts: Parts::default(), error, _lock: lock })
    }

    /// A reader of the committed rows, for use while this writer continues.
    pub fn reader(&self) -> &Arc<CacheReader> {
        &self.reader
    }

    /// Whether there is a row with this key, committed or pending.
    pub fn contains(&self, key: &Key) -> Result<bool, Error> {
        Ok(self.pending.contains_key(key) || self.reader.contains(key)?)
    }

    /// Adds rows to the next commit and returns how many were new. Rows whose key is already known are ignored, not an
    /// error: a resumed capture repeats an unfinished batch as a whole.
    pub fn push(&mut self, rows: &[NewRow<'_>]) -> Result<usize, Error> {
        let mut new = Vec::with_capacity(rows.len());
        let pushed = self.try_push(rows, &mut new);
        if pushed.is_err() {
            for row in &new {
                self.pending.remove(&row.key);
            }
        }
        pushed
    }

    /// Leaves the rows whose keys it put among the waiting ones in `new`, after an error too.
    fn try_push<'a>(&mut self, rows: &[NewRow<'a>], new: &mut Vec<NewRow<'a>>) -> Result<usize, Error> {
        for row in rows {
            if !self.contains(&row.key)? {
                self.check_room(self.pending.len())?;
                self.pending.insert(row.key, self.pending.len() as u32);
                new.push(*row);
            }
        }
        let captured = &self.reader.manifest.fingerprint.captured;
        let encode = |chunk: &[NewRow<'_>]| {
            let mut encoder = Encoder::new(captured);
            chunk.iter().try_for_each(|row| encoder.push(row))?;
            Ok((encoder.parts, encoder.error))
        };
        let row_logits = new.iter().map(|row| row.logits.len()).max().unwrap_or(0);
        let chunk_rows = (CHUNK_LOGITS / row_logits.max(1)).clamp(1, CHUNK_ROWS);
        let encoded: Result<Vec<(Parts, RecordedError)>, Error> = new.par_chunks(chunk_rows).map(encode).collect();
        for (parts, error) in encoded? {
            self.parts.append(&parts);
            self.error.add(&error);
        }
        Ok(new.len())
    }

    /// Takes a row of another cache of the same form, as it is stored there.
    pub(crate) fn copy(&mut self, key: Key, row: &StoredRow<'_>) -> Result<(), Error> {
        self.check_room(self.pending.len())?;
        self.pending.insert(key, self.pending.len() as u32);
        row.append_to(&mut self.parts);
        Ok(())
    }

    fn check_room(&self, waiting: usize) -> Result<(), Error> {
        match self.reader.manifest.next_row() + waiting as u64 >= u64::from(u32::MAX) {
            true => Err(Error::Full { dir: self.reader.dir.clone() }),
            false => Ok(()),
        }
    }

    /// Writes the pending rows as one shard and their keys to the index, then the manifest that makes them visible.
    /// Does nothing if no rows are pending. After an error the rows are still pending, and the commit can be tried
    /// again.
    pub fn commit(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let committed = self.reader.manifest.rows;
        self.try_commit().map_err(|error| error.with_committed(committed))?;
        self.pending.clear();
        self.parts = Parts::default();
        self.error = RecordedError::new(&self.reader.manifest.fingerprint.captured);
        let committed = self.reader.manifest.rows;
        self.join_small_shards().map_err(|error| error.with_committed(committed))
    }

    /// Makes one shard of many small ones at the end, so that a capture of any length leaves hundreds of files and not tens
    /// of thousands. The rows keep their order, and so their numbers.
    fn join_small_shards(&mut self) -> Result<(), Error> {
        let old = self.reader.clone();
        let shards = &old.manifest.shards;
        let joined = shards.iter().rev().take_while(|shard| shard.bytes < SMALL_SHARD_BYTES).count();
        if joined < MOST_SMALL_SHARDS {
            return Ok(());
        }
        let kept = shards.len() - joined;
        let mut parts = Parts::default();
        for row in old.first_rows[kept]..old.manifest.next_row() as u32 {
            old.row(row)?.append_to(&mut parts);
        }
        let mut manifest = (*old.manifest).clone();
        let name = shard_name(manifest.next_shard());
        let path = old.dir.join(&name);
        let shard = Shard::write(&old.dir, name, old.captured(), &parts);
        let shard = shard.map_err(|source| Error::Write { path, committed: 0, source })?;
        let superseded = manifest.shards.split_off(kept);
        manifest.shards.push(shard);
        self.publish(manifest)?;
        remove_superseded(&old.dir, superseded.into_iter().map(|shard| shard.file));
        Ok(())
    }

    fn try_commit(&mut self) -> Result<(), Error> {
        let dir = self.reader.dir.clone();
        let mut manifest = (*self.reader.manifest).clone();
        let first_row = manifest.next_row() as u32;
        let name = shard_name(manifest.next_shard());
        let path = dir.join(&name);
        let captured = &manifest.fingerprint.captured;
        let shard = Shard::write(&dir, name, captured, &self.parts).map_err(|source| Error::Write {
            path,
            committed: 0,
            source,
        })?;

        let mut entries: Vec<(Key, u32)> = self.pending.iter().map(|(key, row)| (*key, first_row + row)).collect();
        entries.par_sort_unstable();
        let merged = Index::runs_to_merge(&manifest.indexes, shard.rows);
        let superseded = self.write_index(&mut manifest, merged, entries)?;
        manifest.rows += u64::from(shard.rows);
        manifest.shards.push(shard);
        manifest.recorded_error.add(&self.error);
        self.publish(manifest)?;
        remove_superseded(&dir, superseded);
        Ok(())
    }

    /// Writes entries and the keys of the last runs as one; the names of these.
    fn write_index(
        &self,
        manifest: &mut Manifest,
        merged: usize,
        entries: Vec<(Key, u32)>,
    ) -> Result<Vec<String>, Error> {
        let kept = manifest.indexes.len() - merged;
        let name = index_name(manifest.next_index());
        let old: Vec<FileEntry> = manifest.indexes.split_off(kept);
        let rows = old.iter().map(|entry| entry.rows).sum::<u32>() + entries.len() as u32;
        type Source<'a> = Box<dyn Iterator<Item = Result<(Key, u32), Error>> + 'a>;
        let mut sources: Vec<Source<'_>> = Vec::new();
        for run in &self.reader.index.runs()[kept..] {
            sources.push(Box::new(run.entries()));
        }
        sources.push(Box::new(entries.into_iter().map(Ok)));
        let all = Merged::new(sources).map(|entry| entry.map(|(_, key, row)| (key, row)));
        manifest.indexes.push(Run::write(&self.reader.dir, name, rows, all)?);
        Ok(old.into_iter().map(|entry| entry.file).collect())
    }

    /// Makes a manifest the one that counts, once all that it names is mapped.
    fn publish(&mut self, manifest: Manifest) -> Result<(), Error> {
        let reader = self.reader.remapped(Arc::new(manifest))?;
        let dir = &self.reader.dir;
        flush_names(dir).map_err(|source| Error::Write { path: dir.clone(), committed: 0, source })?;
        reader.manifest.write(dir)?;
        self.reader = Arc::new(reader);
        Ok(())
    }

    /// Commits the pending rows and merges the indexes into one, unless they are very large.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.commit()?;
        let mut manifest = (*self.reader.manifest).clone();
        let runs = manifest.indexes.len();
        if runs < 2 || manifest.rows > MOST_MERGED_AT_END {
            return Ok(());
        }
        let committed = manifest.rows;
        let superseded = self.write_index(&mut manifest, runs, Vec::new());
        let superseded = superseded.map_err(|error| error.with_committed(committed))?;
        self.publish(manifest).map_err(|error| error.with_committed(committed))?;
        remove_superseded(&self.reader.dir, superseded);
        Ok(())
    }

    /// Rewrites the rows to keep, in the order of their keys; all others are dropped. If another fingerprint and an
    /// order are given, logits are permuted: the new logit `i` is the old `order[i]`. The recorded error is kept,
    /// though it was also measured on dropped rows.
    pub fn rewrite(
        &mut self,
        keep: impl Fn(&Key) -> bool,
        reorder: Option<(&[u32], &Fingerprint)>,
    ) -> Result<(), Error> {
        self.commit()?;
        let old = self.reader.clone();
        let dir = old.dir.clone();
        let captured = &old.manifest.fingerprint.captured;
        let mut manifest = (*old.manifest).clone();
        let (mut next_shard, next_index) = (manifest.next_shard(), manifest.next_index());
        (manifest.shards, manifest.indexes, manifest.rows) = (Vec::new(), Vec::new(), 0);

        if let Some((order, _)) = reorder {
            let mut sorted = order.to_vec();
            sorted.sort_unstable();
            if !sorted.into_iter().eq(0..captured.width as u32) {
                let finding = format!("{} logits in the order {order:?}", captured.width);
                return Err(Error::Captured { finding });
            }
        }
        let mut parts = Parts::default();
        let mut write = |parts: &mut Parts, manifest: &mut Manifest| {
            let name = shard_name(next_shard);
            next_shard += 1;
            let path = dir.join(&name);
            let shard = Shard::write(&dir, name, captured, parts).map_err(|source| Error::Write {
                path,
                committed: old.manifest.rows,
                source,
            })?;
            manifest.rows += u64::from(shard.rows);
            manifest.shards.push(shard);
            *parts = Parts::default();
            Ok(())
        };
        for entry in old.rows() {
            let (key, row) = entry?;
            if !keep(&key) {
                continue;
            }
            match reorder {
                Some((order, _)) => row.append_reordered(order, &mut parts).map_err(|index| {
                    let (key, width) = (crate::key_hex(&key), captured.width);
                    let finding = format!("the row with key {key} has index {index} of {width} logits");
                    Error::File { path: dir.clone(), finding }
                })?,
                None => row.append_to(&mut parts),
            }
            if parts.bytes() >= COPIED_SHARD_BYTES {
                write(&mut parts, &mut manifest)?;
            }
        }
        if !parts.sizes.is_empty() {
            write(&mut parts, &mut manifest)?;
        }
        if manifest.rows > 0 {
            let kept = Merged::new(old.index.runs().iter().map(|run| run.entries()))
                .filter(|entry| entry.as_ref().map_or(true, |(_, key, _)| keep(key)));
            let numbered = kept.zip(0..).map(|(entry, row)| entry.map(|(_, key, _)| (key, row)));
            let run = Run::write(&dir, index_name(next_index), manifest.rows as u32, numbered);
            manifest.indexes.push(run.map_err(|error| error.with_committed(old.manifest.rows))?);
        }
        if let Some((_, fingerprint)) = reorder {
            manifest.fingerprint = fingerprint.clone();
        }
        self.publish(manifest).map_err(|error| error.with_committed(old.manifest.rows))?;
        let files = old.manifest.shards.iter().chain(&old.manifest.indexes);
        remove_superseded(&dir, files.map(|entry| entry.file.clone()));
        Ok(())
    }

    /// Replaces the recorded error, by that of several merged caches.
    pub(crate) fn set_recorded_error(&mut self, error: RecordedError) -> Result<(), Error> {
        let mut manifest = (*self.reader.manifest).clone();
        manifest.recorded_error = error;
        self.publish(manifest)
    }

    /// Number of committed rows.
    pub fn rows(&self) -> usize {
        self.reader.len()
    }

    /// Number of pending rows.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Memory of the pending rows, in bytes.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.parts.bytes() + 48 * self.pending.len()
    }

    /// Bytes of all committed files but the manifest.
    pub fn bytes(&self) -> u64 {
        self.reader.bytes()
    }
}

/// Removes the cache in `dir`: its files, then its manifest; does nothing if there is none. An error, with nothing
/// removed, while another process writes to it or if the folder holds other files. Files named in `attachments` count
/// as the cache's own even if its manifest does not name them or cannot be read.
pub fn remove(dir: &Path, attachments: &[&str]) -> Result<(), Error> {
    if !dir.join(MANIFEST_FILE).exists() {
        return Ok(());
    }
    let _lock = lock(dir)?;
    let names = list(dir)?;
    let listed: Vec<String> = match Manifest::read(dir) {
        Ok(Some(manifest)) => manifest.attachments.into_iter().map(|entry| entry.file).collect(),
        _ => Vec::new(),
    };
    let named = |name: &String| listed.contains(name) || attachments.contains(&name.as_str());
    if let Some(name) = names.iter().find(|name| is_foreign(name) && !named(name)) {
        return Err(Error::Foreign { dir: dir.to_owned(), found: name.clone() });
    }
    let names = names.into_iter().filter(|name| name != LOCK_FILE);
    // The manifest comes last: after a kill in the middle this can be done again, and nobody takes what is left for a cache.
    for name in names.chain(std::iter::once(MANIFEST_FILE.to_owned())) {
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
    name != LOCK_FILE && !name.starts_with(TEMPORARY_PREFIX) && !is_ours(name)
}

fn is_ours(name: &str) -> bool {
    shard_number(name).is_some() || index_number(name).is_some()
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK_FILE);
    let failed = |source: io::Error| Error::Write { path: path.clone(), committed: 0, source };
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    for attempt in 0.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if attempt == LOCK_ATTEMPTS => {
                return Err(Error::Busy { dir: dir.to_owned() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    Ok(file)
}

/// A process that another thread is starting holds every open file, locks included, until its program takes over: a
/// moment, which a writer behind another one waits out.
const LOCK_ATTEMPTS: usize = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Removes what a killed writer left: half-written files, and files that no manifest came to count.
fn remove_leftovers(dir: &Path, manifest: &Manifest) -> Result<(), Error> {
    for name in list(dir)? {
        let uncounted = is_ours(&name) && !manifest.lists(&name);
        if uncounted || name.starts_with(TEMPORARY_PREFIX) {
            let path = dir.join(name);
            let committed = manifest.rows;
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
