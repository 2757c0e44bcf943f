//! Turns rows into token ids, on all threads.

use super::TextTokenizer;
use super::error::bad;
use super::files::TOKENIZER;
use crate::{Encodings, Error, Row};
use rayon::prelude::*;
use tokenizers::{Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams};

/// Rows that one thread tokenises at a time, and rows between two calls of a progress function. Neither changes
/// the result.
const CHUNK_ROWS: usize = 256;
pub(super) const BLOCK_ROWS: usize = 64 * CHUNK_ROWS;

impl TextTokenizer {
    /// Tokenises rows, on all threads of the current rayon pool; the result is the same for any number of them.
    ///
    /// A row gets at most `max_length` tokens, special tokens included; of a pair, the longer text is cut first. What is
    /// cut off is the end, or the beginning where [`TextTokenizer::keeps_end`] says so.
    /// Every call copies the tokenizer, so give it many rows at a time.
    pub fn encode(&self, rows: &[Row], max_length: usize) -> Result<Encodings, Error> {
        self.encode_with_progress(rows, max_length, |_| {})
    }

    /// As [`TextTokenizer::encode`], and calls `progress` now and then with the number of rows done so far.
    pub fn encode_with_progress(
        &self,
        rows: &[Row],
        max_length: usize,
        mut progress: impl FnMut(usize),
    ) -> Result<Encodings, Error> {
        let pairs = rows.iter().any(|row| row.text_b.is_some());
        let special = self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pairs));
        if max_length <= special {
            return Err(Error::MaxLength { max_length, special });
        }
        if u32::try_from(rows.len()).is_err() {
            return Err(Error::TooManyRows { rows: rows.len(), limit: u32::MAX });
        }
        let direction = if self.keeps_end() { TruncationDirection::Left } else { TruncationDirection::Right };
        let truncation = TruncationParams { max_length, direction, ..TruncationParams::default() };
        let mut truncating = self.tokenizer.clone();
        truncating.with_truncation(Some(truncation)).map_err(|reason| bad(TOKENIZER, reason))?;
        let mut encodings = Encodings::new();
        for block in rows.chunks(BLOCK_ROWS) {
            let chunks: Vec<Result<Encodings, Error>> =
                block.par_chunks(CHUNK_ROWS).map(|chunk| encode_chunk(&self.tokenizer, &truncating, chunk)).collect();
            for chunk in chunks {
                encodings.append(&chunk?);
            }
            progress(encodings.len());
        }
        Ok(encodings)
    }
}

/// `whole` does not truncate.
fn encode_chunk(whole: &Tokenizer, truncating: &Tokenizer, rows: &[Row]) -> Result<Encodings, Error> {
    let mut encodings = Encodings::new();
    for row in rows {
        let failed = |reason: String| Error::Encode { line: row.line, reason };
        let encoding = match &row.text_b {
            Some(text_b) => encode_pair(whole, truncating, &row.text, text_b),
            None => truncating.encode_fast(row.text.as_str(), true),
        }
        .map_err(|error| failed(error.to_string()))?;
        let type_ids: Vec<u8> = encoding
            .get_type_ids()
            .iter()
            .map(|id| u8::try_from(*id))
            .collect::<Result<_, _>>()
            .map_err(|_| failed("a token type id above 255".to_owned()))?;
        let cut_off = encoding.get_overflowing();
        encodings.push(encoding.get_ids(), &type_ids, !cut_off.is_empty());
        if row.text_b.is_some() {
            encodings.weigh(cut_off.iter().flat_map(|part| part.get_ids().iter().copied()));
        }
    }
    Ok(encodings)
}

/// Where a pair is cut follows from how long both texts are. A truncating tokenizer stops reading each of them at the limit,
/// and takes two long texts of different lengths for equally long ones; so both are read whole first.
fn encode_pair(
    whole: &Tokenizer,
    truncating: &Tokenizer,
    text: &str,
    text_b: &str,
) -> Result<Encoding, tokenizers::Error> {
    let first = whole.encode_fast(text, false)?;
    let mut second = whole.encode_fast(text_b, false)?;
    second.set_type_ids(vec![1; second.len()]);
    truncating.post_process(first, Some(second), true)
}
