//! The one mutable file of a cache: whose rows these are, and which shards count.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Difference, Error, Fingerprint, SCHEMA_VERSION};

pub(crate) const MANIFEST_FILE: &str = "manifest.json";
/// How the name of a file that is being written starts.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";

const DTYPE: &str = "f32";

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) width: usize,
    pub(crate) dtype: String,
    pub(crate) shards: Vec<ShardEntry>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShardEntry {
    pub(crate) file: String,
    pub(crate) rows: usize,
    pub(crate) bytes: u64,
    pub(crate) checksum: String,
}

impl Manifest {
    pub(crate) fn new(fingerprint: Fingerprint, width: usize) -> Self {
        Self { schema_version: SCHEMA_VERSION, fingerprint, width, dtype: DTYPE.to_owned(), shards: Vec::new() }
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

    fn parse(text: &[u8], path: &Path) -> Result<Self, Error> {
        let wrong = |finding: String| Error::Manifest { path: path.to_owned(), finding };
        let json: serde_json::Value = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        // The version comes first: a later format may have any other fields.
        let version = json.get("schema_version").ok_or_else(|| wrong("no field `schema_version`".to_owned()))?;
        if version.as_u64() != Some(u64::from(SCHEMA_VERSION)) {
            let (path, found) = (path.to_owned(), version.to_string());
            return Err(Error::SchemaVersion { path, found, newest: SCHEMA_VERSION });
        }
        let manifest: Self = serde_json::from_value(json).map_err(|error| wrong(error.to_string()))?;
        if manifest.dtype != DTYPE {
            return Err(wrong(format!("field `dtype` is `{}`, expected `{DTYPE}`", manifest.dtype)));
        }
        let mut names = HashSet::new();
        for shard in &manifest.shards {
            if shard_number(&shard.file).is_none() {
                return Err(wrong(format!("field `shards` names `{}`, which is no shard's name", shard.file)));
            }
            if !names.insert(&shard.file) {
                return Err(wrong(format!("field `shards` names `{}` twice", shard.file)));
            }
        }
        Ok(manifest)
    }

    /// Refuses a cache that was made with another fingerprint or width.
    pub(crate) fn check(&self, dir: &Path, fingerprint: &Fingerprint, width: Option<usize>) -> Result<(), Error> {
        let difference = self.fingerprint.difference(fingerprint).or_else(|| {
            let expected = width.filter(|&width| width != self.width)?;
            Some(Difference::new("width", self.width, expected))
        });
        match difference {
            Some(difference) => Err(Error::Fingerprint { dir: dir.to_owned(), difference }),
            None => Ok(()),
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(MANIFEST_FILE);
        let failed = |source: io::Error| Error::Write { path: path.clone(), committed: self.rows(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        write_whole(&path, &text).map_err(failed)
    }

    pub(crate) fn rows(&self) -> usize {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// The name of the shard that comes next.
    pub(crate) fn next_shard(&self) -> String {
        let next = self.shards.iter().filter_map(|shard| shard_number(&shard.file)).max().map_or(0, |last| last + 1);
        format!("shard-{next:05}.safetensors")
    }

    pub(crate) fn lists(&self, file: &str) -> bool {
        self.shards.iter().any(|shard| shard.file == file)
    }
}

/// The number in the name of a shard, none when it is some other file.
pub(crate) fn shard_number(file: &str) -> Option<u32> {
    let number = file.strip_prefix("shard-")?.strip_suffix(".safetensors")?;
    let digits = number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse().ok())?
}

/// Writes a file so that whoever opens it, at any moment and after any crash, finds the old one or the new one whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    // A temporary file is private by default; a cache is shared with whoever the umask lets in.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(&dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The new name itself is on the disk only once its folder is. Windows has no such call.
    if cfg!(unix) {
        File::open(&dir)?.sync_all()?;
    }
    Ok(())
}
