//! Weights as `torch.save` wrote them: a zip file with a pickle that says what the tensors are, and their numbers beside it.
//! Candle's reader of the pickle knows the few classes of tensors and runs no code; the numbers are read here, since tensors
//! may be views of larger ones, with strides of any kind.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use candle_core::DType;
use candle_core::pickle::{PthTensors, TensorInfo};
use half::{bf16, f16};
use zip::ZipArchive;

use super::lfs::refuse_lfs_pointer;
use super::tensor::{RawTensor, Tensors, as_f32};
use crate::Error;

/// Numbers of a tensor that repeats what the file has, at most: 1 GiB of them.
const MOST_REPEATED: usize = 1 << 28;

pub(super) fn read(path: &Path) -> Result<Tensors, Error> {
    let file_bytes = refuse_other_containers(path)?;
    let wrong = |finding: String| Error::Weights { path: path.to_owned(), finding };
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|error| wrong(error.to_string()))?;
    if let Some(storage) = quantised(&mut zip, file_bytes) {
        return Err(Error::Quantised {
            path: path.to_owned(),
            finding: format!("tensors of 8 bits, in a `{storage}`"),
        });
    }
    // The reader takes a well-made pickle for granted and panics at some others.
    let pickled = catch_unwind(AssertUnwindSafe(|| PthTensors::new(path, None)))
        .map_err(|_| wrong("its pickle is malformed".to_owned()))?
        .map_err(|error| wrong(first_line(&error.to_string())))?;

    let mut infos: Vec<&TensorInfo> = pickled.tensor_infos().values().collect();
    // Tensors of one storage one after another, so that it is read once.
    infos.sort_by(|a, b| (&a.path, &a.name).cmp(&(&b.path, &b.name)));
    let mut tensors = Tensors::default();
    let mut storage: Option<(&str, Vec<u8>)> = None;
    for info in infos {
        let TensorInfo { name, dtype, layout, path: entry, .. } = info;
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64) {
            tensors.integers.push((name.clone(), dtype.as_str().to_owned()));
            continue;
        }
        let view = View {
            shape: layout.dims(),
            strides: layout.stride(),
            // Candle counts it in bytes.
            start: layout.start_offset() / dtype.size_in_bytes(),
            width: dtype.size_in_bytes(),
        };
        let refused = |finding: String| wrong(format!("tensor `{name}` {finding}"));
        if !view.fits(file_bytes) {
            return Err(refused(format!("claims shape {:?} in a file of {file_bytes} bytes", view.shape)));
        }
        if storage.as_ref().is_none_or(|(of, _)| of != entry) {
            let bytes = read_entry(&mut zip, entry, file_bytes).map_err(|error| refused(error.to_string()))?;
            storage = Some((entry, bytes));
        }
        let bytes = storage.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let numbers = view.gather(bytes).ok_or_else(|| refused("reaches beyond its storage".to_owned()))?;
        let data = match dtype {
            DType::F16 => as_f32(&numbers, |number| f16::from_le_bytes(number).to_f32()),
            DType::BF16 => as_f32(&numbers, |number| bf16::from_le_bytes(number).to_f32()),
            DType::F64 => as_f32(&numbers, |number| f64::from_le_bytes(number) as f32),
            _ => as_f32(&numbers, f32::from_le_bytes),
        };
        tensors.floats.push((name.clone(), RawTensor { shape: view.shape.to_vec(), data }));
    }
    if tensors.floats.is_empty() {
        return Err(wrong("it holds no tensors by name; expected a state dict".to_owned()));
    }
    Ok(tensors)
}

/// Where the numbers of a tensor stand in its storage; all but the width is counted in numbers.
struct View<'a> {
    shape: &'a [usize],
    strides: &'a [usize],
    start: usize,
    /// Bytes of a number.
    width: usize,
}

impl View<'_> {
    /// Whether the tensor is no larger than the file: `torch.save` does not compress, so a larger one is a lie that would cost
    /// all memory, unless it repeats what is there.
    fn fits(&self, file_bytes: u64) -> bool {
        let stored = self.shape.iter().zip(self.strides).filter(|(_, stride)| **stride > 0).map(|(&size, _)| size);
        let stored = product(stored.chain([self.width]));
        let all = product(self.shape.iter().copied());
        let is_small = |all: usize| all as u64 <= file_bytes / self.width as u64 || all <= MOST_REPEATED;
        stored.is_some_and(|bytes| bytes as u64 <= file_bytes) && all.is_some_and(is_small)
    }

    /// The bytes of its numbers, the last dimension running fastest; none where it reaches beyond its storage.
    fn gather(&self, storage: &[u8]) -> Option<Vec<u8>> {
        if self.shape.contains(&0) {
            return Some(Vec::new());
        }
        let reach = self
            .shape
            .iter()
            .zip(self.strides)
            .try_fold(self.start, |reach, (&size, &stride)| reach.checked_add(stride.checked_mul(size - 1)?))?;
        storage.get(..reach.checked_add(1)?.checked_mul(self.width)?)?;
        // Runs of numbers that stand one behind another: the last dimensions, as far as they are contiguous.
        let (mut run, mut outer) = (1, self.shape.len());
        while outer > 0 && (self.strides[outer - 1] == run || self.shape[outer - 1] == 1) {
            outer -= 1;
            run *= self.shape[outer];
        }
        let mut starts = vec![self.start];
        for (&size, &stride) in self.shape[..outer].iter().zip(self.strides) {
            starts = starts.iter().flat_map(|start| (0..size).map(move |index| start + index * stride)).collect();
        }
        let mut bytes = Vec::with_capacity(starts.len() * run * self.width);
        for start in starts {
            bytes.extend_from_slice(&storage[start * self.width..(start + run) * self.width]);
        }
        Some(bytes)
    }
}

fn product(mut sizes: impl Iterator<Item = usize>) -> Option<usize> {
    sizes.try_fold(1_usize, |all, size| all.checked_mul(size))
}

/// The storage of 8-bit integers that the pickle names. Candle's reader leaves such tensors out, and says so on standard output.
fn quantised(zip: &mut ZipArchive<BufReader<File>>, file_bytes: u64) -> Option<&'static str> {
    let entry = zip.file_names().flatten().find(|name| name.ends_with("data.pkl"))?.into_owned();
    // Where it cannot be read, the reader says why.
    let pickle = read_entry(zip, &entry, file_bytes).ok()?;
    ["CharStorage", "QInt8Storage", "QUInt8Storage"].into_iter().find(|storage| {
        let named = format!("ctorch\n{storage}\n");
        pickle.windows(named.len()).any(|bytes| bytes == named.as_bytes())
    })
}

fn read_entry(zip: &mut ZipArchive<BufReader<File>>, entry: &str, file_bytes: u64) -> io::Result<Vec<u8>> {
    let mut entry = zip.by_name(entry)?;
    let size = entry.size();
    if size > file_bytes {
        return Err(io::Error::other(format!("has a storage of {size} bytes in a file of {file_bytes}")));
    }
    let mut bytes = vec![0; size as usize];
    entry.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A message without the backtrace that candle adds where RUST_BACKTRACE asks for one.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// Looks at how the file begins, and returns how long it is.
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
