//! A batch on its way to the device: ids, positions and starts, and for training the tokens sorted by what they look up,
//! all in one copy.

use super::super::device::{Buffer, Device, Ptr, Staging};
use crate::{EncoderConfig, Error, PackedInput};

/// Words to whose multiples a part of the copy starts.
const ALIGNMENT: usize = 64;

/// The batch's memory on both sides.
pub(super) struct BatchMemory {
    staging: Staging,
    buffer: Buffer,
    words: Vec<u32>,
    keys: Vec<u64>,
}

/// Where a batch's parts are on the device.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    pub(super) tokens: usize,
    pub(super) rows: usize,
    /// Tokens of the longest row.
    pub(super) longest: usize,
    /// `[T]`
    pub(super) ids: Ptr,
    /// `[T]`; null where the model has no token types.
    pub(super) types: Ptr,
    /// `[T]`: row of the position table.
    pub(super) positions: Ptr,
    /// `[B + 1]`; the first `B` are the rows' first tokens.
    pub(super) starts: Ptr,
    /// `[B + 1]`: 0, 1, 2, ..: starts of queries where each row has one.
    pub(super) counting: Ptr,
    /// For training: tokens by what they look up.
    pub(super) lookups: Option<Lookups>,
}

/// The tokens sorted by what they look up in each of the tables.
#[derive(Clone, Copy)]
pub(super) struct Lookups {
    pub(super) word: Sorted,
    pub(super) position: Sorted,
    pub(super) types: Option<Sorted>,
}

/// Tokens sorted by the row of a table that they look up.
#[derive(Clone, Copy)]
pub(super) struct Sorted {
    /// `[T]`: tokens.
    pub(super) order: Ptr,
    /// `[U + 1]`: where in `order` each table row's tokens begin.
    pub(super) segments: Ptr,
    /// `[U]`: the table rows.
    pub(super) rows: Ptr,
    /// `U`
    pub(super) count: usize,
}

impl BatchMemory {
    pub(super) fn new(device: &Device) -> Self {
        Self { staging: Staging::new(device), buffer: Buffer::empty(device), words: Vec::new(), keys: Vec::new() }
    }

    /// Sends a checked batch to the device.
    pub(super) fn send(
        &mut self,
        config: &EncoderConfig,
        input: PackedInput<'_>,
        training: bool,
    ) -> Result<Batch, Error> {
        let (tokens, rows) = (input.input_ids.len(), input.starts.len() - 1);
        let lengths = input.starts.windows(2).map(|pair| pair[1] - pair[0]);
        let offset = config.position_offset() as u32;
        let positions: Vec<u32> = lengths.clone().flat_map(|length| offset..offset + length).collect();
        let has_types = config.type_vocab_size > 0;

        self.words.clear();
        let ids = self.put(input.input_ids.iter().copied());
        let types = has_types.then(|| self.put(input.token_type_ids.iter().copied()));
        let position_ids = self.put(positions.iter().copied());
        let starts = self.put(input.starts.iter().copied());
        let counting = self.put(0..=rows as u32);
        let lookups = training.then(|| {
            let word = self.sort(input.input_ids);
            let position = self.sort(&positions);
            (word, position, has_types.then(|| self.sort(input.token_type_ids)))
        });
        // Room for somewhat more, so that batches of like sizes do not make it grow again and again.
        self.buffer.reserve((self.words.len() * 4).next_power_of_two())?;
        self.staging.send(self.buffer.ptr(), &self.words)?;

        let at = |word: usize| self.buffer.ptr().offset_bytes(word * 4);
        let sorted = |sorted: SortedWords| Sorted {
            order: at(sorted.order),
            segments: at(sorted.segments),
            rows: at(sorted.rows),
            count: sorted.count,
        };
        Ok(Batch {
            tokens,
            rows,
            longest: lengths.max().unwrap_or(0) as usize,
            ids: at(ids),
            types: types.map_or(Ptr::NULL, at),
            positions: at(position_ids),
            starts: at(starts),
            counting: at(counting),
            lookups: lookups.map(|(word, position, types)| Lookups {
                word: sorted(word),
                position: sorted(position),
                types: types.map(sorted),
            }),
        })
    }

    /// Appends words, aligned, and returns where they start.
    fn put(&mut self, words: impl Iterator<Item = u32>) -> usize {
        let start = self.words.len().next_multiple_of(ALIGNMENT);
        self.words.resize(start, 0);
        self.words.extend(words);
        start
    }

    /// Sorts tokens by table row, those of a row in their order.
    fn sort(&mut self, table_rows: &[u32]) -> SortedWords {
        let mut keys = std::mem::take(&mut self.keys);
        keys.clear();
        keys.extend(table_rows.iter().zip(0u64..).map(|(&row, token)| u64::from(row) << 32 | token));
        keys.sort_unstable();
        let row_of = |key: u64| (key >> 32) as u32;
        let order = self.put(keys.iter().map(|&key| key as u32));
        let firsts = || (0..keys.len()).filter(|&i| i == 0 || row_of(keys[i - 1]) != row_of(keys[i]));
        let segments = self.put(firsts().map(|i| i as u32).chain([keys.len() as u32]));
        let rows = self.put(firsts().map(|i| row_of(keys[i])));
        let count = self.words.len() - rows;
        self.keys = keys;
        SortedWords { order, segments, rows, count }
    }
}

/// [`Sorted`] as indices of words.
struct SortedWords {
    order: usize,
    segments: usize,
    rows: usize,
    count: usize,
}
