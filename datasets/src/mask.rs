//! Masks tokens for a masked-language model to predict, as BERT does (Devlin et al., 2018, section 3.1): of the tokens
//! chosen, 80 % become the mask token, 10 % another piece and 10 % stay.
//!
//! The masks are a function of the seed, the pass over the data and the row's content. So a resumed training run needs
//! no generator state, and teacher and student see the same masks, wherever the row is in its file.

use rayon::prelude::*;

use crate::encodings::key_of;
use crate::{Encodings, Error, Key, TextTokenizer, TokenBatch};

/// Masks rows; see [`Masking::new`].
#[derive(Debug, Clone)]
pub struct Masking {
    seed: u64,
    probability: f64,
    mask_id: u32,
    /// By token id: whether it may be masked.
    is_ordinary: Vec<bool>,
    /// The ids that a chosen token may be replaced by.
    ordinary: Vec<u32>,
}

/// A row with `P` masked tokens to predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedRow {
    /// The token ids after masking.
    pub ids: Vec<u32>,
    /// The positions of the masked tokens in the row, ascending, `[P]`.
    pub positions: Vec<u32>,
    /// The original ids of the masked tokens, `[P]`.
    pub originals: Vec<u32>,
}

/// A packed batch of masked rows, with `P` tokens to predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedBatch {
    /// The batch after masking.
    pub batch: TokenBatch,
    /// The positions of the masked tokens in the batch, ascending, `[P]`.
    pub positions: Vec<u32>,
    /// The original ids of the masked tokens, `[P]`.
    pub originals: Vec<u32>,
}

impl Masking {
    /// Masks a fraction `probability` of each row's tokens, special tokens excluded, but at least one per row that has
    /// any. An error if the tokenizer has no mask token.
    pub fn new(tokenizer: &TextTokenizer, probability: f64, seed: u64) -> Result<Self, Error> {
        let mask_id = tokenizer.mask_id().ok_or(Error::NoMaskToken)?;
        let special = tokenizer.special_ids();
        let ordinary: Vec<u32> = tokenizer.ids().difference(&special).copied().collect();
        let mut is_ordinary = vec![false; tokenizer.vocab_size()];
        ordinary.iter().for_each(|&id| is_ordinary[id as usize] = true);
        Ok(Self { seed, probability, mask_id, is_ordinary, ordinary })
    }

    /// Masks one row. `key` is [`Encodings::key`] of the row before masking, `pass` the number of the pass over the
    /// data.
    pub fn mask(&self, pass: u64, key: &Key, ids: &[u32]) -> MaskedRow {
        let mut draws = Draws::new(self.seed, pass, key);
        let is_ordinary = |&position: &u32| self.is_ordinary.get(ids[position as usize] as usize) == Some(&true);
        let mut positions: Vec<u32> = (0..ids.len() as u32).filter(is_ordinary).collect();
        let candidates = positions.len();
        let count = ((candidates as f64 * self.probability).round() as usize).max(1).min(candidates);
        for chosen in 0..count {
            positions.swap(chosen, chosen + draws.below(candidates - chosen));
        }
        positions.truncate(count);
        positions.sort_unstable();

        let mut masked = ids.to_vec();
        for &position in &positions {
            match draws.below(10) {
                0..8 => masked[position as usize] = self.mask_id,
                // There is a piece to take: the one at this position.
                8 => masked[position as usize] = self.ordinary[draws.below(self.ordinary.len())],
                _ => {}
            }
        }
        let originals = positions.iter().map(|&position| ids[position as usize]).collect();
        MaskedRow { ids: masked, positions, originals }
    }

    /// The keys of all rows, masked for this pass.
    pub fn keys(&self, pass: u64, encodings: &Encodings) -> Vec<Key> {
        let key = |row: usize| {
            let ids = self.mask(pass, &encodings.key(row), encodings.ids(row)).ids;
            key_of(&ids, encodings.type_ids(row))
        };
        (0..encodings.len()).into_par_iter().map(key).collect()
    }

    /// All rows, masked for this pass.
    pub fn masked(&self, pass: u64, encodings: &Encodings) -> Encodings {
        let mut masked = Encodings::new();
        for row in 0..encodings.len() {
            let ids = self.mask(pass, &encodings.key(row), encodings.ids(row)).ids;
            masked.push(&ids, encodings.type_ids(row), encodings.truncated(row));
        }
        masked
    }

    /// Packs these rows like [`TokenBatch::gather`], masked for this pass.
    pub fn gather(&self, pass: u64, encodings: &Encodings, rows: &[u32]) -> MaskedBatch {
        let mut batch = TokenBatch::gather(encodings, rows);
        let (mut positions, mut originals) = (Vec::new(), Vec::new());
        for (&row, &start) in rows.iter().zip(&batch.starts) {
            let row = row as usize;
            let masked = self.mask(pass, &encodings.key(row), encodings.ids(row));
            batch.input_ids[start as usize..][..masked.ids.len()].copy_from_slice(&masked.ids);
            positions.extend(masked.positions.iter().map(|position| start + position));
            originals.extend(masked.originals);
        }
        MaskedBatch { batch, positions, originals }
    }
}

/// Numbers drawn from the bytes of a BLAKE3 stream, so that no change of a random-number library can change a run.
struct Draws(blake3::OutputReader);

impl Draws {
    fn new(seed: u64, pass: u64, key: &Key) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("distill 2026 datasets: masked tokens of a row in a pass");
        hasher.update(&seed.to_le_bytes()).update(&pass.to_le_bytes()).update(key);
        Self(hasher.finalize_xof())
    }

    /// Uniform over `0..end` to within 2^-32.
    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        ((u128::from(u64::from_le_bytes(bytes)) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenizerFiles;

    const SPECIAL: [u32; 5] = [0, 1, 2, 3, 4];
    const MASK: u32 = 4;

    /// Five special tokens and 200 pieces.
    fn masking(probability: f64, seed: u64) -> Masking {
        let pieces: String = (0..200).map(|piece| format!("p{piece}\n")).collect();
        Masking::new(&tokenizer(&format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{pieces}")), probability, seed)
            .expect("a mask token")
    }

    fn tokenizer(vocab: &str) -> TextTokenizer {
        let files = TokenizerFiles { vocab_txt: Some(vocab.as_bytes().into()), ..TokenizerFiles::default() };
        TextTokenizer::from_files(&files).expect("a tokenizer")
    }

    /// Rows of 2 to 41 pieces between `[CLS]` and `[SEP]`, some unknown.
    fn rows(count: u32) -> Encodings {
        let row = |row: u32| -> Vec<u32> {
            let words = (0..2 + row % 40)
                .map(|word| if (row + word).is_multiple_of(17) { 1 } else { 5 + (row * 7 + word * 13) % 200 });
            std::iter::once(2).chain(words).chain([3]).collect()
        };
        Encodings::of_ids(&(0..count).map(row).collect::<Vec<_>>())
    }

    #[test]
    fn rates_are_berts() {
        let (masking, rows) = (masking(0.15, 42), rows(4000));
        let (mut ordinary, mut chosen, mut masked, mut other, mut same) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let mut first_half = 0.0;
        for row in 0..rows.len() {
            let ids = rows.ids(row);
            let candidates: Vec<u32> =
                (0..ids.len() as u32).filter(|&position| !SPECIAL.contains(&ids[position as usize])).collect();
            let found = masking.mask(3, &rows.key(row), ids);
            let expected = ((candidates.len() as f64 * 0.15).round()).max(1.0);
            assert_eq!(found.positions.len() as f64, expected);
            if candidates.len() >= 20 {
                ordinary += candidates.len() as f64;
                chosen += expected;
            }
            for (&position, &original) in found.positions.iter().zip(&found.originals) {
                first_half +=
                    f64::from(u8::from(candidates.iter().filter(|&&c| c < position).count() * 2 < candidates.len()));
                match found.ids[position as usize] {
                    MASK => masked += 1.0,
                    id if id == original => same += 1.0,
                    id => {
                        assert!(!SPECIAL.contains(&id));
                        other += 1.0;
                    }
                }
            }
        }
        assert!((chosen / ordinary - 0.15f64).abs() < 0.005, "{}", chosen / ordinary);
        let all: f64 = masked + other + same;
        assert!(all > 10_000.0);
        // Five standard errors; another piece is the same one in a two-hundredth of the cases.
        for (found, expected) in [(masked, 0.8), (other, 0.1 * 199.0 / 200.0), (same, 0.1 + 0.1 / 200.0)] {
            let error = (expected * (1.0 - expected) / all).sqrt();
            assert!((found / all - expected).abs() < 5.0 * error, "{} of {expected}", found / all);
        }
        // The middle one of an odd row counts to the first half.
        assert!((0.48..0.58).contains(&(first_half / all)), "{}", first_half / all);
    }

    #[test]
    fn special_tokens_are_never_chosen_and_all_else_stays() {
        let (masking, rows) = (masking(0.9, 1), rows(200));
        for row in 0..rows.len() {
            let ids = rows.ids(row);
            let found = masking.mask(0, &rows.key(row), ids);
            assert!(found.positions.is_sorted_by(|a, b| a < b));
            assert!(found.originals.iter().all(|id| !SPECIAL.contains(id)));
            for (position, (&before, &after)) in (0..).zip(ids.iter().zip(&found.ids)) {
                assert!(before == after || found.positions.contains(&position));
            }
        }
        let none = masking.mask(0, &[0; 16], &[2, 1, 3]);
        assert_eq!(none, MaskedRow { ids: vec![2, 1, 3], positions: vec![], originals: vec![] });
    }

    #[test]
    fn masks_follow_from_seed_pass_and_row_alone() {
        let rows = rows(300);
        let of = |seed, pass, order: &[u32]| masking(0.15, seed).gather(pass, &rows, order);
        let one = of(1, 0, &[30, 70, 110]);
        assert_eq!(one, of(1, 0, &[30, 70, 110]));
        assert_ne!(one.positions, of(2, 0, &[30, 70, 110]).positions);
        assert_ne!(one.positions, of(1, 1, &[30, 70, 110]).positions);
        let alone = of(1, 0, &[70]);
        let start = one.batch.starts[1];
        assert_eq!(alone.batch.input_ids, one.batch.input_ids[start as usize..one.batch.starts[2] as usize]);
        let shifted: Vec<u32> = alone.positions.iter().map(|position| position + start).collect();
        assert!(shifted.iter().all(|position| one.positions.contains(position)));
        let all = masking(0.15, 1).masked(0, &rows);
        assert_eq!(all.ids(70), &alone.batch.input_ids[..]);
        assert_eq!((all.len(), all.lengths(), all.truncated_count()), (rows.len(), rows.lengths(), 0));
        // What stood there, wherever it is now.
        let plain = TokenBatch::gather(&rows, &[30, 70, 110]);
        let stood: Vec<u32> = one.positions.iter().map(|&position| plain.input_ids[position as usize]).collect();
        assert_eq!(one.originals, stood);
    }

    #[test]
    fn the_masks_of_a_seed_never_change() {
        let row: Vec<u32> = (5..25).collect();
        let found = masking(0.5, 7).mask(3, &[9; 16], &row);
        assert_eq!(found.positions, [1, 2, 5, 7, 10, 11, 14, 16, 17, 19]);
        assert_eq!(found.ids, [5, 4, 39, 8, 9, 75, 11, 4, 13, 14, 4, 4, 17, 18, 4, 20, 21, 4, 23, 4]);
    }

    #[test]
    fn a_tokenizer_without_a_mask_token_is_refused() {
        let error =
            Masking::new(&tokenizer("[PAD]\n[UNK]\n[CLS]\n[SEP]\na"), 0.15, 0).expect_err("refused").to_string();
        assert!(error.contains("no mask token") && error.contains("`mask_token`"), "{error}");
    }
}
