//! One chunk of a batch: its rows, its buffers, and its forward and backward pass, on one thread.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut, Range};

use super::product::Panels;
use super::shares::Shares;
use crate::op::{Op, Positions, Site};
use crate::program::places::Plan;
use crate::random::{DropoutRng, DropoutSite};
use crate::slot::Span;
use crate::value::{Rows, Value, ValueId};
use crate::{PackedInput, Parameters};

/// What all chunks of a pass share.
pub(super) struct Context<'a> {
    pub(super) plan: &'a Plan,
    pub(super) parameters: &'a Parameters,
    pub(super) vectors: &'a Shares,
    /// `None` outside training.
    pub(super) masks: Option<&'a DropoutRng>,
    /// Weights that are packed once for many passes.
    pub(super) prepared: Option<&'a HashMap<Span, Panels>>,
}

/// The rows of a chunk and its buffers.
#[derive(Default)]
pub(super) struct Chunk {
    /// Index in the batch of the chunk's first text and of its first token.
    first_text: usize,
    first_token: usize,
    pub(super) input_ids: Vec<u32>,
    pub(super) token_type_ids: Vec<u32>,
    pub(super) selected: Selected,
    places: Vec<Vec<f32>>,
    pub(super) scratch: Scratch,
    /// Gradients of biases and norms, where [`Shares`] says.
    pub(super) vectors: Vec<f32>,
    /// What a stage of a pass hands to later ones, and the gradients that come back.
    handed: HashMap<ValueId, Vec<f32>>,
    handed_gradients: HashMap<ValueId, Vec<f32>>,
}

/// The tokens of each kind of rows.
#[derive(Default)]
pub(super) struct Selected([Selection; Rows::ALL.len()]);

/// Some tokens of a chunk, counted from 0.
#[derive(Default)]
pub(super) struct Selection {
    pub(super) tokens: Vec<usize>,
    /// The offset of each text in `tokens`, and the end.
    pub(super) starts: Vec<usize>,
}

impl Selected {
    /// Of these texts of a batch.
    pub(super) fn new(input: PackedInput<'_>, texts: &Range<usize>) -> Self {
        let first = input.starts[texts.start];
        let bounds = || input.starts[texts.start..=texts.end].iter().map(|start| start - first);
        let positions = input.positions.unwrap_or_default();
        Self(Rows::ALL.map(|rows| match rows {
            Rows::Tokens => Selection {
                tokens: (0..bounds().next_back().unwrap_or(0) as usize).collect(),
                starts: bounds().map(|start| start as usize).collect(),
            },
            Rows::First => Selection {
                tokens: bounds().take(texts.len()).map(|start| start as usize).collect(),
                starts: (0..=texts.len()).collect(),
            },
            Rows::Positions => {
                let before = |bound: u32| positions.partition_point(|&position| position < first + bound);
                let starts: Vec<usize> = bounds().map(before).collect();
                let mine = &positions[starts[0]..starts[texts.len()]];
                Selection {
                    tokens: mine.iter().map(|&position| (position - first) as usize).collect(),
                    starts: starts.iter().map(|start| start - starts[0]).collect(),
                }
            }
        }))
    }

    pub(super) fn of(&self, rows: Rows) -> &Selection {
        &self.0[rows as usize]
    }

    pub(super) fn count(&self, rows: Rows) -> usize {
        self.of(rows).tokens.len()
    }
}

impl Chunk {
    /// Loads some texts of a batch.
    pub(super) fn load(&mut self, input: PackedInput<'_>, texts: Range<usize>, selected: Selected) {
        let tokens = input.starts[texts.start] as usize..input.starts[texts.end] as usize;
        (self.first_text, self.first_token) = (texts.start, tokens.start);
        self.input_ids.clear();
        self.input_ids.extend_from_slice(&input.input_ids[tokens.clone()]);
        self.token_type_ids.clear();
        self.token_type_ids.extend_from_slice(&input.token_type_ids[tokens]);
        self.selected = selected;
        self.handed_gradients.clear();
    }

    /// The rows of a table of positions that the chunk's tokens look up.
    pub(super) fn positions(&self, positions: Positions) -> impl Iterator<Item = usize> {
        let texts = self.selected.of(Rows::Tokens).starts.windows(2);
        texts.flat_map(move |text| positions.rows(&self.input_ids[text[0]..text[1]]))
    }

    /// A value, after the pass.
    pub(super) fn value(&self, plan: &Plan, value: ValueId) -> &[f32] {
        self.place(plan, value, plan.value(value))
    }

    /// The gradient of a value.
    pub(super) fn gradient(&self, plan: &Plan, value: ValueId) -> &[f32] {
        self.place(plan, value, plan.gradient(value))
    }

    fn place(&self, plan: &Plan, value: ValueId, place: Option<usize>) -> &[f32] {
        let Value { rows, width } = plan.program.values[value.0];
        // The plan gives a place to all that an operation reads.
        &self.places[place.expect("a value with a place")][..self.selected.count(rows) * width]
    }
}

/// A running pass of a chunk.
pub(super) struct Run<'a> {
    pub(super) chunk: &'a mut Chunk,
    pub(super) context: &'a Context<'a>,
}

impl Run<'_> {
    /// Allocates as many places as the plan has.
    pub(super) fn grow(&mut self) {
        let places = self.context.plan.places.len();
        if self.chunk.places.len() < places {
            self.chunk.places.resize_with(places, Vec::new);
        }
    }

    /// The rows of a value.
    pub(super) fn rows(&self, value: ValueId) -> &Selection {
        self.chunk.selected.of(self.context.plan.program.values[value.0].rows)
    }

    pub(super) fn width(&self, value: ValueId) -> usize {
        self.context.plan.program.values[value.0].width
    }

    fn len(&self, value: ValueId) -> usize {
        self.rows(value).tokens.len() * self.width(value)
    }

    pub(super) fn value(&self, value: ValueId) -> &[f32] {
        self.chunk.value(self.context.plan, value)
    }

    pub(super) fn gradient(&self, value: ValueId) -> &[f32] {
        self.chunk.gradient(self.context.plan, value)
    }

    /// Takes the buffer of a value, to write or change it; [`put`](Self::put) returns it.
    pub(super) fn take_value(&mut self, value: ValueId) -> Taken {
        self.take(self.context.plan.value(value), self.len(value))
    }

    pub(super) fn take_gradient(&mut self, value: ValueId) -> Taken {
        self.take(self.context.plan.gradient(value), self.len(value))
    }

    /// Takes the buffer of a value, to overwrite it with its gradient.
    pub(super) fn take_replaced(&mut self, value: ValueId) -> Taken {
        let plan = self.context.plan;
        assert_eq!(plan.value(value), plan.gradient(value), "the gradient stands where its value does");
        self.take_value(value)
    }

    /// Takes the buffer of an operation's saved state, for this many numbers.
    pub(super) fn take_state(&mut self, op: usize, index: usize, len: usize) -> Taken {
        self.take(Some(self.context.plan.state(op, index)), len)
    }

    fn take(&mut self, place: Option<usize>, len: usize) -> Taken {
        let place = place.expect("a value with a place");
        let mut data = std::mem::take(&mut self.chunk.places[place]);
        if data.len() < len {
            data.resize(len, 0.0);
        }
        Taken { place, data, len }
    }

    pub(super) fn put(&mut self, taken: Taken) {
        self.chunk.places[taken.place] = taken.data;
    }

    /// Copies the values that earlier stages have handed over to their places.
    pub(super) fn load_given(&mut self) {
        for &value in &self.context.plan.program.given {
            let mut to = self.take_value(value);
            to.copy_from_slice(&self.chunk.handed[&value]);
            self.put(to);
        }
    }

    /// Keeps the values that later stages read.
    pub(super) fn keep_handed(&mut self) {
        for &value in &self.context.plan.program.handed {
            let values = self.value(value).to_vec();
            self.chunk.handed.insert(value, values);
        }
    }

    /// Puts the gradients that later stages have left to where this one's backward pass reads them.
    pub(super) fn enter_handed(&mut self) {
        for &value in &self.context.plan.program.handed {
            let mut to = self.take_gradient(value);
            // A later stage has read it, or it would not have been handed over.
            to.copy_from_slice(&self.chunk.handed_gradients[&value]);
            self.chunk.handed_gradients.remove(&value);
            self.put(to);
        }
    }

    /// Keeps the gradients of the values that this stage was given, for the stages that made them.
    pub(super) fn keep_given(&mut self) {
        for &value in &self.context.plan.program.given {
            let gradient = self.gradient(value).to_vec();
            match self.chunk.handed_gradients.get_mut(&value) {
                Some(sum) => sum.iter_mut().zip(&gradient).for_each(|(sum, gradient)| *sum += gradient),
                None => _ = self.chunk.handed_gradients.insert(value, gradient),
            }
        }
    }

    /// Turns the buffer of an output's gradient into that of one of the inputs.
    pub(super) fn hand_on(&mut self, index: usize, op: &Op, input: usize, d: Taken) {
        let value = op.inputs[input].value;
        if self.context.plan.gradient(value) != Some(d.place) {
            let mut d_input = self.take_gradient(value);
            match self.context.plan.adds(index, input) {
                true => d_input.iter_mut().zip(d.iter()).for_each(|(sum, d)| *sum += d),
                false => d_input.copy_from_slice(&d),
            }
            self.put(d_input);
        }
        self.put(d);
    }

    /// The dropout mask of a place in the model; `None` outside training.
    pub(super) fn mask(&self, site: Option<Site>) -> Option<DropoutSite> {
        let site = site?;
        self.context.masks.and_then(|masks| masks.site(site.number, site.rate))
    }

    /// The number of a token of the chunk within the step.
    pub(super) fn token(&self, token: usize) -> u64 {
        self.context.masks.map_or(0, DropoutRng::first_token) + (self.chunk.first_token + token) as u64
    }

    /// The number of a text of the chunk within the step.
    pub(super) fn text(&self, text: usize) -> u64 {
        self.context.masks.map_or(0, DropoutRng::first_row) + (self.chunk.first_text + text) as u64
    }

    /// Takes the gradients of biases and norms, to add to them; [`put_vectors`](Self::put_vectors) returns them.
    pub(super) fn take_vectors(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.chunk.vectors)
    }

    pub(super) fn put_vectors(&mut self, vectors: Vec<f32>) {
        self.chunk.vectors = vectors;
    }
}

/// Buffers for attention over one head of one text.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) probabilities: Vec<f32>,
    pub(super) d_probabilities: Vec<f32>,
    pub(super) dropped: Vec<f32>,
    pub(super) d_query: Vec<f32>,
    pub(super) d_key: Vec<f32>,
    pub(super) d_value: Vec<f32>,
}

/// A buffer with the matrix in it.
pub(super) struct Taken {
    place: usize,
    data: Vec<f32>,
    len: usize,
}

impl Deref for Taken {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}
