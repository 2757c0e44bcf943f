//! The format of all files of a cache but the manifest: safetensors, with a last tensor `checksums` that has the CRC-32
//! of each block of the bytes before it.
//!
//! The manifest has the SHA-256 of header and checksums together. So any part of a file can be checked without reading
//! the rest: header and checksums when the file is first used, a block when it is first read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::Error;
use crate::files::{persist, temporary};

/// Bytes of a block, counted from the end of the header.
pub(crate) const BLOCK_BYTES: usize = 16 * 1024;

const CHECKSUMS: &str = "checksums";

/// A file's entry in the manifest.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    pub(crate) file: String,
    /// Rows in it.
    pub(crate) rows: u32,
    pub(crate) bytes: u64,
    /// SHA-256 of the header and the checksums.
    pub(crate) checksum: String,
}

/// A tensor to be written.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Spec {
    pub(crate) fn new(name: &'static str, dtype: Dtype, shape: impl Into<Vec<usize>>) -> Self {
        Self { name, dtype, shape: shape.into() }
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes a container from front to back, so that a file may be larger than memory.
pub(crate) struct Writer {
    file: BufWriter<NamedTempFile>,
    header: Vec<u8>,
    /// Bytes that all tensors but the checksums take.
    expected: usize,
    written: usize,
    block: crc32fast::Hasher,
    checksums: Vec<u8>,
}

impl Writer {
    /// A file of these tensors, whose bytes follow in this order. Tensors of wider elements come first, so that each is
    /// aligned.
    pub(crate) fn create(dir: &Path, specs: &[Spec]) -> io::Result<Self> {
        let expected = specs.iter().map(Spec::bytes).sum::<usize>();
        let blocks = expected.div_ceil(BLOCK_BYTES);
        let mut tensors = Vec::with_capacity(specs.len() + 1);
        let mut start = 0;
        let checksums = Spec::new(CHECKSUMS, Dtype::U32, [blocks]);
        for spec in specs.iter().chain([&checksums]) {
            let end = start + spec.bytes();
            let info = TensorInfo { dtype: spec.dtype, shape: spec.shape.clone(), data_offsets: (start, end) };
            tensors.push((spec.name.to_owned(), info));
            start = end;
        }
        let metadata = Metadata::new(None, tensors).map_err(io::Error::other)?;
        let mut json = serde_json::to_vec(&metadata)?;
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend(json);
        let mut file = BufWriter::with_capacity(1 << 20, temporary(dir)?);
        file.write_all(&header)?;
        let checksums = Vec::with_capacity(4 * blocks);
        Ok(Self { file, header, expected, written: 0, block: crc32fast::Hasher::new(), checksums })
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.written % BLOCK_BYTES;
            let (part, rest) = bytes.split_at(room.min(bytes.len()));
            self.block.update(part);
            self.file.write_all(part)?;
            self.written += part.len();
            if self.written.is_multiple_of(BLOCK_BYTES) {
                self.end_block();
            }
            bytes = rest;
        }
        Ok(())
    }

    fn end_block(&mut self) {
        let checksum = std::mem::take(&mut self.block).finalize();
        self.checksums.extend(checksum.to_le_bytes());
    }

    /// Flushes the file and renames it to its name. The folder is not flushed yet.
    pub(crate) fn finish(mut self, dir: &Path, name: String, rows: u32) -> io::Result<FileEntry> {
        if self.written != self.expected {
            return Err(io::Error::other(format!("{} of {} bytes of {name}", self.written, self.expected)));
        }
        if !self.written.is_multiple_of(BLOCK_BYTES) {
            self.end_block();
        }
        self.file.write_all(&self.checksums)?;
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        persist(file, &dir.join(&name))?;
        Ok(FileEntry { file: name, rows, bytes, checksum: checksum(&self.header, &self.checksums) })
    }
}

/// A memory-mapped file of a cache. Blocks are checked when they are first read.
pub(crate) struct Mapped {
    path: PathBuf,
    checksum: String,
    file: Mmap,
    form: OnceLock<Form>,
    /// A bit for each block that was found sound.
    sound: Box<[AtomicU64]>,
}

/// What a header says, once it has been checked.
struct Form {
    tensors: HashMap<String, Tensor>,
    /// Where the header ends and the first block begins.
    start: usize,
    checksums: Range<usize>,
}

/// Where a tensor stands, in bytes from the start of the file.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

impl Mapped {
    /// Maps a file without reading it.
    pub(crate) fn open(dir: &Path, entry: &FileEntry) -> Result<Self, Error> {
        let path = dir.join(&entry.file);
        let damaged = |finding: String| Error::File { path: path.clone(), finding };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("missing".to_owned())),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let bytes = file.metadata().map_err(|source| Error::Read { path: path.clone(), source })?.len();
        if bytes != entry.bytes {
            return Err(damaged(format!("{bytes} bytes, the manifest says {}", entry.bytes)));
        }
        // SAFETY: a file is never written again once the manifest names it, by the format's first rule.
        #[expect(unsafe_code, reason = "memory mapping")]
        let file = unsafe { Mmap::map(&file) }.map_err(|source| Error::Read { path: path.clone(), source })?;
        let blocks = file.len().div_ceil(BLOCK_BYTES);
        let sound = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { path, checksum: entry.checksum.clone(), file, form: OnceLock::new(), sound })
    }

    /// Whether this is the file of an entry.
    pub(crate) fn is(&self, entry: &FileEntry) -> bool {
        self.checksum == entry.checksum && self.path.ends_with(&entry.file)
    }

    pub(crate) fn damaged(&self, finding: String) -> Error {
        Error::File { path: self.path.clone(), finding }
    }

    /// A tensor by its name, of the expected type; its shape is the caller's to check.
    pub(crate) fn tensor(&self, name: &str, dtype: Dtype) -> Result<Tensor, Error> {
        let Some(tensor) = self.form()?.tensors.get(name) else {
            return Err(self.damaged(format!("no tensor `{name}`")));
        };
        if tensor.dtype != dtype {
            let found = tensor.dtype;
            return Err(self.damaged(format!("tensor `{name}` is {found}, the manifest says {dtype}")));
        }
        Ok(tensor.clone())
    }

    /// Bytes of the file, each block they lie in checked once.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Result<&[u8], Error> {
        let form = self.form()?;
        if !range.is_empty() {
            let blocks = (range.start - form.start) / BLOCK_BYTES..=(range.end - 1 - form.start) / BLOCK_BYTES;
            for block in blocks {
                let bit = 1 << (block % 64);
                if self.sound[block / 64].load(Ordering::Relaxed) & bit == 0 {
                    self.check_block(form, block)?;
                    self.sound[block / 64].fetch_or(bit, Ordering::Relaxed);
                }
            }
        }
        Ok(&self.file[range])
    }

    /// Checks the whole file.
    pub(crate) fn verify(&self) -> Result<(), Error> {
        let form = self.form()?;
        self.bytes(form.start..form.checksums.start).map(drop)
    }

    fn check_block(&self, form: &Form, block: usize) -> Result<(), Error> {
        let start = form.start + block * BLOCK_BYTES;
        let end = (start + BLOCK_BYTES).min(form.checksums.start);
        let expected = &self.file[form.checksums.start + 4 * block..][..4];
        if crc32fast::hash(&self.file[start..end]).to_le_bytes() != expected {
            let (path, blocks) = (self.path.clone(), form.checksums.len() / 4);
            return Err(Error::Block { path, block, blocks, start, last: end - 1 });
        }
        Ok(())
    }

    fn form(&self) -> Result<&Form, Error> {
        if let Some(form) = self.form.get() {
            return Ok(form);
        }
        let form = self.read_form()?;
        Ok(self.form.get_or_init(|| form))
    }

    fn read_form(&self) -> Result<Form, Error> {
        let (length, metadata) =
            SafeTensors::read_metadata(&self.file).map_err(|error| self.damaged(format!("its header: {error}")))?;
        let start = length + size_of::<u64>();
        let mut tensors = HashMap::new();
        for (name, info) in metadata.tensors() {
            let range = start + info.data_offsets.0..start + info.data_offsets.1;
            tensors.insert(name, Tensor { dtype: info.dtype, shape: info.shape.clone(), range });
        }
        let checksums = tensors.remove(CHECKSUMS).filter(|tensor| {
            let blocks = (tensor.range.start - start).div_ceil(BLOCK_BYTES);
            tensor.dtype == Dtype::U32 && tensor.range.end == self.file.len() && tensor.range.len() == 4 * blocks
        });
        let Some(Tensor { range: checksums, .. }) = checksums else {
            return Err(self.damaged("no last tensor `checksums` with one for each block".to_owned()));
        };
        let found = checksum(&self.file[..start], &self.file[checksums.clone()]);
        if found != self.checksum {
            let expected = &self.checksum;
            return Err(self.damaged(format!("its checksum is {found}, the manifest says {expected}")));
        }
        if !start.is_multiple_of(8) {
            return Err(self.damaged(format!("its header ends at byte {start}, not at a multiple of eight")));
        }
        Ok(Form { tensors, start, checksums })
    }
}

impl Tensor {
    /// The bytes of rows of this tensor, counted along its first dimension.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Range<usize> {
        let row_bytes = self.shape[1..].iter().product::<usize>() * self.dtype.bitsize() / 8;
        self.range.start + rows.start * row_bytes..self.range.start + rows.end * row_bytes
    }
}

fn checksum(header: &[u8], checksums: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(header);
    hasher.update(checksums);
    hex(&hasher.finalize())
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
