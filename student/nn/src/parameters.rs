//! Parameters and gradients: one flat `f32` buffer each, with named views.
//!
//! So optimiser, clipping, gradient accumulation and checkpoints each work on whole buffers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::names::{hugging_face_name, slots};
use crate::random::Normal;
use crate::slot::{Slot, Span};
use crate::{EncoderConfig, Error};

/// The position of each parameter in the flat buffer.
#[derive(Debug)]
pub struct Layout {
    entries: Vec<Entry>,
    index: HashMap<Slot, usize>,
    len: usize,
}

/// One parameter of a [`Layout`].
#[derive(Debug, Clone)]
pub struct Entry {
    /// The parameter.
    pub slot: Slot,
    /// Its Hugging Face name.
    pub name: String,
    /// Its shape; values are row-major.
    pub shape: Vec<usize>,
    /// Its range in the flat buffer.
    pub range: Range<usize>,
}

impl Entry {
    /// Whether weight decay applies: to weight matrices and embeddings, not to biases and norms.
    pub fn decays(&self) -> bool {
        self.shape.len() > 1
    }
}

impl Layout {
    /// The layout of an encoder; it depends only on the configuration.
    pub fn new(config: &EncoderConfig) -> Arc<Self> {
        let mut entries = Vec::new();
        let mut index = HashMap::new();
        let mut len = 0;
        for (slot, shape) in slots(config) {
            let count: usize = shape.iter().product();
            index.insert(slot, entries.len());
            let name = hugging_face_name(config.family, slot);
            entries.push(Entry { slot, name, shape, range: len..len + count });
            len += count;
        }
        Arc::new(Self { entries, index, len })
    }

    /// All parameters, in the order of the buffer.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The parameter, if the encoder has it.
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.index.get(&slot).map(|&i| &self.entries[i])
    }

    /// Whether the word embeddings are an output matrix as well, so that every row of them has a gradient in each step.
    pub(crate) fn ties_words(&self) -> bool {
        self.entry(Slot::LmOutputBias).is_some()
    }

    /// Number of scalars.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place of one parameter, or of neighbours.
    pub(crate) fn span(&self, span: Span) -> Range<usize> {
        self.range(span.first).start..self.range(span.last).end
    }

    /// The parameter's number in [`entries`](Self::entries).
    pub(crate) fn index(&self, slot: Slot) -> usize {
        // Slots come from the same configuration as the layout, so absence is a bug here and not an input's fault.
        *self.index.get(&slot).unwrap_or_else(|| panic!("{slot:?} is not in this layout"))
    }

    fn range(&self, slot: Slot) -> Range<usize> {
        self.entries[self.index(slot)].range.clone()
    }
}

/// The weights of one encoder.
#[derive(Clone, Debug)]
pub struct Parameters {
    layout: Arc<Layout>,
    data: Vec<f32>,
    version: u64,
}

/// A number that no other state of any [`Parameters`] has.
fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Parameters {
    /// All zero.
    pub fn zeros(layout: Arc<Layout>) -> Self {
        let data = vec![0.0; layout.len()];
        Self { layout, data, version: next_version() }
    }

    /// BERT's initialisation: weights and embeddings normal with standard deviation 0.02, norm scales one, biases and
    /// the embedding of the padding token zero. Each parameter has its own random stream, keyed by seed and name.
    pub fn random(layout: Arc<Layout>, pad_token_id: usize, seed: u64) -> Self {
        let mut parameters = Self::zeros(layout.clone());
        for entry in layout.entries() {
            parameters.randomize(entry.slot, pad_token_id, seed);
        }
        parameters
    }

    /// Initialises one parameter as [`random`](Self::random) does.
    pub fn randomize(&mut self, slot: Slot, pad_token_id: usize, seed: u64) {
        let Some(entry) = self.layout.clone().entry(slot).cloned() else { return };
        let values = &mut self.flat_mut()[entry.range.clone()];
        if slot.is_norm_weight() {
            values.fill(1.0);
        } else if entry.shape.len() == 1 {
            values.fill(0.0);
        } else {
            Normal::new(seed, &entry.name, 0.02).fill(values);
            if slot == Slot::WordEmbeddings {
                let width = entry.shape[1];
                values[pad_token_id * width..(pad_token_id + 1) * width].fill(0.0);
            }
        }
    }

    /// Where each parameter stands.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// One parameter's values.
    pub fn get(&self, slot: Slot) -> &[f32] {
        &self.data[self.layout.range(slot)]
    }

    /// One parameter's values, mutable.
    pub fn get_mut(&mut self, slot: Slot) -> &mut [f32] {
        let range = self.layout.range(slot);
        &mut self.flat_mut()[range]
    }

    /// Sets one parameter from a tensor; an error, which names it `name`, if the shape does not match.
    pub fn set(&mut self, slot: Slot, name: &str, shape: &[usize], values: &[f32]) -> Result<(), Error> {
        let range = self.layout.range(slot);
        let expected = &self.layout.entry(slot).map(|e| e.shape.clone()).unwrap_or_default();
        if shape != expected.as_slice() || values.len() != range.len() {
            return Err(Error::Shape { name: name.into(), found: shape.to_vec(), expected: expected.clone() });
        }
        self.flat_mut()[range].copy_from_slice(values);
        Ok(())
    }

    /// The values of one parameter, or of neighbours.
    pub(crate) fn span(&self, span: Span) -> &[f32] {
        &self.data[self.layout.span(span)]
    }

    /// The whole buffer.
    pub fn flat(&self) -> &[f32] {
        &self.data
    }

    /// The whole buffer, mutable.
    pub fn flat_mut(&mut self) -> &mut [f32] {
        self.version = next_version();
        &mut self.data
    }

    /// Equal for parameters with equal values: copies, and the same ones until they are changed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }
}

/// The gradient of a loss with respect to every parameter; backward passes add to it.
#[derive(Clone, Debug)]
pub struct Gradients {
    layout: Arc<Layout>,
    data: Vec<f32>,
    /// Which rows of the word table may have a gradient: those that were ever looked up, or all where it is tied.
    looked_up: Vec<bool>,
}

impl Gradients {
    /// All zero.
    pub fn zeros(layout: Arc<Layout>) -> Self {
        let data = vec![0.0; layout.len()];
        let rows = layout.entry(Slot::WordEmbeddings).map_or(0, |entry| entry.shape[0]);
        Self { data, looked_up: vec![layout.ties_words(); rows], layout }
    }

    /// Where each parameter stands.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The gradient with respect to one parameter.
    pub fn get(&self, slot: Slot) -> &[f32] {
        &self.data[self.layout.range(slot)]
    }

    /// The whole buffer.
    pub fn flat(&self) -> &[f32] {
        &self.data
    }

    /// The whole buffer, to change; every row of the word table then counts as looked up.
    pub fn flat_mut(&mut self) -> &mut [f32] {
        self.looked_up.fill(true);
        &mut self.data
    }

    pub(crate) fn looked_up(&self) -> &[bool] {
        &self.looked_up
    }

    pub(crate) fn mark_looked_up(&mut self, input_ids: &[u32]) {
        for &id in input_ids {
            self.looked_up[id as usize] = true;
        }
    }

    /// The whole buffer, for those who mark the rows that they add to or add to none.
    pub(crate) fn flat_kept_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }
}
