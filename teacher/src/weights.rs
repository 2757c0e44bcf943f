//! Reads the tensors of a model's weight files (safetensors, also sharded, or `pytorch_model.bin`) into f32. `load.rs`
//! maps them to parameters.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use candle_core::DType;
use candle_core::pickle::{PthTensors, TensorInfo};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};

use crate::{Error, ModelFiles};

/// A tensor as it came from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTensor {
    /// The shape.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub data: Vec<f32>,
}

/// All tensors of a model by name, as f32. Integer tensors, such as `position_ids`, are skipped.
pub fn read_tensors(files: &ModelFiles) -> Result<BTreeMap<String, RawTensor>, Error> {
    let mut tensors = BTreeMap::new();
    for path in &files.weights {
        let read = match path.extension() {
            Some(extension) if extension == "safetensors" => read_safetensors(path)?,
            _ => read_pickle(path)?,
        };
        for (tensor, raw) in read {
            if tensors.contains_key(&tensor) {
                return Err(Error::TensorTwice { path: path.clone(), tensor });
            }
            tensors.insert(tensor, raw);
        }
    }
    Ok(tensors)
}

fn read_safetensors(path: &Path) -> Result<Vec<(String, RawTensor)>, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: like every reader of mapped weights, this trusts that nobody truncates the file meanwhile; what it holds
    // is checked.
    #[expect(unsafe_code, reason = "memory mapping")]
    let bytes = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
    refuse_lfs_pointer(path, &bytes)?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::Weights { path: path.to_owned(), finding: header_finding(&error, &bytes) })?;
    let mut read = Vec::with_capacity(tensors.len());
    for (name, view) in tensors.iter() {
        match to_f32(&view) {
            Numbers::Floats(data) => {
                read.push((name.to_owned(), RawTensor { shape: view.shape().to_vec(), data }));
                release(&bytes, view.data());
            }
            Numbers::Integers => {}
            Numbers::Unknown => {
                let (tensor, dtype) = (name.to_owned(), view.dtype().to_string());
                return Err(Error::TensorType { path: path.to_owned(), tensor, dtype });
            }
        }
    }
    Ok(read)
}

/// Releases the mapped pages of a tensor that has been read, so that the model is in memory only once.
#[cfg(unix)]
fn release(file: &Mmap, tensor: &[u8]) {
    let offset = tensor.as_ptr() as usize - file.as_ptr() as usize;
    // SAFETY: the mapping is of a file and never written to: pages that are let go are read again when touched.
    #[expect(unsafe_code, reason = "advice that would lose what is written to private memory")]
    let advised = unsafe { file.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, tensor.len()) };
    // Memory that stays is no error.
    let _ = advised;
}

#[cfg(not(unix))]
fn release(_file: &Mmap, _tensor: &[u8]) {}

enum Numbers {
    Floats(Vec<f32>),
    Integers,
    Unknown,
}

fn to_f32(view: &TensorView<'_>) -> Numbers {
    fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Numbers {
        Numbers::Floats(bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect())
    }
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |number| f16::from_le_bytes(number).to_f32()),
        Dtype::BF16 => each(bytes, |number| bf16::from_le_bytes(number).to_f32()),
        Dtype::F64 => each(bytes, |number| f64::from_le_bytes(number) as f32),
        Dtype::BOOL
        | Dtype::U8
        | Dtype::I8
        | Dtype::U16
        | Dtype::I16
        | Dtype::U32
        | Dtype::I32
        | Dtype::U64
        | Dtype::I64 => Numbers::Integers,
        _ => Numbers::Unknown,
    }
}

/// Explains, with numbers, how the file contradicts its header.
fn header_finding(error: &SafeTensorError, bytes: &[u8]) -> String {
    let length = bytes.len();
    let header = bytes.first_chunk().map(|prefix| u64::from_le_bytes(*prefix));
    match (error, header) {
        (SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooLarge, Some(header)) => {
            format!("the header claims {header} bytes of a file of {length}")
        }
        (SafeTensorError::MetadataIncompleteBuffer, _) => {
            format!("its {length} bytes are not as many as its header lists: it is cut off, or something was added")
        }
        (SafeTensorError::HeaderTooSmall, _) => format!("{length} bytes are too few for a header"),
        (error, _) => error.to_string(),
    }
}

/// Reads a file written by `torch.save`. Candle's reader knows only the classes of tensors and executes no code.
fn read_pickle(path: &Path) -> Result<Vec<(String, RawTensor)>, Error> {
    let file_bytes = refuse_other_containers(path)?;
    let wrong = |finding: String| Error::Weights { path: path.to_owned(), finding };
    // The reader takes a well-made pickle for granted and panics at some others.
    let guarded = |read: &dyn Fn() -> candle_core::Result<Vec<(String, RawTensor)>>| {
        catch_unwind(AssertUnwindSafe(read))
            .map_err(|_| wrong("its pickle is malformed".to_owned()))?
            .map_err(|error| wrong(error.to_string()))
    };
    let read = guarded(&|| {
        let tensors = PthTensors::new(path, None)?;
        let mut read = Vec::with_capacity(tensors.tensor_infos().len());
        for (name, info) in tensors.tensor_infos() {
            if !matches!(info.dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64) {
                continue;
            }
            let shape = info.layout.dims().to_vec();
            if !fits(info, file_bytes) {
                candle_core::bail!("tensor `{name}` claims shape {shape:?} in a file of {file_bytes} bytes");
            }
            if let Some(tensor) = tensors.get(name)? {
                let data = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                read.push((name.clone(), RawTensor { shape, data }));
            }
        }
        Ok(read)
    })?;
    if read.is_empty() {
        return Err(wrong("it holds no tensors by name; expected a state dict".to_owned()));
    }
    Ok(read)
}

/// Whether a tensor is no larger than the file: `torch.save` does not compress, so a larger size is false and would
/// exhaust memory.
fn fits(info: &TensorInfo, file_bytes: u64) -> bool {
    let bytes = info.layout.dims().iter().try_fold(info.dtype.size_in_bytes(), |bytes, &dim| bytes.checked_mul(dim));
    bytes.is_some_and(|bytes| bytes as u64 <= file_bytes)
}

/// Refuses files that are not a zip archive, by their first bytes; returns the file's length.
fn refuse_other_containers(path: &Path) -> Result<u64, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let file_bytes = file.metadata().map_err(unreadable)?.len();
    let mut start = Vec::new();
    file.take(64).read_to_end(&mut start).map_err(unreadable)?;
    refuse_lfs_pointer(path, &start)?;
    if start.starts_with(b"PK\x03\x04") {
        return Ok(file_bytes);
    }
    // A pickle of the second protocol or later, bare.
    if start.starts_with(&[0x80]) {
        return Err(Error::OldPickle { path: path.to_owned() });
    }
    let finding = format!("{file_bytes} bytes that are no zip file, as torch.save writes it");
    Err(Error::Weights { path: path.to_owned(), finding })
}

fn refuse_lfs_pointer(path: &Path, start: &[u8]) -> Result<(), Error> {
    if start.starts_with(b"version https://git-lfs") {
        return Err(Error::LfsPointer { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
