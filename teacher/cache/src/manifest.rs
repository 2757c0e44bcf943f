//! The manifest, the only mutable file of a cache: what it was made with, and the list of its files.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::container::{FileEntry, hex};
use crate::files::write_whole;
use crate::recorded::RecordedError;
use crate::{Error, Fingerprint, SCHEMA_VERSION};

pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// The field with the hash of each other field.
const SEALS: &str = "seals";

/// Digits of a seal.
const SEAL_DIGITS: usize = 16;

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) fingerprint: Fingerprint,
    /// Tokens of a forward batch: together with the data it decides how rows are batched.
    pub(crate) batch_tokens: usize,
    /// Rows that the indexes lead to.
    pub(crate) rows: u64,
    /// In the order of their rows' numbers.
    pub(crate) shards: Vec<FileEntry>,
    /// The largest first.
    pub(crate) indexes: Vec<FileEntry>,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) recorded_error: RecordedError,
}

/// A file that is kept beside the rows.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attachment {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    /// SHA-256 of the file.
    pub(crate) checksum: String,
}

impl Manifest {
    pub(crate) fn new(fingerprint: Fingerprint, batch_tokens: usize) -> Self {
        let recorded_error = RecordedError::new(&fingerprint.captured);
        Self {
            schema_version: SCHEMA_VERSION,
            fingerprint,
            batch_tokens,
            rows: 0,
            shards: Vec::new(),
            indexes: Vec::new(),
            attachments: Vec::new(),
            recorded_error,
        }
    }

    /// The manifest of `dir`, or none when there is no such file.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(MANIFEST_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(source) if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(Error::Read { path, source }),
        };
        Self::parse(&text, &path).map(Some)
    }

    /// Whether the folder's manifest names other files by now.
    pub(crate) fn was_replaced(&self, dir: &Path) -> bool {
        let now = Self::read(dir).ok().flatten();
        now.is_some_and(|now| now.shards != self.shards || now.indexes != self.indexes)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, Error> {
        let wrong = |finding: String| Error::Manifest { path: path.to_owned(), finding };
        let json: Value = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        let Value::Object(mut fields) = json else { return Err(wrong("no JSON object".to_owned())) };
        // The version comes first: a later format may have any other fields.
        let version = fields.get("schema_version").ok_or_else(|| wrong("no field `schema_version`".to_owned()))?;
        if version.as_u64() != Some(u64::from(SCHEMA_VERSION)) {
            let (path, found) = (path.to_owned(), version.to_string());
            return Err(Error::SchemaVersion { path, found, newest: SCHEMA_VERSION });
        }
        let seals = fields.shift_remove(SEALS).ok_or_else(|| wrong(format!("no field `{SEALS}`")))?;
        // Before the fields are understood: a seal knows which one was edited, a parser may not.
        let expected = seal(&fields);
        if let Some((field, _)) = expected.iter().find(|(field, seal)| seals.get(field) != Some(seal)) {
            return Err(wrong(format!("field `{field}` is not what it was when it was written")));
        }
        let manifest: Self = serde_json::from_value(Value::Object(fields)).map_err(|error| wrong(error.to_string()))?;
        if seals != Value::Object(expected) || text != manifest.text()? {
            return Err(wrong("it is not as it was written, though each field is".to_owned()));
        }
        manifest.check_files().and_then(|()| manifest.check_rows()).map_err(wrong)?;
        let captured = &manifest.fingerprint.captured;
        captured.check().map_err(|finding| wrong(format!("field `fingerprint.captured` says {finding}")))?;
        Ok(manifest)
    }

    /// Names are ours, and no file is named twice.
    fn check_files(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        let shards = self.shards.iter().map(|entry| ("shards", &entry.file, shard_number(&entry.file).is_some()));
        let indexes = self.indexes.iter().map(|entry| ("indexes", &entry.file, index_number(&entry.file).is_some()));
        let others = self.attachments.iter().map(|entry| ("attachments", &entry.file, is_attachment_name(&entry.file)));
        for (field, name, good) in shards.chain(indexes).chain(others) {
            if !good {
                return Err(format!("field `{field}` names `{name}`, which is no name of such a file"));
            }
            if !names.insert(name) {
                return Err(format!("field `{field}` names `{name}` twice"));
            }
        }
        Ok(())
    }

    /// As many rows as keys, and as rows in shards at most.
    fn check_rows(&self) -> Result<(), String> {
        let (rows, held) = (self.rows, self.next_row());
        let keys: u64 = self.indexes.iter().map(|entry| u64::from(entry.rows)).sum();
        if keys != rows {
            return Err(format!("field `rows` is {rows}, field `indexes` has {keys} keys"));
        }
        if held < rows || held > u64::from(u32::MAX) {
            return Err(format!("field `shards` has {held} rows, field `rows` is {rows}"));
        }
        Ok(())
    }

    /// Refuses a cache that was made with another fingerprint.
    pub(crate) fn check(&self, dir: &Path, expected: &Fingerprint) -> Result<(), Error> {
        match self.fingerprint.difference(expected) {
            Some(difference) => Err(Error::Fingerprint { dir: dir.to_owned(), difference }),
            None => Ok(()),
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(MANIFEST_FILE);
        write_whole(&path, &self.text()?).map_err(|source| Error::Write { path, committed: self.rows, source })
    }

    /// The file: every field, and behind them the seal of each.
    fn text(&self) -> Result<Vec<u8>, Error> {
        let failed = |source: serde_json::Error| Error::Write {
            path: MANIFEST_FILE.into(),
            committed: self.rows,
            source: source.into(),
        };
        let Value::Object(mut fields) = serde_json::to_value(self).map_err(failed)? else {
            return Err(failed(serde::ser::Error::custom("no object")));
        };
        let seals = seal(&fields);
        fields.insert(SEALS.to_owned(), Value::Object(seals));
        let mut text = serde_json::to_vec_pretty(&fields).map_err(failed)?;
        text.push(b'\n');
        Ok(text)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().chain(&self.indexes).map(|entry| entry.bytes).sum::<u64>()
            + self.attachments.iter().map(|entry| entry.bytes).sum::<u64>()
    }

    /// Rows of all shards: the number that the next row gets.
    pub(crate) fn next_row(&self) -> u64 {
        self.shards.iter().map(|entry| u64::from(entry.rows)).sum()
    }

    pub(crate) fn next_shard(&self) -> u32 {
        next(self.shards.iter().filter_map(|entry| shard_number(&entry.file)))
    }

    pub(crate) fn next_index(&self) -> u32 {
        next(self.indexes.iter().filter_map(|entry| index_number(&entry.file)))
    }

    pub(crate) fn lists(&self, file: &str) -> bool {
        self.shards.iter().chain(&self.indexes).any(|entry| entry.file == file)
            || self.attachments.iter().any(|entry| entry.file == file)
    }
}

/// Whether a file beside the rows may have this name: it is one in the folder, and not one of the cache's own.
pub(crate) fn is_attachment_name(name: &str) -> bool {
    let own = name == MANIFEST_FILE || shard_number(name).is_some() || index_number(name).is_some();
    !own && !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.')
}

/// The start of the SHA-256 of each field's JSON without spaces, the fingerprint's fields each for itself.
fn seal(fields: &Map<String, Value>) -> Map<String, Value> {
    let digest = |value: &Value| Value::String(hex(&Sha256::digest(value.to_string()))[..SEAL_DIGITS].to_owned());
    let mut seals = Map::new();
    for (field, value) in fields {
        match value {
            Value::Object(inner) if field == "fingerprint" => {
                seals.extend(inner.iter().map(|(inner, value)| (format!("{field}.{inner}"), digest(value))));
            }
            value => {
                seals.insert(field.clone(), digest(value));
            }
        }
    }
    seals
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn next(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.max().map_or(0, |last| last + 1)
}

pub(crate) fn shard_name(number: u32) -> String {
    format!("shard-{number:05}.safetensors")
}

pub(crate) fn index_name(number: u32) -> String {
    format!("index-{number:05}.safetensors")
}

/// The number in the name of a shard, none when it is some other file.
pub(crate) fn shard_number(file: &str) -> Option<u32> {
    number_in(file, "shard-")
}

/// The number in the name of an index, none when it is some other file.
pub(crate) fn index_number(file: &str) -> Option<u32> {
    number_in(file, "index-")
}

fn number_in(file: &str, prefix: &str) -> Option<u32> {
    let number = file.strip_prefix(prefix)?.strip_suffix(".safetensors")?;
    // Nine digits leave room to count on.
    let digits = (5..=9).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse().ok())?
}
