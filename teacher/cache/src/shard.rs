//! One immutable file of rows, in the order in which they were captured. Their keys are in the index.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::Dtype as TensorType;

use crate::Error;
use crate::captured::{Captured, Dtype, HiddenTokens, LogitForm, Outputs};
use crate::container::{FileEntry, Mapped, Spec, Tensor, Writer};
use crate::encode::{Parts, decode_hidden, indices, numbers};

/// A memory-mapped shard.
pub(crate) struct Shard {
    file: Mapped,
    rows: usize,
    form: OnceLock<Form>,
}

/// The tensors of a shard that its cache's form asks for.
struct Form {
    /// Where each row's outputs begin, if it has one for each token.
    starts: Option<Tensor>,
    hidden_starts: Option<Tensor>,
    logits: Option<Tensor>,
    tails: Option<Tensor>,
    indices: Option<Tensor>,
    hidden_states: Option<Tensor>,
}

impl Shard {
    pub(crate) fn open(dir: &Path, entry: &FileEntry) -> Result<Self, Error> {
        Ok(Self { file: Mapped::open(dir, entry)?, rows: entry.rows as usize, form: OnceLock::new() })
    }

    pub(crate) fn write(dir: &Path, name: String, captured: &Captured, parts: &Parts) -> io::Result<FileEntry> {
        let rows = parts.sizes.len();
        let outputs = parts.sizes.iter().map(|(outputs, _)| *outputs as usize).sum::<usize>();
        let starts = |size: fn(&(u32, u32)) -> u32| {
            let mut bytes = 0_u64.to_le_bytes().to_vec();
            let mut sum = 0;
            for row in &parts.sizes {
                sum += u64::from(size(row));
                bytes.extend(sum.to_le_bytes());
            }
            bytes
        };
        // Wide elements first, so that each tensor is aligned.
        let mut tensors: Vec<(Spec, std::borrow::Cow<'_, [u8]>)> = Vec::new();
        if captured.outputs == Outputs::Token {
            tensors.push((Spec::new("starts", TensorType::U64, [rows + 1]), starts(|row| row.0).into()));
        }
        if captured.hidden_states.is_some() {
            tensors.push((Spec::new("hidden_starts", TensorType::U64, [rows + 1]), starts(|row| row.1).into()));
        }
        let (logits, tails, index) = shapes(captured);
        if let Some(temperatures) = tails {
            tensors.push((Spec::new("tails", TensorType::F32, [outputs, temperatures]), (&parts.tails).into()));
        }
        if let Some((dtype, width)) = logits {
            tensors.push((Spec::new("logits", dtype.tensor_type(), [outputs, width]), (&parts.logits).into()));
        }
        if let Some((dtype, width)) = index {
            tensors.push((Spec::new("indices", dtype, [outputs, width]), (&parts.indices).into()));
        }
        if captured.hidden_states.is_some() {
            let bytes = &parts.hidden_states;
            tensors.push((Spec::new("hidden_states", TensorType::U8, [bytes.len()]), bytes.into()));
        }
        tensors.sort_by_key(|(spec, _)| std::cmp::Reverse(spec.dtype.bitsize()));
        let (specs, parts): (Vec<Spec>, Vec<_>) = tensors.into_iter().unzip();
        let mut writer = Writer::create(dir, &specs)?;
        for part in parts {
            writer.write(&part)?;
        }
        let rows = u32::try_from(rows).map_err(io::Error::other)?;
        writer.finish(dir, name, rows)
    }

    /// A row by its place in the shard, in place.
    pub(crate) fn row<'a>(&'a self, captured: &'a Captured, row: usize) -> Result<StoredRow<'a>, Error> {
        let form = self.form(captured)?;
        if row >= self.rows {
            return Err(self.file.damaged(format!("row {row} of {}, as the index has it", self.rows)));
        }
        let outputs = match &form.starts {
            Some(starts) => self.span(starts, row, form.outputs())?,
            None => row..row + 1,
        };
        let part = |tensor: &Option<Tensor>| match tensor {
            Some(tensor) => self.file.bytes(tensor.rows(outputs.clone())),
            None => Ok(&[][..]),
        };
        let hidden_states = match (&form.hidden_starts, &form.hidden_states) {
            (Some(starts), Some(bytes)) => {
                let span = self.span(starts, row, bytes.shape[0])?;
                self.file.bytes(bytes.rows(span))?
            }
            _ => &[],
        };
        Ok(StoredRow {
            captured,
            outputs: outputs.len(),
            logits: part(&form.logits)?,
            tails: part(&form.tails)?,
            indices: part(&form.indices)?,
            hidden_states,
        })
    }

    /// Checks every byte, and that every row's parts are there.
    pub(crate) fn verify(&self, captured: &Captured) -> Result<(), Error> {
        self.file.verify()?;
        (0..self.rows).try_for_each(|row| self.row(captured, row).map(drop))
    }

    /// Whether this is the file of an entry.
    pub(crate) fn is(&self, entry: &FileEntry) -> bool {
        self.file.is(entry)
    }

    /// From where to where a row's part of something reaches, of `length` in all.
    fn span(&self, starts: &Tensor, row: usize, length: usize) -> Result<std::ops::Range<usize>, Error> {
        let bytes = self.file.bytes(starts.rows(row..row + 2))?;
        let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) as usize;
        let (start, end) = (number(&bytes[..8]), number(&bytes[8..]));
        if start > end || end > length {
            return Err(self.file.damaged(format!("row {row} reaches from {start} to {end} of {length}")));
        }
        Ok(start..end)
    }

    fn form(&self, captured: &Captured) -> Result<&Form, Error> {
        if let Some(form) = self.form.get() {
            return Ok(form);
        }
        let wanted = |wanted: bool, name: &str, dtype: TensorType| match wanted {
            true => self.file.tensor(name, dtype).map(Some),
            false => Ok(None),
        };
        let (logits, tails, index) = shapes(captured);
        let hidden = captured.hidden_states.is_some();
        let form = Form {
            starts: wanted(captured.outputs == Outputs::Token, "starts", TensorType::U64)?,
            hidden_starts: wanted(hidden, "hidden_starts", TensorType::U64)?,
            logits: logits.map(|(dtype, _)| self.file.tensor("logits", dtype.tensor_type())).transpose()?,
            tails: tails.map(|_| self.file.tensor("tails", TensorType::F32)).transpose()?,
            indices: index.map(|(dtype, _)| self.file.tensor("indices", dtype)).transpose()?,
            hidden_states: wanted(hidden, "hidden_states", TensorType::U8)?,
        };
        let outputs = if captured.outputs == Outputs::Row { self.rows } else { form.outputs() };
        let two = |width: usize| vec![outputs, width];
        for (name, tensor, expected) in [
            ("starts", &form.starts, vec![self.rows + 1]),
            ("hidden_starts", &form.hidden_starts, vec![self.rows + 1]),
            ("logits", &form.logits, two(logits.map_or(0, |(_, width)| width))),
            ("tails", &form.tails, two(tails.unwrap_or(0))),
            ("indices", &form.indices, two(index.map_or(0, |(_, width)| width))),
        ] {
            if let Some(found) = tensor.as_ref().map(|tensor| &tensor.shape).filter(|shape| **shape != expected) {
                return Err(self.file.damaged(format!("tensor `{name}` is {found:?}, the manifest says {expected:?}")));
            }
        }
        if let Some(found) = form.hidden_states.as_ref().map(|tensor| &tensor.shape).filter(|shape| shape.len() != 1) {
            return Err(self.file.damaged(format!("tensor `hidden_states` is {found:?}, and not one list of bytes")));
        }
        Ok(self.form.get_or_init(|| form))
    }
}

impl Form {
    /// How many outputs all rows have together.
    fn outputs(&self) -> usize {
        let counted = self.logits.as_ref().or(self.indices.as_ref());
        counted.and_then(|tensor| tensor.shape.first()).map_or(0, |outputs| *outputs)
    }
}

/// Number format and width of the logits, number of temperatures, type and width of the indices; none where there are
/// no such.
#[expect(clippy::type_complexity, reason = "three answers to one question, taken apart at once")]
fn shapes(captured: &Captured) -> (Option<(Dtype, usize)>, Option<usize>, Option<(TensorType, usize)>) {
    let index = if captured.short_indices() { TensorType::U16 } else { TensorType::U32 };
    match &captured.logits {
        LogitForm::Dense { dtype } => (Some((*dtype, captured.width)), None, None),
        LogitForm::TopK { k, dtype, temperatures } => (Some((*dtype, *k)), Some(temperatures.len()), Some((index, *k))),
        LogitForm::Sample { draws, .. } => (None, None, Some((index, *draws))),
    }
}

/// A stored row, borrowed from the mapped file.
#[derive(Clone, Copy, Debug)]
pub struct StoredRow<'a> {
    pub(crate) captured: &'a Captured,
    pub(crate) outputs: usize,
    pub(crate) logits: &'a [u8],
    pub(crate) tails: &'a [u8],
    pub(crate) indices: &'a [u8],
    pub(crate) hidden_states: &'a [u8],
}

impl<'a> StoredRow<'a> {
    /// What its cache stores for each row.
    pub fn captured(&self) -> &'a Captured {
        self.captured
    }

    /// Number of outputs: 1, or the number of tokens of the row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The logits without copying, `[outputs, width]`; `None` unless all logits are stored, in f32.
    pub fn f32(&self) -> Option<&'a [f32]> {
        let LogitForm::Dense { dtype: Dtype::F32 } = self.captured.logits else { return None };
        // SAFETY: every bit pattern is an f32.
        #[expect(unsafe_code, reason = "floats read in place")]
        let (before, logits, _) = unsafe { self.logits.align_to::<f32>() };
        // The container aligns each tensor, and the mapping each file.
        before.is_empty().then_some(logits)
    }

    /// The logits without copying, `[outputs, width]`; `None` unless all logits are stored, in f16.
    pub fn f16(&self) -> Option<&'a [f16]> {
        let LogitForm::Dense { dtype: Dtype::F16 } = self.captured.logits else { return None };
        self.halves()
    }

    fn halves(&self) -> Option<&'a [f16]> {
        // SAFETY: every bit pattern is an f16.
        #[expect(unsafe_code, reason = "floats read in place")]
        let (before, logits, _) = unsafe { self.logits.align_to::<f16>() };
        before.is_empty().then_some(logits)
    }

    /// The logits without copying, `[outputs, width]`; `None` unless all logits are stored, in bf16.
    pub fn bf16(&self) -> Option<&'a [bf16]> {
        let LogitForm::Dense { dtype: Dtype::Bf16 } = self.captured.logits else { return None };
        // SAFETY: every bit pattern is a bf16.
        #[expect(unsafe_code, reason = "floats read in place")]
        let (before, logits, _) = unsafe { self.logits.align_to::<bf16>() };
        before.is_empty().then_some(logits)
    }

    /// The stored logits as f32: `[outputs, width]` if all are stored, `[outputs, k]`, descending, for the top k, empty
    /// for a sample.
    pub fn logits(&self) -> impl Iterator<Item = f32> + 'a {
        numbers(self.dtype(), self.logits)
    }

    /// Appends [`logits`](Self::logits); faster for f16, which is converted with vector instructions.
    pub fn append_logits(&self, logits: &mut Vec<f32>) {
        match (self.dtype(), self.f32(), self.halves()) {
            (Dtype::F32, Some(stored), _) => logits.extend_from_slice(stored),
            (Dtype::F16, _, Some(stored)) => {
                let start = logits.len();
                logits.resize(start + stored.len(), 0.0);
                stored.convert_to_f32_slice(&mut logits[start..]);
            }
            _ => logits.extend(self.logits()),
        }
    }

    fn dtype(&self) -> Dtype {
        match self.captured.logits {
            LogitForm::Dense { dtype } | LogitForm::TopK { dtype, .. } => dtype,
            LogitForm::Sample { .. } => Dtype::F32,
        }
    }

    /// Indices of the stored logits, `[outputs, k]`, or of the classes drawn, `[outputs, draws]`; empty if all logits
    /// are stored.
    pub fn indices(&self) -> impl Iterator<Item = u32> + 'a {
        indices(self.captured.short_indices(), self.indices)
    }

    /// `log(sum(exp(z / T)))` over the logits `z` that are not stored, for each output and temperature `T` of the cache,
    /// `[outputs, temperatures]`.
    pub fn tails(&self) -> impl Iterator<Item = f32> + 'a {
        numbers(Dtype::F32, self.tails)
    }

    /// Hidden states, `[layers, tokens, width]`; `None` if none are stored or the compressed frame is damaged.
    pub fn hidden_states(&self, tokens: usize) -> Option<Vec<f32>> {
        let form = self.captured.hidden_states.as_ref()?;
        let tokens = if form.tokens == HiddenTokens::First { 1 } else { tokens };
        decode_hidden(self.hidden_states, form.layers.len() * tokens * form.width)
    }

    /// All bytes of the row.
    pub(crate) fn parts(&self) -> [&'a [u8]; 4] {
        [self.logits, self.tails, self.indices, self.hidden_states]
    }

    /// Appends the row as it is stored.
    pub(crate) fn append_to(&self, parts: &mut Parts) {
        parts.sizes.push((self.outputs as u32, self.hidden_states.len() as u32));
        parts.logits.extend_from_slice(self.logits);
        parts.tails.extend_from_slice(self.tails);
        parts.indices.extend_from_slice(self.indices);
        parts.hidden_states.extend_from_slice(self.hidden_states);
    }

    /// Appends the row with its logits in another order: the new logit `i` is the old `order[i]`. Refuses an index that
    /// is none, and returns it.
    pub(crate) fn append_reordered(&self, order: &[u32], parts: &mut Parts) -> Result<(), u32> {
        if let Some(wrong) = self.indices().find(|&index| index as usize >= order.len()) {
            return Err(wrong);
        }
        let (logits, index) = (parts.logits.len(), parts.indices.len());
        self.append_to(parts);
        match self.captured.logits {
            LogitForm::Dense { dtype } => {
                let bytes = dtype.bytes();
                let width = bytes * self.captured.width;
                for (new, old) in parts.logits[logits..].chunks_exact_mut(width).zip(self.logits.chunks_exact(width)) {
                    for (new, &from) in new.chunks_exact_mut(bytes).zip(order) {
                        new.copy_from_slice(&old[from as usize * bytes..][..bytes]);
                    }
                }
            }
            LogitForm::TopK { .. } | LogitForm::Sample { .. } => {
                let mut new_of = vec![0_u32; order.len()];
                order.iter().zip(0..).for_each(|(&old, new)| new_of[old as usize] = new);
                let mut moved: Vec<u32> = self.indices().map(|old| new_of[old as usize]).collect();
                if let LogitForm::Sample { draws, .. } = self.captured.logits {
                    moved.chunks_exact_mut(draws).for_each(<[u32]>::sort_unstable);
                }
                parts.indices.truncate(index);
                match self.captured.short_indices() {
                    true => parts.indices.extend(moved.iter().flat_map(|&index| (index as u16).to_le_bytes())),
                    false => parts.indices.extend(moved.iter().flat_map(|index| index.to_le_bytes())),
                }
            }
        }
        Ok(())
    }
}
