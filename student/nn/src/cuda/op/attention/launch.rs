//! Attention over packed sequences: on tensor cores where the shapes allow it, else a warp a row.

use crate::Error;
use crate::cuda::op::call::{Call, Mask};
use crate::cuda::operand::{Matrix, Number, Words};

operation! {
    /// Softmax of scores, times values.
    AttentionForward(typed!("attention_forward")) over attention as [queries, _, width, heads] {
        attention: Attention = attention[],
        context: Matrix = activations[queries, width],
        /// Logarithms of the softmax' denominators; `f32`.
        lse: Matrix = floats[queries, heads],
    } sizes() launch_attention_forward(attention)
}

operation! {
    /// Backward of [`AttentionForward`]. What it writes may not overlap what it reads; its rows may have gaps.
    AttentionBackward(typed!("attention_backward_query")) over attention as [queries, tokens, width, heads] {
        attention: Attention = attention[],
        context: Matrix = activations[queries, width],
        d_context: Matrix = activations[queries, width],
        lse: Matrix = floats[queries, heads],
        d_query: Matrix = strided[queries, width],
        d_key: Matrix = strided[tokens, width],
        d_value: Matrix = strided[tokens, width],
        /// Of each sequence the sums over rows of these gradients, side by side; `f32`. For kernels that make them:
        /// [`Attention::sums_gradients`].
        partials: Option<Matrix> = floats[attention.sequences(), 3 * width],
    } sizes() launch_attention_backward(attention)
}

/// What both passes read. `Q` queries, `T` tokens, `W` is `heads` times the head's size; rows may have gaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    /// `[Q, W]`
    pub(crate) query: Matrix,
    /// `[T, W]`
    pub(crate) key: Matrix,
    /// `[T, W]`
    pub(crate) value: Matrix,
    /// `[B + 1]`: where each sequence's tokens begin.
    pub(crate) starts: Words,
    /// Without, all tokens are queries.
    pub(crate) queries: Option<Queries>,
    pub(crate) heads: usize,
    /// Tokens of the longest sequence; [`longest`] says how many there may be.
    pub(crate) longest: usize,
    pub(crate) mask: Mask,
    /// Longest sequence the model takes, for the mask.
    pub(crate) max_length: usize,
    /// `[Q * heads * SURVIVOR_WORDS]`: what the mask leaves, which some forward kernels write down for the backward pass.
    pub(crate) survivors: Option<Words>,
}

/// Some of the tokens as queries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queries {
    /// `[B + 1]`: where each sequence's queries begin.
    pub(crate) starts: Words,
    /// `[Q]`: which tokens they are, in ascending order.
    pub(crate) tokens: Words,
    /// Those of the sequence with most.
    pub(crate) most: usize,
}

/// A grid's third side.
const MOST_SEQUENCES: usize = 65535;
/// The longest sequence of which kernels that keep a row's scores in shared memory run with several warps a block in their
/// forward pass.
pub(crate) const LONGEST_AT_SPEED: usize = 4096;

/// Sizes of heads with kernels on tensor cores.
pub(crate) const TILE_HEAD_SIZES: [usize; 3] = [32, 64, 128];
const FORWARD_TILES: [&str; 3] =
    ["attention_forward_tiles_32", "attention_forward_tiles_64", "attention_forward_tiles_128"];
const BACKWARD_TILES: [&str; 3] =
    ["attention_backward_tiles_32", "attention_backward_tiles_64", "attention_backward_tiles_128"];

/// The longest sequence that one block of some kernels holds as a whole, for the first two sizes of heads.
const WHOLE: usize = 128;
/// Words for which of a query's probabilities a mask leaves, in one head of such a sequence.
pub(crate) const SURVIVOR_WORDS: usize = WHOLE / 32;
const FORWARD_WHOLE: [&str; 2] = ["attention_forward_whole_32", "attention_forward_whole_64"];
const BACKWARD_WHOLE: [&str; 2] = ["attention_backward_whole_32", "attention_backward_whole_64"];

/// The longest sequence that kernels for these heads take, where a block can have so much shared memory; none where they go
/// over keys in tiles, and take any.
pub(crate) fn longest(number: Number, head_size: usize, shared_bytes: usize) -> Option<usize> {
    let tiled = number == Number::Bf16 && TILE_HEAD_SIZES.contains(&head_size);
    // A warp of the backward pass keeps two rows of a head, and two floats a query.
    (!tiled).then(|| (shared_bytes / 8).saturating_sub(head_size))
}

/// Sequences that stand next to each other in a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    first: usize,
    sequences: usize,
    /// Tokens of the longest of them.
    longest: usize,
}

/// The fewest short sequences that are worth a launch of their own: fewer do not fill a GPU. Not measured.
const WORTH_A_LAUNCH: usize = 16;

impl Part {
    /// A batch's sequences that blocks hold as a whole, and the longer ones: where each kind stands in one piece, and the
    /// first are many enough.
    pub(crate) fn split(lengths: &[u32]) -> Option<[Self; 2]> {
        let is_long = |length: &u32| *length as usize > WHOLE;
        let middle = lengths.partition_point(|length| is_long(length) == is_long(&lengths[0]));
        let (front, back) = lengths.split_at(middle);
        let (short, long) = if front.first().is_some_and(is_long) { (back, front) } else { (front, back) };
        if long.is_empty() || short.len() < WORTH_A_LAUNCH || short.iter().any(is_long) || !long.iter().all(is_long) {
            return None;
        }
        let part = |first, lengths: &[u32]| {
            let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
            Self { first, sequences: lengths.len(), longest }
        };
        Some([part(0, front), part(middle, back)])
    }
}

impl Attention {
    /// The same in the parts of its batch, which are launches of their own where that gives one of them a faster kernel.
    pub(in crate::cuda) fn parts(self, parts: Option<[Part; 2]>) -> impl Iterator<Item = Self> {
        let part = |part: Part| {
            let within = |starts: Words| Words {
                at: starts.at.offset_bytes(part.first * size_of::<u32>()),
                len: part.sequences + 1,
            };
            Self {
                starts: within(self.starts),
                queries: self.queries.map(|queries| Queries {
                    starts: within(queries.starts),
                    most: queries.most.min(part.longest),
                    ..queries
                }),
                longest: part.longest,
                ..self
            }
        };
        // Kernels that are not on tensor cores find a row's sequence among all.
        let apart = parts
            .map(|parts| parts.map(part))
            .filter(|[front, back]| self.has_tiles() && (front.is_whole() || back.is_whole()));
        let (whole, apart) = if apart.is_some() { (None, apart) } else { (Some(self), None) };
        whole.into_iter().chain(apart.into_iter().flatten())
    }

    pub(in crate::cuda::op) fn shape(&self) -> [usize; 4] {
        [self.query.rows, self.key.rows, self.query.width, self.heads]
    }

    pub(in crate::cuda::op) fn number(&self) -> Number {
        self.query.number
    }

    /// Whether blocks of the fast kernels hold whole sequences.
    fn is_whole(&self) -> bool {
        let knows_mask = self.mask.site.is_none() || self.survivors.is_some();
        let has_kernel = TILE_HEAD_SIZES[..FORWARD_WHOLE.len()].contains(&self.head_size());
        has_kernel && self.longest <= WHOLE && knows_mask
    }

    /// Whether the backward pass can leave partial sums, of rows at multiples of 16 bytes.
    pub(in crate::cuda) fn sums_gradients(&self) -> bool {
        self.has_tiles() && self.is_whole()
    }

    /// Whether kernels on tensor cores take these heads and operands, of which gradients stand as their values do.
    fn has_tiles(&self) -> bool {
        let aligned = |x: Matrix| x.at.0.is_multiple_of(16) && x.stride.is_multiple_of(8);
        let all_aligned = [self.query, self.key, self.value].into_iter().all(aligned);
        let has_kernel = TILE_HEAD_SIZES.contains(&self.head_size());
        self.number() == Number::Bf16 && has_kernel && self.sequences() <= MOST_SEQUENCES && all_aligned
    }

    pub(in crate::cuda) fn sequences(&self) -> usize {
        self.starts.len.saturating_sub(1)
    }

    fn head_size(&self) -> usize {
        self.query.width / self.heads
    }
}

impl Call<'_> {
    fn attention(self, _name: &str, attention: Attention, _shape: [usize; 0]) -> Self {
        let Attention { query, key, value, starts, queries, heads, longest, mask, max_length, survivors } = attention;
        let (sequences, head_size) = (attention.sequences(), attention.head_size());
        let tokens = if queries.is_some() { key.rows } else { query.rows };
        self.strided("query", query, [query.rows, heads * head_size])
            .strided("key", key, [tokens, query.width])
            .strided("value", value, [tokens, query.width])
            .words("starts", starts, [sequences + 1])
            .words("queries.starts", queries.map_or(starts, |queries| queries.starts), [sequences + 1])
            .words("queries.tokens", queries.map(|queries| queries.tokens), [query.rows])
            .sizes([sequences, query.rows, tokens, heads, head_size, longest])
            .scalar("scale", 1.0 / (head_size as f32).sqrt(), [])
            .mask("mask", mask, [])
            .sizes([max_length])
            .words("survivors", survivors, [query.rows * heads * SURVIVOR_WORDS])
    }

    fn launch_attention_forward(&mut self, attention: Attention) -> Result<(), Error> {
        let ([queries, _, _, heads], longest) = (attention.shape(), attention.longest);
        if let Some((kernel, row_bytes)) = self.whole_sequences(attention, FORWARD_WHOLE) {
            self.kernel = kernel;
            // Queries, keys, values.
            return self.launch_whole(attention, 16 * 3 * row_bytes);
        }
        let Some((kernel, row_bytes)) = self.tiles(attention, FORWARD_TILES) else {
            return self.launch_row_warps(queries, heads, (attention.head_size() + longest) * 4);
        };
        self.kernel = kernel;
        let most_queries = attention.queries.map_or(longest, |queries| queries.most);
        let rows = tile_rows(most_queries);
        let key_rows = longest.next_multiple_of(16).min(64);
        let grid = [most_queries.div_ceil(rows), heads, attention.sequences()];
        self.launch(grid, 2 * rows, (rows + 2 * key_rows) * row_bytes)
    }

    fn launch_attention_backward(&mut self, attention: Attention) -> Result<(), Error> {
        let ([queries, tokens, _, heads], longest) = (attention.shape(), attention.longest);
        if let Some((kernel, row_bytes)) = self.whole_sequences(attention, BACKWARD_WHOLE) {
            self.kernel = kernel;
            // Keys, queries and their gradients; gradients of scores; two words a query, survivors, and what a warp does.
            let strip = 16 * (3 * row_bytes + (WHOLE + 8) * 2 + 2 * 4 + SURVIVOR_WORDS * 4) + 48;
            return self.launch_whole(attention, strip);
        }
        let head_size = attention.head_size();
        let Some((kernel, row_bytes)) = self.tiles(attention, BACKWARD_TILES) else {
            self.launch_row_warps(queries, heads, (2 * head_size + longest) * 4)?;
            self.kernel = self.of_type(typed!("attention_backward_key_value"));
            return self.launch_row_warps(tokens, heads, 2 * (head_size + longest) * 4);
        };
        self.kernel = kernel;
        let rows = tile_rows(longest);
        let grid = [longest.div_ceil(rows), heads, attention.sequences()];
        // Keys, values, queries and their gradients; three words a query.
        self.launch(grid, 2 * rows, rows * (4 * row_bytes + 3 * 4))
    }

    /// The kernel whose blocks hold whole sequences, if there is one for these, and the bytes of a row in its memory.
    fn whole_sequences(
        &self,
        attention: Attention,
        [first, second]: [&'static str; 2],
    ) -> Option<(&'static str, usize)> {
        self.tiles(attention, [first, second, ""]).filter(|_| attention.is_whole())
    }

    /// A warp for 16 tokens of the longest sequence, with a strip of memory each. Of a shorter one a block takes several
    /// heads, so even where all are short it has some warps.
    fn launch_whole(&mut self, attention: Attention, strip_bytes: usize) -> Result<(), Error> {
        let steps = attention.longest.div_ceil(16).max(1);
        let warps = steps.max(4);
        let grid = [1, attention.heads.div_ceil(warps / steps), attention.sequences()];
        self.launch(grid, 32 * warps, warps * strip_bytes)
    }

    /// The kernel on tensor cores, if there is one for these heads and operands, and the bytes of a row in its memory.
    fn tiles(&self, attention: Attention, kernels: [&'static str; 3]) -> Option<(&'static str, usize)> {
        let index = TILE_HEAD_SIZES.iter().position(|&size| size == attention.head_size())?;
        let fits = self.number == Number::Bf16 && self.aligned && attention.sequences() <= MOST_SEQUENCES;
        fits.then_some((kernels[index], (attention.head_size() + 8) * 2))
    }
}

/// Rows of a block, 16 a warp, for sequences of this length: no more than such a sequence needs.
fn tile_rows(length: usize) -> usize {
    match length {
        0..=16 => 16,
        17..=32 => 32,
        _ => 64,
    }
}
