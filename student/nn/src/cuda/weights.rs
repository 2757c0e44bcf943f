//! Parameters on the device: `f32` master weights, gradients, moments, and the weights that products read, one flat
//! buffer each.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::device::{Buffer, Device};
use super::op::rows::launch::Cast;
use super::operand::{Matrix, Number, Precision, Ptr, Vector};
use crate::op::{Embed, Kind, Op, ResidualNorm};
use crate::program::Program;
use crate::{Entry, Error, Layout, Parameters, Slot, Span};

/// Scalars to whose multiples a parameter, or a group of neighbours, starts: what vector loads and products like.
const ALIGNMENT: usize = 64;

/// Where each parameter stands in the device's buffers, in scalars.
///
/// What decays stands before what does not, so that the optimiser is a launch for each of a few ranges. Some parameters stand side by side
/// without a gap: query, key and value make one product, and what one backward kernel sums one reduction.
pub(super) struct DeviceLayout {
    pub(super) host: Arc<Layout>,
    offsets: HashMap<Slot, usize>,
    /// The word table, in front of all others, if a step's gradient is in some of its rows alone; else empty.
    pub(super) words: Range<usize>,
    /// The matrices of linear maps, which products make the gradients of: the end of what decays.
    pub(super) matrices: Range<usize>,
    pub(super) len: usize,
}

impl DeviceLayout {
    pub(super) fn new(host: Arc<Layout>, program: &Program) -> Self {
        let neighbours = neighbours(&host, program);
        let maps = maps(&host, program);
        let mut offsets = HashMap::new();
        let mut len = 0usize;
        let mut decaying = 0;
        if let Some(table) = host.entry(Slot::WordEmbeddings).filter(|_| !host.ties_words()) {
            offsets.insert(table.slot, 0);
            len = table.range.len().next_multiple_of(ALIGNMENT);
        }
        let words = 0..len;
        let mut matrices = 0;
        for (decays, is_map) in [(true, false), (true, true), (false, false)] {
            if is_map {
                matrices = len;
            }
            let wanted = |entry: &&Entry| entry.decays() == decays && maps.contains(&entry.slot) == is_map;
            for entry in host.entries().iter().filter(wanted) {
                if offsets.contains_key(&entry.slot) {
                    continue;
                }
                len = len.next_multiple_of(ALIGNMENT);
                let group = neighbours.iter().find(|group| group.contains(&entry.slot));
                for &slot in group.map_or(std::slice::from_ref(&entry.slot), Vec::as_slice) {
                    let twice = offsets.insert(slot, len);
                    assert_eq!(twice, None, "{slot:?} belongs to two groups of parameters that stand side by side");
                    len += host.entry(slot).map_or(0, |entry| entry.range.len());
                }
            }
            len = len.next_multiple_of(ALIGNMENT);
            if decays {
                decaying = len;
            }
        }
        Self { host, offsets, words, matrices: matrices..decaying, len }
    }

    fn offset(&self, slot: Slot) -> usize {
        // Slots come from the same configuration as the layout, so absence is a bug here and not an input's fault.
        *self.offsets.get(&slot).unwrap_or_else(|| panic!("{slot:?} is not in this layout"))
    }

    /// A flat buffer of the host in this layout, zero in the gaps.
    fn spread(&self, flat: &[f32]) -> Vec<f32> {
        let mut spread = vec![0.0; self.len];
        for entry in self.host.entries() {
            let offset = self.offset(entry.slot);
            spread[offset..offset + entry.range.len()].copy_from_slice(&flat[entry.range.clone()]);
        }
        spread
    }

    /// The reverse of [`spread`](Self::spread).
    fn gather(&self, spread: &[f32], flat: &mut [f32]) {
        for entry in self.host.entries() {
            let offset = self.offset(entry.slot);
            flat[entry.range.clone()].copy_from_slice(&spread[offset..offset + entry.range.len()]);
        }
    }
}

/// The matrices of linear maps.
fn maps(host: &Layout, program: &Program) -> HashSet<Slot> {
    let of_op = |op: &Op| if let Kind::Linear(linear) = &op.kind { between(host, linear.weight) } else { Vec::new() };
    program.ops.iter().flat_map(of_op).collect()
}

fn between(host: &Layout, span: Span) -> Vec<Slot> {
    let entries = &host.entries()[host.index(span.first)..=host.index(span.last)];
    entries.iter().map(|entry| entry.slot).collect()
}

/// The parameters that stand together: what one product reads, and what one backward kernel sums the gradients of.
fn neighbours(host: &Layout, program: &Program) -> Vec<Vec<Slot>> {
    let mut program = program.clone();
    program.join(host, |_, _| true);
    let between = |span: Span| between(host, span);
    let of_op = |op: &Op| match &op.kind {
        Kind::Linear(linear) => [Some(linear.weight), linear.bias].into_iter().flatten().map(between).collect(),
        Kind::Embed(Embed { norm: Some(norm), .. }) | Kind::Norm(norm) => vec![vec![norm.weight, norm.bias]],
        Kind::ResidualNorm(ResidualNorm { norm, bias, .. }) => vec![vec![norm.weight, norm.bias, *bias]],
        _ => Vec::new(),
    };
    program.ops.iter().flat_map(of_op).collect()
}

/// Parameters with the same settings, next to each other.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) range: Range<usize>,
    /// What the learning rate is multiplied by; 0 for frozen ones.
    pub(super) rate_factor: f64,
    pub(super) decays: bool,
    /// Whether a step sets the gradients to zero; those of matrices are overwritten.
    pub(super) clears: bool,
}

/// The weights and, in training, all that belongs to them.
pub(super) struct Weights {
    device: Device,
    precision: Precision,
    pub(super) layout: DeviceLayout,
    masters: Buffer,
    /// The masters in `bf16`, where products read that.
    shadow: Buffer,
    /// These three are empty until training begins.
    gradients: Buffer,
    moments: [Buffer; 2],
    /// The moving average of the masters, in a training that keeps one.
    average: Buffer,
    /// The matrices of linear maps.
    maps: HashSet<Slot>,
    /// Those whose gradients have not begun: what stands in their place is of the step before, and the first product
    /// overwrites it.
    unwritten: RefCell<HashSet<Slot>>,
}

impl Weights {
    pub(super) fn new(
        device: &Device,
        precision: Precision,
        layout: Arc<Layout>,
        program: &Program,
    ) -> Result<Self, Error> {
        let maps = maps(&layout, program);
        let layout = DeviceLayout::new(layout, program);
        let shadow_bytes = if precision == Precision::Bf16 { layout.len * 2 } else { 0 };
        Ok(Self {
            device: device.clone(),
            precision,
            masters: Buffer::zeroed(device, layout.len * 4)?,
            shadow: Buffer::zeroed(device, shadow_bytes)?,
            gradients: Buffer::empty(device),
            moments: [Buffer::empty(device), Buffer::empty(device)],
            average: Buffer::empty(device),
            maps,
            unwritten: RefCell::default(),
            layout,
        })
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let Self { masters, shadow, gradients, moments: [first, second], average, .. } = self;
        [masters, shadow, gradients, first, second, average].map(Buffer::bytes).iter().sum()
    }

    /// Makes room for gradients and moments, all zero.
    pub(super) fn prepare_training(&mut self) -> Result<(), Error> {
        let bytes = self.layout.len * 4;
        self.gradients.reserve(bytes)?;
        self.moments[0].reserve(bytes)?;
        self.moments[1].reserve(bytes)
    }

    pub(super) fn upload(&mut self, parameters: &Parameters) -> Result<(), Error> {
        self.device.upload(self.masters.ptr(), &self.layout.spread(parameters.flat()))?;
        if self.precision == Precision::Bf16 {
            let len = self.layout.len;
            let to = Matrix::new(self.precision.number(), self.shadow.ptr(), [1, len]);
            Cast { from: Vector { at: self.masters.ptr(), len }, to }.launch(&self.device)?;
        }
        Ok(())
    }

    pub(super) fn download(&self, parameters: &mut Parameters) -> Result<(), Error> {
        self.read(&self.masters, parameters.flat_mut())
    }

    /// Sets the gradients to zero.
    pub(super) fn clear_gradients(&mut self) -> Result<(), Error> {
        self.unwritten.get_mut().clear();
        self.device.zero(self.gradients.ptr(), self.gradients.bytes())
    }

    /// Whether the gradient of matrices that one product makes is added to what stands there; from now on it is.
    pub(super) fn adds_gradient(&self, span: Span) -> Result<bool, Error> {
        let slots = between(&self.layout.host, span);
        let mut unwritten = self.unwritten.borrow_mut();
        let new: Vec<Slot> = slots.iter().copied().filter(|slot| unwritten.remove(slot)).collect();
        if new.len() == slots.len() {
            return Ok(false);
        }
        new.into_iter().try_for_each(|slot| self.zero_gradient(slot))?;
        Ok(true)
    }

    /// Sets the gradients to zero that have not begun: they are read.
    pub(super) fn finish_gradients(&self) -> Result<(), Error> {
        let mut unwritten = self.unwritten.borrow_mut();
        unwritten.iter().try_for_each(|&slot| self.zero_gradient(slot))?;
        unwritten.clear();
        Ok(())
    }

    /// Lets the gradients of matrices begin anew: a step has read them.
    pub(super) fn begin_gradients(&self) {
        self.unwritten.borrow_mut().extend(&self.maps);
    }

    fn zero_gradient(&self, slot: Slot) -> Result<(), Error> {
        let len = self.layout.host.entry(slot).map_or(0, |entry| entry.range.len());
        self.device.zero(self.gradient(slot), len * 4)
    }

    pub(super) fn download_gradients(&self, flat: &mut [f32]) -> Result<(), Error> {
        self.finish_gradients()?;
        self.read(&self.gradients, flat)
    }

    pub(super) fn download_moment(&self, index: usize, flat: &mut [f32]) -> Result<(), Error> {
        self.read(&self.moments[index], flat)
    }

    pub(super) fn upload_moment(&mut self, index: usize, flat: &[f32]) -> Result<(), Error> {
        self.prepare_training()?;
        self.device.upload(self.moments[index].ptr(), &self.layout.spread(flat))
    }

    /// Sets the moving average, or does without one.
    pub(super) fn upload_average(&mut self, flat: Option<&[f32]>) -> Result<(), Error> {
        let Some(flat) = flat else {
            self.average = Buffer::empty(&self.device);
            return Ok(());
        };
        self.average.reserve(self.layout.len * 4)?;
        self.device.upload(self.average.ptr(), &self.layout.spread(flat))
    }

    /// The moving average, if there is one.
    pub(super) fn download_average(&self) -> Result<Option<Vec<f32>>, Error> {
        if self.average.bytes() == 0 {
            return Ok(None);
        }
        let mut flat = vec![0.0; self.layout.host.len()];
        self.read(&self.average, &mut flat)?;
        Ok(Some(flat))
    }

    /// The moving average of parameters from this scalar on, if there is one.
    pub(super) fn average(&self, from: usize, shape: [usize; 2]) -> Option<Matrix> {
        let at = self.average.ptr().offset_bytes(from * 4);
        (self.average.bytes() > 0).then(|| Matrix::new(Number::F32, at, shape))
    }

    /// Ranges of parameters that an optimiser treats alike, behind the word table: what decays without the matrices of
    /// linear maps, these, what does not decay; each cut where the learning rate changes. Of parameters that have the
    /// same rate everywhere these are three.
    pub(super) fn segments(&self, rate_factors: &[f64]) -> Vec<Segment> {
        let layout = &self.layout;
        let mut entries: Vec<(usize, f64)> = layout
            .host
            .entries()
            .iter()
            .zip(rate_factors)
            .map(|(entry, factor)| (layout.offset(entry.slot), *factor))
            .filter(|(offset, _)| *offset >= layout.words.end)
            .collect();
        entries.sort_by_key(|(offset, _)| *offset);
        let matrices = &layout.matrices;
        let mut segments: Vec<Segment> = Vec::new();
        for (range, decays, clears) in [
            (layout.words.end..matrices.start, true, true),
            (matrices.clone(), true, false),
            (matrices.end..layout.len, false, true),
        ] {
            let mut cuts: Vec<(usize, f64)> =
                entries.iter().copied().filter(|(offset, _)| range.contains(offset)).collect();
            cuts.dedup_by_key(|(_, factor)| *factor);
            for (index, &(offset, rate_factor)) in cuts.iter().enumerate() {
                let start = if index == 0 { range.start } else { offset };
                let end = cuts.get(index + 1).map_or(range.end, |next| next.0);
                segments.push(Segment { range: start..end, rate_factor, decays, clears });
            }
        }
        segments
    }

    /// What the learning rate of the word table is multiplied by, if it stands apart.
    pub(super) fn words_factor(&self, rate_factors: &[f64]) -> f64 {
        rate_factors[self.layout.host.index(Slot::WordEmbeddings)]
    }

    fn read(&self, buffer: &Buffer, flat: &mut [f32]) -> Result<(), Error> {
        if buffer.bytes() == 0 {
            flat.fill(0.0);
            return Ok(());
        }
        let mut spread = vec![0.0f32; self.layout.len];
        self.device.download(buffer.ptr(), &mut spread)?;
        self.layout.gather(&spread, flat);
        Ok(())
    }

    /// Rows and columns of a table.
    pub(super) fn shape(&self, slot: Slot) -> [usize; 2] {
        let shape = self.layout.host.entry(slot).map_or(&[][..], |entry| &entry.shape);
        [shape.first().copied().unwrap_or(0), shape.last().copied().unwrap_or(0)]
    }

    /// A parameter in `f32`.
    pub(super) fn master(&self, slot: Slot) -> Ptr {
        self.masters.ptr().offset_bytes(self.layout.offset(slot) * 4)
    }

    /// A parameter as products read it.
    pub(super) fn operand(&self, slot: Slot) -> Ptr {
        match self.precision {
            Precision::Bf16 => self.shadow.ptr().offset_bytes(self.layout.offset(slot) * 2),
            Precision::F32 | Precision::Tf32 => self.master(slot),
        }
    }

    /// A parameter's gradient, in `f32`.
    pub(super) fn gradient(&self, slot: Slot) -> Ptr {
        self.gradients.ptr().offset_bytes(self.layout.offset(slot) * 4)
    }

    /// All of masters, gradients, first and second moments and shadow, from this scalar on.
    pub(super) fn flat(&self, from: usize) -> [Ptr; 5] {
        let at = |buffer: &Buffer| buffer.ptr().offset_bytes(from * 4);
        let shadow = match self.precision {
            Precision::Bf16 => self.shadow.ptr().offset_bytes(from * 2),
            Precision::F32 | Precision::Tf32 => Ptr::NULL,
        };
        [at(&self.masters), at(&self.gradients), at(&self.moments[0]), at(&self.moments[1]), shadow]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::session::tests::config;
    use crate::{Family, LayerSlot, Normal};

    #[test]
    fn every_parameter_has_a_place_of_its_own_and_comes_back() {
        for family in [Family::BERT, Family::ELECTRA, Family::DISTILBERT] {
            let config = config(family, 20, 3);
            let host = Layout::new(&config);
            let layout = DeviceLayout::new(host.clone(), &config.program());
            let mut flat = vec![0.0; host.len()];
            Normal::new(1, "parameters", 1.0).fill(&mut flat);
            let mut back = vec![0.0; host.len()];
            layout.gather(&layout.spread(&flat), &mut back);
            assert_eq!(flat, back);
            for entry in host.entries() {
                assert_eq!(layout.offset(entry.slot) < layout.matrices.end, entry.decays(), "{}", entry.name);
            }
            let offset = |part| layout.offset(Slot::Layer(1, part));
            assert_eq!(offset(LayerSlot::KeyWeight) - offset(LayerSlot::QueryWeight), 20 * 20);
            assert_eq!(offset(LayerSlot::ValueBias) - offset(LayerSlot::QueryBias), 2 * 20);
            assert_eq!(offset(LayerSlot::OutputBias) - offset(LayerSlot::OutputNormWeight), 2 * 20);
            assert_eq!(offset(LayerSlot::QueryWeight) % ALIGNMENT, 0);
        }
    }
}
