//! A batch on its way to the device: ids, positions and starts, and for training the tokens sorted by what they look up,
//! all in one copy.

use super::device::Device;
use super::operand::Words;
use super::transfer::Staging;
use crate::value::Rows;
use crate::{EncoderConfig, Error, PackedInput};

/// The batch's memory on both sides.
pub(super) struct BatchMemory {
    staging: Staging,
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
    pub(super) ids: Words,
    /// `[T]`, where the model has token types.
    pub(super) types: Option<Words>,
    /// `[T]`: row of the position table.
    pub(super) positions: Words,
    /// `[B + 1]`; the first `B` are the rows' first tokens.
    pub(super) starts: Words,
    /// `[T + 1]`: 0, 1, 2, ..: starts of queries where each row has one, and all of a batch's tokens.
    pub(super) counting: Words,
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
    pub(super) order: Words,
    /// `[U + 1]`: where in `order` each table row's tokens begin.
    pub(super) segments: Words,
    /// `[U]`: the table rows.
    pub(super) rows: Words,
}

impl Batch {
    /// The rows of a value.
    pub(super) fn count(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.tokens,
            Rows::First => self.rows,
            // Of masked-language models, which a GPU does not run yet.
            Rows::Positions => 0,
        }
    }
}

impl BatchMemory {
    pub(super) fn new(device: &Device) -> Self {
        Self { staging: Staging::new(device), keys: Vec::new() }
    }

    /// Sends a checked batch to the device.
    pub(super) fn send(
        &mut self,
        config: &EncoderConfig,
        input: PackedInput<'_>,
        training: bool,
    ) -> Result<Batch, Error> {
        let PackedInput { input_ids, token_type_ids, starts, .. } = input;
        let tokens = input_ids.len();
        let lengths = starts.windows(2).map(|pair| pair[1] - pair[0]);
        let offset = config.position_offset() as u32;
        let positions: Vec<u32> = lengths.clone().flat_map(|length| offset..offset + length).collect();
        let has_types = config.type_vocab_size > 0;
        // The five below, and three for each of three tables.
        self.staging.begin(14, tokens + 1)?;
        let mut put = |list: &[u32]| self.staging.put(list.iter().copied());
        let batch = Batch {
            tokens,
            rows: starts.len() - 1,
            longest: lengths.max().unwrap_or(0) as usize,
            ids: put(input_ids),
            types: has_types.then(|| put(token_type_ids)),
            positions: put(&positions),
            starts: put(starts),
            counting: self.staging.put(0..=tokens as u32),
            lookups: training.then(|| Lookups {
                word: self.sort(input_ids),
                position: self.sort(&positions),
                types: has_types.then(|| self.sort(token_type_ids)),
            }),
        };
        self.staging.send()?;
        Ok(batch)
    }

    /// Sorts tokens by table row, those of a row in their order.
    fn sort(&mut self, table_rows: &[u32]) -> Sorted {
        let Self { staging, keys } = self;
        keys.clear();
        keys.extend(table_rows.iter().zip(0u64..).map(|(&row, token)| u64::from(row) << 32 | token));
        keys.sort_unstable();
        let row_of = |key: u64| (key >> 32) as u32;
        let firsts = || (0..keys.len()).filter(|&i| i == 0 || row_of(keys[i - 1]) != row_of(keys[i]));
        Sorted {
            order: staging.put(keys.iter().map(|&key| key as u32)),
            segments: staging.put(firsts().map(|i| i as u32).chain([keys.len() as u32])),
            rows: staging.put(firsts().map(|i| row_of(keys[i]))),
        }
    }
}
