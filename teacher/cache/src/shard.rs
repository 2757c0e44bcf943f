//! One immutable file of rows: written once from memory, then mapped, checked and read in place.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};

use crate::manifest::{ShardEntry, write_whole};
use crate::{Error, Key};

const KEY_BYTES: usize = size_of::<Key>();

/// A shard in memory-mapped form, its checksum verified.
pub(crate) struct Shard {
    file: Mmap,
    /// Where the keys begin, in bytes from the start of the file.
    keys_start: usize,
    /// Where the logits begin, in bytes from the start of the file.
    logits_start: usize,
    width: usize,
    rows: usize,
}

impl Shard {
    pub(crate) fn open(dir: &Path, entry: &ShardEntry, width: usize) -> Result<Self, Error> {
        let path = dir.join(&entry.file);
        let damaged = |finding: String| Error::Shard { path: path.clone(), finding };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("missing".to_owned())),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let bytes = file.metadata().map_err(|source| Error::Read { path: path.clone(), source })?.len();
        if bytes != entry.bytes {
            return Err(damaged(format!("{bytes} bytes, the manifest says {}", entry.bytes)));
        }
        // SAFETY: a shard is never written again once the manifest names it, by the format's first rule.
        #[expect(unsafe_code, reason = "memory mapping")]
        let file = unsafe { Mmap::map(&file) }.map_err(|source| Error::Read { path: path.clone(), source })?;
        let checksum = blake3::hash(&file).to_hex();
        if checksum.as_str() != entry.checksum {
            return Err(damaged(format!("checksum {checksum}, the manifest says {}", entry.checksum)));
        }
        let (keys_start, logits_start) = layout(&file, entry.rows, width).map_err(damaged)?;
        let shard = Self { file, keys_start, logits_start, width, rows: entry.rows };
        if let Some(row) = (1..shard.rows).find(|&row| shard.key(row - 1) >= shard.key(row)) {
            return Err(damaged(format!("key {row} is not above the key before it")));
        }
        Ok(shard)
    }

    /// Writes rows, which come with ascending keys, as one file, and says what the manifest has to know of it.
    pub(crate) fn write(dir: &Path, name: String, rows: &[(Key, &[f32])], width: usize) -> io::Result<ShardEntry> {
        let keys: Vec<u8> = rows.iter().flat_map(|(key, _)| *key).collect();
        let mut logits = Vec::with_capacity(rows.len() * width * size_of::<f32>());
        for (_, row) in rows {
            logits.extend(row.iter().flat_map(|logit| logit.to_le_bytes()));
        }
        let bytes = serialize(&keys, &logits, rows.len(), width).map_err(io::Error::other)?;
        write_whole(&dir.join(&name), &bytes)?;
        let checksum = blake3::hash(&bytes).to_hex().to_string();
        Ok(ShardEntry { file: name, rows: rows.len(), bytes: bytes.len() as u64, checksum })
    }

    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = Key> + '_ {
        (0..self.rows).map(|row| self.key(row))
    }

    fn key(&self, row: usize) -> Key {
        let start = self.keys_start + row * KEY_BYTES;
        let mut key = Key::default();
        key.copy_from_slice(&self.file[start..start + KEY_BYTES]);
        key
    }

    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        let row_bytes = self.width * size_of::<f32>();
        let start = self.logits_start + row * row_bytes;
        let bytes = &self.file[start..start + row_bytes];
        // SAFETY: `layout` made sure that the logits begin at a multiple of four; every bit pattern is an f32.
        #[expect(unsafe_code, reason = "floats read in place")]
        let (before, logits, after) = unsafe { bytes.align_to::<f32>() };
        debug_assert!(before.is_empty() && after.is_empty());
        logits
    }
}

fn serialize(keys: &[u8], logits: &[u8], rows: usize, width: usize) -> Result<Vec<u8>, SafeTensorError> {
    let keys = TensorView::new(Dtype::U8, vec![rows, KEY_BYTES], keys)?;
    let logits = TensorView::new(Dtype::F32, vec![rows, width], logits)?;
    safetensors::serialize([("keys", keys), ("logits", logits)], None)
}

/// Where keys and logits begin in the file, after everything about them has been checked.
fn layout(file: &[u8], rows: usize, width: usize) -> Result<(usize, usize), String> {
    let tensors = SafeTensors::deserialize(file).map_err(|error| error.to_string())?;
    let start = |name: &str, dtype: Dtype, shape: [usize; 2]| {
        let tensor = tensors.tensor(name).map_err(|error| error.to_string())?;
        if tensor.dtype() != dtype || tensor.shape() != shape {
            let (found, found_shape) = (tensor.dtype(), tensor.shape());
            return Err(format!("tensor `{name}` is {found} {found_shape:?}, the manifest says {dtype} {shape:?}"));
        }
        Ok(tensor.data().as_ptr().addr() - file.as_ptr().addr())
    };
    let keys_start = start("keys", Dtype::U8, [rows, KEY_BYTES])?;
    let logits_start = start("logits", Dtype::F32, [rows, width])?;
    if !(file.as_ptr().addr() + logits_start).is_multiple_of(align_of::<f32>()) {
        return Err(format!("tensor `logits` begins at byte {logits_start}, not at a multiple of four"));
    }
    Ok((keys_start, logits_start))
}
