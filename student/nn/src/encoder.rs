//! The engine: an encoder's forward and backward passes over packed batches, on CPU.
//!
//! A batch is cut into chunks of whole sequences; a chunk goes through the whole model on one thread, and the gradients
//! of the weights are then summed over chunks in their order, cut by weight. How a batch is cut depends on the batch
//! alone, so results do not depend on the thread count. Buffers are kept from call to call.
//!
//! In a classifier the last layer computes the first token of each sequence alone, the only one that the head reads,
//! unless all hidden states are asked for. A masked-language model computes every token and reads the chosen ones.

mod backward;
mod chunk;
mod gradients;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::{DropoutRng, EncoderConfig, Error, Gradients, Head, Layout, Parameters};
pub(crate) use chunk::Dropouts;
use chunk::{Chunk, Context, Prepared};

/// Tokens that one chunk aims for: enough for efficient products, few enough to keep a small machine's cores equally busy
/// with the rows of one training step.
const CHUNK_TOKENS: usize = 256;

/// Rows of tokens without padding.
#[derive(Clone, Copy, Debug)]
pub struct PackedInput<'a> {
    /// `[T]`
    pub input_ids: &'a [u32],
    /// `[T]`; read by models that have token types.
    pub token_type_ids: &'a [u32],
    /// `[B + 1]`: row `b` is the tokens from `starts[b]` up to `starts[b + 1]`.
    pub starts: &'a [u32],
    /// `[P]`: the tokens that a masked-language-model head reads, as ascending numbers within the batch; there may be
    /// none. `None` for a classification head, which reads the first token of each row.
    pub positions: Option<&'a [u32]>,
}

/// Whether dropout is on.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// Dropout by these masks; everything that [`Encoder::backward`] needs is kept.
    Train(&'a DropoutRng),
    /// No dropout, nothing kept.
    Eval,
}

/// What a forward pass returns besides the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// The embeddings' and each layer's output, for every token.
    pub hidden_states: bool,
}

impl Capture {
    /// The logits alone.
    pub const LOGITS: Self = Self { hidden_states: false };
    /// Hidden states too.
    pub const HIDDEN_STATES: Self = Self { hidden_states: true };
}

/// What a forward pass returns.
#[derive(Clone, Debug, Default)]
pub struct EncoderOutput {
    /// `[B, num_labels]`, or `[P, vocabulary]` of a masked-language model; before softmax.
    pub logits: Vec<f32>,
    /// `num_layers + 1` times `[T, hidden]` if captured, else empty.
    pub hidden_states: Vec<Vec<f32>>,
}

/// An encoder's engine with its buffers. Weights are passed to each call.
pub struct Encoder {
    config: EncoderConfig,
    layout: Arc<Layout>,
    chunks: Vec<Chunk>,
    /// The weights of the last pass without dropout, until they change.
    prepared: Option<Prepared>,
    /// Chunks of the last forward pass, and its masks if it was for training.
    active: usize,
    dropout: Option<DropoutRng>,
}

impl Encoder {
    /// An engine for encoders of this configuration.
    pub fn new(config: &EncoderConfig) -> Result<Self, Error> {
        config.validate()?;
        let layout = Layout::new(config);
        Ok(Self { config: config.clone(), layout, chunks: Vec::new(), prepared: None, active: 0, dropout: None })
    }

    /// The configuration.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The layout of its parameters.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Runs the encoder and its head.
    ///
    /// Refuses token ids, types and lengths that the model does not have.
    pub fn forward(
        &mut self,
        parameters: &Parameters,
        input: PackedInput<'_>,
        capture: Capture,
        mode: Mode<'_>,
    ) -> Result<EncoderOutput, Error> {
        // Until this pass is through, there is none to go back from.
        self.dropout = None;
        check_input(&self.config, input)?;
        let ranges = cut(input.starts);
        self.active = ranges.len();
        self.dropout = match mode {
            Mode::Train(rng) => Some(*rng),
            Mode::Eval => None,
        };
        let version = parameters.version();
        match mode {
            // Weights in training serve one pass: preparing them for the next would cost memory and save little.
            Mode::Train(_) => self.prepared = None,
            Mode::Eval if self.prepared.as_ref().is_some_and(|prepared| prepared.version == version) => {}
            Mode::Eval => self.prepared = Some(Prepared::new(&self.config, parameters)),
        }
        let dropouts = self.dropout.as_ref().map(|rng| Dropouts::new(&self.config, rng));
        let context = Context {
            config: &self.config,
            layout: &self.layout,
            parameters,
            dropouts: dropouts.as_ref(),
            prepared: self.prepared.as_ref(),
            keep_all: capture.hidden_states || dropouts.is_some(),
            all_rows: capture.hidden_states,
        };
        if !context.keep_all {
            // Nothing is read again: as many chunks' buffers as threads will do.
            let idle = Mutex::new(std::mem::take(&mut self.chunks));
            let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
            let counts: Vec<usize> = ranges.iter().map(|rows| outputs_of(input, rows)).collect();
            let width = self.config.outputs();
            // Of a vocabulary, logits are the largest buffer there is: each chunk puts its own where they stay.
            let mut logits = vec![0.0; counts.iter().sum::<usize>() * width];
            let mut rest = logits.as_mut_slice();
            let mut work = Vec::with_capacity(ranges.len());
            for (rows, count) in ranges.into_iter().zip(counts) {
                let (place, after) = rest.split_at_mut(count * width);
                work.push((rows, place));
                rest = after;
            }
            work.into_par_iter().with_max_len(1).for_each(|(rows, place)| {
                let mut chunk = lock().pop().unwrap_or_default();
                chunk.forward(&context, input, rows);
                place.copy_from_slice(chunk.logits());
                lock().push(chunk);
            });
            self.chunks = idle.into_inner().unwrap_or_else(PoisonError::into_inner);
            return Ok(EncoderOutput { logits, hidden_states: Vec::new() });
        }
        if self.chunks.len() < ranges.len() {
            self.chunks.resize_with(ranges.len(), Chunk::default);
        }
        let chunks = &mut self.chunks[..ranges.len()];
        chunks.par_iter_mut().zip(&ranges).for_each(|(chunk, rows)| chunk.forward(&context, input, rows.clone()));

        let mut output = EncoderOutput::default();
        for chunk in chunks.iter() {
            output.logits.extend_from_slice(chunk.logits());
        }
        if capture.hidden_states {
            output.hidden_states = (0..=self.config.num_layers)
                .map(|layer| chunks.iter().flat_map(|chunk| chunk.hidden_state(layer)).copied().collect())
                .collect();
        }
        Ok(output)
    }

    /// Adds the gradient of a loss to `gradients`, given its gradient in the logits of the last forward pass, which
    /// must have been in training mode. Each forward pass serves one backward pass.
    ///
    /// # Shapes
    /// - `d_logits`: as the logits
    pub fn backward(
        &mut self,
        parameters: &Parameters,
        d_logits: &[f32],
        gradients: &mut Gradients,
    ) -> Result<(), Error> {
        let rng = self.dropout.take().ok_or(Error::NoForward)?;
        let chunks = &mut self.chunks[..self.active];
        let expected: usize = chunks.iter().map(|chunk| chunk.logits().len()).sum();
        if d_logits.len() != expected {
            return Err(Error::Batch(format!("{} gradients for {expected} logits", d_logits.len())));
        }
        let dropouts = Dropouts::new(&self.config, &rng);
        let context = Context {
            config: &self.config,
            layout: &self.layout,
            parameters,
            dropouts: Some(&dropouts),
            prepared: None,
            keep_all: true,
            all_rows: false,
        };
        let mut rest = d_logits;
        let mut work = Vec::with_capacity(chunks.len());
        for chunk in chunks.iter_mut() {
            let (head, tail) = rest.split_at(chunk.logits().len());
            work.push((chunk, head));
            rest = tail;
        }
        work.into_par_iter().for_each(|(chunk, d_logits)| chunk.backward(&context, d_logits));
        gradients::sum_over_chunks(&context, chunks, gradients);
        Ok(())
    }
}

/// Cuts rows into chunks of about [`CHUNK_TOKENS`], an even number of them where there are rows enough.
fn cut(starts: &[u32]) -> Vec<Range<usize>> {
    let rows = starts.len() - 1;
    let tokens = (starts[rows] - starts[0]) as usize;
    let count = (2 * tokens.div_ceil(2 * CHUNK_TOKENS)).clamp(1, rows.max(1));
    let mut ranges = Vec::with_capacity(count);
    let mut from = 0;
    for chunk in 1..=count {
        let goal = starts[0] as usize + tokens * chunk / count;
        // The boundary nearest to the goal, leaving at least a row on both sides.
        let mut to = from + 1;
        while to < rows - (count - chunk) && (starts[to + 1] as usize + starts[to] as usize) <= 2 * goal {
            to += 1;
        }
        if chunk == count {
            to = rows;
        }
        ranges.push(from..to);
        from = to;
    }
    ranges
}

/// How many rows of logits some rows of a batch have.
fn outputs_of(input: PackedInput<'_>, rows: &Range<usize>) -> usize {
    let Some(positions) = input.positions else { return rows.len() };
    let before = |row: usize| positions.partition_point(|&position| position < input.starts[row]);
    before(rows.end) - before(rows.start)
}

/// Refuses what the model does not have.
pub(crate) fn check_input(config: &EncoderConfig, input: PackedInput<'_>) -> Result<(), Error> {
    let PackedInput { input_ids, token_type_ids, starts, positions } = input;
    if starts.len() < 2 || starts[0] != 0 || starts[starts.len() - 1] as usize != input_ids.len() {
        return Err(Error::Batch(format!("starts do not span the {} tokens", input_ids.len())));
    }
    if token_type_ids.len() != input_ids.len() {
        return Err(Error::Batch(format!("{} token types for {} tokens", token_type_ids.len(), input_ids.len())));
    }
    let limit = config.max_length();
    for (row, pair) in starts.windows(2).enumerate() {
        let length = pair[1].saturating_sub(pair[0]) as usize;
        if length == 0 || length > limit {
            return Err(Error::RowLength { row, length, limit });
        }
    }
    if let Some(position) = input_ids.iter().position(|&id| id as usize >= config.vocab_size) {
        let id = input_ids[position];
        return Err(Error::TokenOutOfRange { id, position, vocabulary: config.vocab_size });
    }
    let types = config.type_vocab_size;
    if let Some(found) = token_type_ids.iter().find(|&&id| types > 0 && id as usize >= types) {
        return Err(Error::Batch(format!("token type {found}, the model has {types}")));
    }
    match (config.head, positions) {
        (Head::Classification, None) => Ok(()),
        (Head::Classification, Some(_)) => Err(Error::Batch(
            "token positions, and the model has a classification head, which reads first tokens".into(),
        )),
        (Head::MaskedLm, None) => Err(Error::Batch("a masked-language model reads token positions: none given".into())),
        (Head::MaskedLm, Some(positions)) => {
            let ascending = positions.windows(2).all(|pair| pair[0] < pair[1]);
            let within = positions.last().is_none_or(|&last| (last as usize) < input_ids.len());
            match ascending && within {
                true => Ok(()),
                false => Err(Error::Batch(format!("positions that do not ascend below {} tokens", input_ids.len()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_all_rows_in_order() {
        for (rows, length) in [(1, 5), (2, 400), (3, 1), (32, 16), (64, 128), (7, 300)] {
            let starts: Vec<u32> = (0..=rows).map(|row| row * length).collect();
            let ranges = cut(&starts);
            assert_eq!(ranges[0].start, 0);
            assert_eq!(ranges[ranges.len() - 1].end, rows as usize);
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ranges.iter().all(|range| !range.is_empty()), "{rows} x {length}: {ranges:?}");
        }
    }

    #[test]
    fn equal_rows_make_equal_chunks() {
        let starts: Vec<u32> = (0..=32).map(|row| row * 16).collect();
        assert_eq!(cut(&starts), [0..16, 16..32]);
    }
}
