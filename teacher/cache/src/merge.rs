//! Merges caches, for instance from several machines, into one.

use std::path::Path;

use crate::index::Merged;
use crate::reader::CacheReader;
use crate::shard::StoredRow;
use crate::writer::{COPIED_SHARD_BYTES, CacheWriter, NewCache};
use crate::{Error, Key};

/// The result of a merge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Merge {
    /// Rows of the merged cache.
    pub rows: usize,
    /// Rows that were in more than one cache; the first cache's was taken.
    pub shared: usize,
    /// Those of the shared rows whose bytes differ between the caches.
    pub differing: usize,
    /// The largest difference between corresponding logits of shared rows.
    pub largest_difference: f32,
}

/// Copies the rows of all caches into `output`, in the order of their keys. All caches must have the same fingerprint.
/// An interrupted merge is resumed.
pub fn merge(inputs: &[&Path], output: &Path) -> Result<Merge, Error> {
    let mut readers = Vec::with_capacity(inputs.len());
    for input in inputs {
        readers.push(CacheReader::open(input, None)?);
    }
    let Some((first, others)) = readers.split_first() else { return Ok(Merge::default()) };
    for (other, dir) in others.iter().zip(&inputs[1..]) {
        if let Some(difference) = other.fingerprint().difference(first.fingerprint()) {
            return Err(Error::Fingerprint { dir: dir.to_path_buf(), difference });
        }
    }
    let mut attachments = Vec::new();
    for entry in &first.manifest.attachments {
        attachments.extend(first.attachment(&entry.file)?.map(|bytes| (entry.file.as_str(), bytes)));
    }
    let attachments: Vec<(&str, &[u8])> = attachments.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let (fingerprint, batch_tokens) = (first.fingerprint(), first.batch_tokens());
    let new = NewCache { fingerprint, batch_tokens, attachments: &attachments };
    let mut writer = CacheWriter::create_or_resume(output, &new)?;

    for entry in writer.reader().rows() {
        let (key, _) = entry?;
        let known = readers.iter().map(|reader| reader.contains(&key)).collect::<Result<Vec<bool>, Error>>()?;
        if !known.contains(&true) {
            let finding = "holds rows of none of these caches; merge it with them, into another folder".to_owned();
            return Err(Error::File { path: output.to_owned(), finding });
        }
    }
    // First, so that a merge that is stopped has recorded no less than it lost.
    let mut error = first.recorded_error().clone();
    others.iter().for_each(|reader| error.add(reader.recorded_error()));
    writer.set_recorded_error(error)?;

    // All runs of all caches side by side, those of the first cache first.
    let runs: Vec<(usize, _)> = readers
        .iter()
        .enumerate()
        .flat_map(|(number, reader)| reader.index.runs().iter().map(move |run| (number, run.entries())))
        .collect();
    let owners: Vec<usize> = runs.iter().map(|(owner, _)| *owner).collect();
    let mut found = Merge::default();
    let mut last: Option<(Key, StoredRow<'_>)> = None;
    let mut shared = None;
    for entry in Merged::new(runs.into_iter().map(|(_, entries)| entries)) {
        let (run, key, row) = entry?;
        let row = readers[owners[run]].row(row)?;
        match &last {
            Some((before, taken)) if *before == key => {
                if shared != Some(key) {
                    found.shared += 1;
                    shared = Some(key);
                }
                if row.parts() != taken.parts() {
                    found.differing += 1;
                    let difference = row.logits().zip(taken.logits()).map(|(a, b)| (a - b).abs());
                    found.largest_difference = difference.fold(found.largest_difference, f32::max);
                }
            }
            _ => {
                if !writer.contains(&key)? {
                    writer.copy(key, &row)?;
                }
                if writer.pending_bytes() >= COPIED_SHARD_BYTES {
                    writer.commit()?;
                }
                last = Some((key, row));
            }
        }
    }
    writer.finish()?;
    found.rows = writer.rows();
    Ok(found)
}
