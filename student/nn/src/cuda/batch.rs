//! Uploads a batch to the device in one copy: ids, positions and starts, and for training the tokens sorted by their
//! table rows.

use super::device::Device;
use super::op::attention::launch::Part;
use super::operand::Words;
use super::transfer::Staging;
use crate::op::Lookup;
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
    /// The rows in two parts, where attention has a faster kernel for one of them.
    pub(super) parts: Option<[Part; 2]>,
    /// What tokens look up: words, positions, and types where the model has them.
    looked_up: [LookedUp; 3],
    /// `[B + 1]`; the first `B` are the rows' first tokens.
    pub(super) starts: Words,
    /// `[T + 1]`: 0, 1, 2, ..: starts of queries where each row has one, and all of a batch's tokens.
    pub(super) counting: Words,
    /// The tokens that a masked-language model is asked about.
    pub(super) asked: Asked,
}

/// The rows of a table that tokens look up.
#[derive(Clone, Copy)]
pub(super) struct LookedUp {
    /// `[T]`
    pub(super) rows: Words,
    /// For training.
    pub(super) sorted: Option<Sorted>,
}

/// Tokens sorted by the row of a table that they look up; behind them those whose row learns nothing.
#[derive(Clone, Copy)]
pub(super) struct Sorted {
    /// `[T]`: tokens.
    pub(super) order: Words,
    /// `[U + 1]`: where in `order` each table row's tokens begin.
    pub(super) segments: Words,
    /// `[U]`: the table rows.
    pub(super) rows: Words,
}

/// Tokens that are asked about, in their order.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// `[P]`
    pub(super) tokens: Words,
    /// `[B + 1]`: where in `tokens` those of each row begin.
    pub(super) starts: Words,
    /// The most of one row.
    pub(super) most: usize,
}

impl Batch {
    /// The rows of a value.
    pub(super) fn count(&self, rows: Rows) -> usize {
        self.tokens_of(rows).map_or(self.tokens, |tokens| tokens.len)
    }

    /// Which token each row of a value is; none where row `r` is token `r`.
    pub(super) fn tokens_of(&self, rows: Rows) -> Option<Words> {
        match rows {
            Rows::Tokens => None,
            Rows::First => Some(Words { len: self.rows, ..self.starts }),
            Rows::Positions => Some(self.asked.tokens),
        }
    }

    /// The rows of a table that tokens look up.
    pub(super) fn looked_up(&self, lookup: Lookup) -> LookedUp {
        let [words, positions, types] = self.looked_up;
        match lookup {
            Lookup::Word { .. } => words,
            Lookup::Position(_) => positions,
            Lookup::Type => types,
        }
    }

    /// `[T]`: numbers that ascend within a row and not from one to the next, where the model counts every token.
    pub(super) fn positions(&self) -> Words {
        self.looked_up[1].rows
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
        let PackedInput { input_ids, token_type_ids, starts, positions: asked } = input;
        let tokens = input_ids.len();
        let lengths: Vec<u32> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let texts = starts.windows(2).map(|pair| &input_ids[pair[0] as usize..pair[1] as usize]);
        let positions: Vec<u32> =
            texts.flat_map(|text| config.positions().rows(text)).map(|position| position as u32).collect();
        let types = if config.type_vocab_size > 0 { token_type_ids } else { &[] };
        let asked = asked.unwrap_or_default();
        let asked_before = |&start: &u32| asked.partition_point(|&token| token < start) as u32;
        let asked_starts: Vec<u32> = starts.iter().map(asked_before).collect();
        // Three lists that are looked up, with three more of each; four others.
        self.staging.begin(16, tokens + 1)?;
        let untrained = [config.words(), Lookup::Position(config.positions()), Lookup::Type].map(Lookup::untrained);
        let mut untrained = untrained.into_iter();
        let looked_up = [input_ids, &positions, types].map(|rows| {
            let untrained = untrained.next().flatten();
            LookedUp {
                rows: self.staging.put(rows.iter().copied()),
                sorted: training.then(|| self.sort(rows, untrained)),
            }
        });
        let mut put = |list: &[u32]| self.staging.put(list.iter().copied());
        let batch = Batch {
            tokens,
            rows: starts.len() - 1,
            longest: lengths.iter().copied().max().unwrap_or(0) as usize,
            parts: Part::split(&lengths),
            looked_up,
            starts: put(starts),
            asked: Asked {
                tokens: put(asked),
                starts: put(&asked_starts),
                most: asked_starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as usize,
            },
            counting: self.staging.put(0..=tokens as u32),
        };
        self.staging.send()?;
        Ok(batch)
    }

    /// Sorts tokens by table row, those of a row in their order; those of the row that learns nothing stand behind all
    /// segments.
    fn sort(&mut self, table_rows: &[u32], untrained: Option<usize>) -> Sorted {
        let Self { staging, keys } = self;
        keys.clear();
        let last = u64::from(u32::MAX) << 32;
        keys.extend(table_rows.iter().zip(0u64..).map(|(&row, token)| match Some(row as usize) == untrained {
            true => last | token,
            false => u64::from(row) << 32 | token,
        }));
        keys.sort_unstable();
        let trained = keys.partition_point(|&key| key < last);
        let row_of = |key: u64| (key >> 32) as u32;
        let firsts = || (0..trained).filter(|&i| i == 0 || row_of(keys[i - 1]) != row_of(keys[i]));
        Sorted {
            order: staging.put(keys.iter().map(|&key| key as u32)),
            segments: staging.put(firsts().map(|i| i as u32).chain([trained as u32])),
            rows: staging.put(firsts().map(|i| row_of(keys[i]))),
        }
    }
}
