//! Maps keys to row numbers: sorted runs of keys, each with a table of buckets by their first bits.
//!
//! A capture adds a small run with each commit. Runs are merged as they accumulate, so there are few of them after any
//! number of commits. Merging never moves rows.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use safetensors::tensor::Dtype;

use crate::ahead::touch;
use crate::container::{FileEntry, Mapped, Spec, Tensor, Writer};
use crate::{Error, Key, key_hex};

/// Bytes of a key and its row's number.
const ENTRY_BYTES: usize = 20;
const KEY_BYTES: usize = size_of::<Key>();

/// Keys of a bucket, at most, on average.
const BUCKET_KEYS: usize = 8;

/// Entries that are read at a time.
const CHUNK_ENTRIES: usize = 4096;

/// Keys that are looked up at a time.
pub(crate) const SIDE_BY_SIDE: usize = 32;

/// A run smaller than this many times all runs behind it is merged with them.
const MERGE_RATIO: u64 = 4;

/// The runs of a cache, none with a key of another, the largest first.
#[derive(Default, Clone)]
pub(crate) struct Index {
    runs: Vec<Arc<Run>>,
}

impl Index {
    /// The index of other runs; those that both have are kept with what was checked of them.
    pub(crate) fn reopen(&self, dir: &Path, entries: &[FileEntry]) -> Result<Self, Error> {
        let mut runs = Vec::with_capacity(entries.len());
        for entry in entries {
            runs.push(match self.runs.iter().find(|run| run.file.is(entry)) {
                Some(run) => run.clone(),
                None => Arc::new(Run::open(dir, entry)?),
            });
        }
        Ok(Self { runs })
    }

    /// The number of a key's row.
    pub(crate) fn find(&self, key: &Key) -> Result<Option<u32>, Error> {
        for run in &self.runs {
            if let Some(row) = run.find(key)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// The numbers of the rows of up to [`SIDE_BY_SIDE`] keys.
    ///
    /// A lookup waits for memory three times: for the bucket, its entries and the row, each of which points to the
    /// next. Doing each step for many keys at once overlaps these waits.
    pub(crate) fn find_many(&self, keys: &[Key]) -> Result<[Option<u32>; SIDE_BY_SIDE], Error> {
        let mut rows = [None; SIDE_BY_SIDE];
        for run in &self.runs {
            run.find_many(keys, &mut rows)?;
            if rows[..keys.len()].iter().all(Option::is_some) {
                break;
            }
        }
        Ok(rows)
    }

    pub(crate) fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// How many runs, from the end, a new one of so many rows is to be merged with.
    pub(crate) fn runs_to_merge(entries: &[FileEntry], rows: u32) -> usize {
        let mut behind = u64::from(rows);
        let mut merged = 0;
        for entry in entries.iter().rev() {
            if u64::from(entry.rows) >= MERGE_RATIO * behind {
                break;
            }
            behind += u64::from(entry.rows);
            merged += 1;
        }
        merged
    }
}

/// A sorted run of keys, mapped.
pub(crate) struct Run {
    file: Mapped,
    rows: usize,
    form: OnceLock<Form>,
}

struct Form {
    entries: Tensor,
    buckets: Tensor,
    /// How many of a key's first bits say its bucket.
    bits: u32,
}

impl Run {
    pub(crate) fn open(dir: &Path, entry: &FileEntry) -> Result<Self, Error> {
        Ok(Self { file: Mapped::open(dir, entry)?, rows: entry.rows as usize, form: OnceLock::new() })
    }

    /// Writes keys, ascending, with their rows' numbers.
    pub(crate) fn write(
        dir: &Path,
        name: String,
        rows: u32,
        entries: impl Iterator<Item = Result<(Key, u32), Error>>,
    ) -> Result<FileEntry, Error> {
        let path = dir.join(&name);
        let failed = |source: io::Error| Error::Write { path: path.clone(), committed: 0, source };
        let bits = bucket_bits(rows as usize);
        let buckets = 1_usize << bits;
        let specs = [
            Spec::new("entries", Dtype::U8, [rows as usize, ENTRY_BYTES]),
            Spec::new("buckets", Dtype::U32, [buckets + 1]),
        ];
        let mut writer = Writer::create(dir, &specs).map_err(failed)?;
        // Keys of each bucket, then where each begins.
        let mut starts = vec![0_u32; buckets + 1];
        let mut last = None;
        for entry in entries {
            let (key, row) = entry?;
            if last.is_some_and(|last| last >= key) {
                let finding = format!("key {} is not above the key before it", key_hex(&key));
                return Err(Error::File { path: path.clone(), finding });
            }
            last = Some(key);
            starts[bucket_of(&key, bits) + 1] += 1;
            let mut bytes = [0; ENTRY_BYTES];
            bytes[..KEY_BYTES].copy_from_slice(&key);
            bytes[KEY_BYTES..].copy_from_slice(&row.to_le_bytes());
            writer.write(&bytes).map_err(failed)?;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        for starts in starts.chunks(CHUNK_ENTRIES) {
            let bytes: Vec<u8> = starts.iter().flat_map(|start| start.to_le_bytes()).collect();
            writer.write(&bytes).map_err(failed)?;
        }
        writer.finish(dir, name, rows).map_err(failed)
    }

    pub(crate) fn find(&self, key: &Key) -> Result<Option<u32>, Error> {
        let form = self.form()?;
        Ok(find_among(self.file.bytes(form.entries.rows(self.bucket(form, key)?))?, key))
    }

    /// As [`find`](Self::find), for up to [`SIDE_BY_SIDE`] keys: those that have no row yet get theirs.
    pub(crate) fn find_many(&self, keys: &[Key], rows: &mut [Option<u32>]) -> Result<(), Error> {
        let form = self.form()?;
        let missing = |(_, row): &(&Key, &Option<u32>)| row.is_none();
        for (key, _) in keys.iter().zip(&*rows).filter(missing) {
            let bucket = bucket_of(key, form.bits);
            touch(self.file.bytes(form.buckets.rows(bucket..bucket + 2))?);
        }
        let mut buckets: [Range<usize>; SIDE_BY_SIDE] = Default::default();
        for ((key, row), bucket) in keys.iter().zip(&*rows).zip(&mut buckets) {
            if row.is_none() {
                *bucket = self.bucket(form, key)?;
            }
        }
        let mut entries: [&[u8]; SIDE_BY_SIDE] = [&[]; SIDE_BY_SIDE];
        for (bucket, entries) in buckets.into_iter().zip(&mut entries) {
            *entries = self.file.bytes(form.entries.rows(bucket))?;
            touch(entries);
        }
        for ((key, row), entries) in keys.iter().zip(rows).zip(entries) {
            *row = row.or_else(|| find_among(entries, key));
        }
        Ok(())
    }

    /// The entries of a key's bucket.
    fn bucket(&self, form: &Form, key: &Key) -> Result<Range<usize>, Error> {
        let bucket = bucket_of(key, form.bits);
        let bounds = self.file.bytes(form.buckets.rows(bucket..bucket + 2))?;
        let (start, end) = (number(&bounds[..4]) as usize, number(&bounds[4..]) as usize);
        if start > end || end > self.rows {
            return Err(self.file.damaged(format!("bucket {bucket} holds entries {start} to {end} of {}", self.rows)));
        }
        Ok(start..end)
    }

    /// The keys, ascending, with their rows' numbers.
    pub(crate) fn entries(&self) -> Entries<'_> {
        Entries { run: self, next: 0, chunk: &[] }
    }

    /// Checks every byte, the order of the keys and the buckets; `seen` gets each row's number.
    pub(crate) fn verify(&self, mut seen: impl FnMut(&Key, u32) -> Result<(), String>) -> Result<(), Error> {
        self.file.verify()?;
        let form = self.form()?;
        let starts = self.file.bytes(form.buckets.range.clone())?.as_chunks::<4>().0;
        let ends = [starts.first(), starts.last()].map(|start| start.map_or(0, |start| number(start) as usize));
        if ends != [0, self.rows] || !starts.is_sorted_by_key(|start| number(start)) {
            return Err(self.file.damaged("its buckets do not hold its keys one after the other".to_owned()));
        }
        let mut last: Option<Key> = None;
        for (position, entry) in self.entries().enumerate() {
            let (key, row) = entry?;
            if last.is_some_and(|last| last >= key) {
                return Err(self.file.damaged(format!("key {position} is not above the key before it")));
            }
            let bucket = bucket_of(&key, form.bits);
            let bounds = self.file.bytes(form.buckets.rows(bucket..bucket + 2))?;
            if !(number(&bounds[..4])..number(&bounds[4..])).contains(&(position as u32)) {
                return Err(self.file.damaged(format!("key {position} is not in its bucket, {bucket}")));
            }
            seen(&key, row).map_err(|finding| self.file.damaged(finding))?;
            last = Some(key);
        }
        Ok(())
    }

    fn form(&self) -> Result<&Form, Error> {
        if let Some(form) = self.form.get() {
            return Ok(form);
        }
        let entries = self.file.tensor("entries", Dtype::U8)?;
        let buckets = self.file.tensor("buckets", Dtype::U32)?;
        let bits = bucket_bits(self.rows);
        for (name, found, expected) in [
            ("entries", &entries.shape, vec![self.rows, ENTRY_BYTES]),
            ("buckets", &buckets.shape, vec![(1 << bits) + 1]),
        ] {
            if *found != expected {
                return Err(self.file.damaged(format!("tensor `{name}` is {found:?}, the manifest says {expected:?}")));
            }
        }
        Ok(self.form.get_or_init(|| Form { entries, buckets, bits }))
    }
}

/// A run's keys in ascending order.
pub(crate) struct Entries<'a> {
    run: &'a Run,
    next: usize,
    chunk: &'a [[u8; ENTRY_BYTES]],
}

impl Iterator for Entries<'_> {
    type Item = Result<(Key, u32), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.chunk.is_empty() {
            if self.next >= self.run.rows {
                return None;
            }
            let end = (self.next + CHUNK_ENTRIES).min(self.run.rows);
            let bytes = self.run.form().and_then(|form| self.run.file.bytes(form.entries.rows(self.next..end)));
            self.next = end;
            match bytes {
                Ok(bytes) => self.chunk = bytes.as_chunks().0,
                Err(error) => {
                    self.next = self.run.rows;
                    return Some(Err(error));
                }
            }
        }
        let (entry, rest) = self.chunk.split_first()?;
        self.chunk = rest;
        let mut key = Key::default();
        key.copy_from_slice(&entry[..KEY_BYTES]);
        Some(Ok((key, number(&entry[KEY_BYTES..]))))
    }
}

/// Several sorted sources as one. Of equal keys the one of the earliest source comes first.
pub(crate) struct Merged<I: Iterator> {
    sources: Vec<std::iter::Peekable<I>>,
}

impl<I: Iterator<Item = Result<(Key, u32), Error>>> Merged<I> {
    pub(crate) fn new(sources: impl IntoIterator<Item = I>) -> Self {
        Self { sources: sources.into_iter().map(Iterator::peekable).collect() }
    }
}

impl<I: Iterator<Item = Result<(Key, u32), Error>>> Iterator for Merged<I> {
    /// The source's number, and what it gave.
    type Item = Result<(usize, Key, u32), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut least: Option<(usize, Key)> = None;
        for (number, source) in self.sources.iter_mut().enumerate() {
            match source.peek() {
                Some(Ok((key, _))) if least.is_none_or(|(_, least)| *key < least) => least = Some((number, *key)),
                Some(Err(_)) => {
                    least = Some((number, Key::default()));
                    break;
                }
                _ => {}
            }
        }
        let (number, _) = least?;
        Some(self.sources[number].next()?.map(|(key, row)| (number, key, row)))
    }
}

/// How many of a key's first bits say its bucket, in a run of so many keys.
fn bucket_bits(rows: usize) -> u32 {
    rows.div_ceil(BUCKET_KEYS).max(1).next_power_of_two().trailing_zeros()
}

fn bucket_of(key: &Key, bits: u32) -> usize {
    let mut first = [0; 8];
    first.copy_from_slice(&key[..8]);
    u64::from_be_bytes(first).checked_shr(64 - bits).unwrap_or(0) as usize
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn find_among(entries: &[u8], key: &Key) -> Option<u32> {
    let found = entries.as_chunks::<ENTRY_BYTES>().0.iter().find(|entry| entry[..KEY_BYTES] == *key);
    found.map(|entry| number(&entry[KEY_BYTES..]))
}

/// Removes a file that no manifest names any more; one that stays is removed by the next writer.
pub(crate) fn remove_superseded(dir: &Path, files: impl IntoIterator<Item = String>) {
    for file in files {
        let _ = fs::remove_file(dir.join(file));
    }
}
