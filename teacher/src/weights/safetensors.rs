//! Weights in a safetensors file, mapped and read tensor by tensor.

use std::fs::File;
use std::path::Path;

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};

use super::lfs::refuse_lfs_pointer;
use super::tensor::{RawTensor, Tensors, as_f32};
use crate::Error;

pub(super) fn read(path: &Path) -> Result<Tensors, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: like every reader of mapped weights, this trusts that nobody truncates the file meanwhile; what it holds
    // is checked.
    #[expect(unsafe_code, reason = "memory mapping")]
    let bytes = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
    refuse_lfs_pointer(path, &bytes)?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::Weights { path: path.to_owned(), finding: header_finding(&error, &bytes) })?;
    let mut read = Tensors::default();
    for (name, view) in tensors.iter() {
        match to_f32(&view) {
            Numbers::Floats(data) => {
                read.floats.push((name.to_owned(), RawTensor { shape: view.shape().to_vec(), data }));
                release(&bytes, view.data());
            }
            Numbers::Integers => read.integers.push((name.to_owned(), view.dtype().to_string())),
            Numbers::Unknown => {
                let (tensor, dtype) = (name.to_owned(), view.dtype().to_string());
                return Err(Error::TensorType { path: path.to_owned(), tensor, dtype });
            }
        }
    }
    Ok(read)
}

/// Lets go of the pages of a tensor that has been read, so that a model is in memory once and not twice.
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
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => Numbers::Floats(as_f32(bytes, f32::from_le_bytes)),
        Dtype::F16 => Numbers::Floats(as_f32(bytes, |number| f16::from_le_bytes(number).to_f32())),
        Dtype::BF16 => Numbers::Floats(as_f32(bytes, |number| bf16::from_le_bytes(number).to_f32())),
        Dtype::F64 => Numbers::Floats(as_f32(bytes, |number| f64::from_le_bytes(number) as f32)),
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

/// Says with numbers what the header promises and the file does not keep.
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
