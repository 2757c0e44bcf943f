//! Loads the tokenizer of a model and turns rows into token ids.
//!
//! How a tokenizer is built from `vocab.txt` alone, what its configuration says and how it is written for
//! `transformers` is in the modules below.

mod config;
mod files;
mod vocab_txt;

use crate::{Encodings, Error, Row};
use config::{Config, Description};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use tokenizers::{ModelWrapper, PostProcessor, Tokenizer, TruncationParams};

/// Rows that one thread tokenises at a time, and rows between two calls of a progress function. Neither changes
/// the result.
const CHUNK_ROWS: usize = 256;
const BLOCK_ROWS: usize = 64 * CHUNK_ROWS;

/// A model's tokenizer, with truncation and padding off whatever its file says: [`TextTokenizer::encode`] truncates
/// and nothing pads.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    /// The tokenizer's own serialisation, which has its vocabulary in the order of ids.
    json: String,
    description: Description,
    /// Other files of the tokenizer's folder, by name, that are written back as they were.
    copied: BTreeMap<String, Vec<u8>>,
}

/// The files that make up a tokenizer, in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`: everything but the names of the special tokens. Preferred.
    pub tokenizer_json: Option<&'a [u8]>,
    /// `vocab.txt`: one word piece a line, from which a BERT tokenizer is built.
    pub vocab_txt: Option<&'a [u8]>,
    /// `tokenizer_config.json`: lower-casing and special tokens for `vocab.txt`, the model's length limit.
    pub tokenizer_config: Option<&'a [u8]>,
}

impl TextTokenizer {
    /// Loads the tokenizer in a model's folder: `tokenizer.json`, or `vocab.txt` alone.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let read = |name: &str| match fs::read(folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::Read { file: folder.join(name).display().to_string(), cause }),
        };
        let tokenizer_json = read("tokenizer.json")?;
        let vocab_txt = read("vocab.txt")?;
        let tokenizer_config = read("tokenizer_config.json")?;
        let files = TokenizerFiles {
            tokenizer_json: tokenizer_json.as_deref(),
            vocab_txt: vocab_txt.as_deref(),
            tokenizer_config: tokenizer_config.as_deref(),
        };
        let mut tokenizer = Self::from_files(&files).map_err(|error| match error {
            Error::NoTokenizer { .. } => Error::NoTokenizer { folder: folder.display().to_string() },
            Error::BadTokenizer { file, reason } => {
                Error::BadTokenizer { file: folder.join(file).display().to_string(), reason }
            }
            other => other,
        })?;
        if !tokenizer.is_word_piece() {
            for name in files::COPIED {
                if let Some(bytes) = read(name)? {
                    tokenizer.copied.insert((*name).to_owned(), bytes);
                }
            }
        }
        Ok(tokenizer)
    }

    /// As [`TextTokenizer::from_folder`], from memory.
    pub fn from_files(files: &TokenizerFiles<'_>) -> Result<Self, Error> {
        let config = Config::parse(files.tokenizer_config)?;
        let description = config.description();
        let (tokenizer, source) = match (files.tokenizer_json, files.vocab_txt) {
            (Some(json), _) => (Tokenizer::from_bytes(json), "tokenizer.json"),
            (None, Some(vocab)) => {
                let json = vocab_txt::build(vocab, &config, &description.special_names)?;
                (Tokenizer::from_bytes(json.to_string()), "vocab.txt")
            }
            (None, None) => {
                return Err(Error::NoTokenizer { folder: "the tokenizer files".to_owned() });
            }
        };
        let tokenizer = tokenizer.map_err(|reason| bad(source, &reason))?;
        let mut tokenizer = Self::wrap(tokenizer, source, description)?;
        if let (Some(bytes), false) = (files.tokenizer_config, tokenizer.is_word_piece()) {
            tokenizer.copied.insert(files::CONFIG.to_owned(), bytes.to_vec());
        }
        Ok(tokenizer)
    }

    /// The tokenizer that `json` describes, with the special tokens and the declared limit of this one.
    pub(crate) fn rewritten(&self, json: &str) -> Result<Self, Error> {
        let source = "the rewritten tokenizer.json";
        let tokenizer = Tokenizer::from_bytes(json).map_err(|reason| bad(source, &reason))?;
        Self::wrap(tokenizer, source, self.description.clone())
    }

    /// Wraps a tokenizer, and turns off the truncation and padding that its file may have set.
    fn wrap(mut tokenizer: Tokenizer, source: &str, description: Description) -> Result<Self, Error> {
        tokenizer.with_truncation(None).map_err(|reason| bad(source, &reason))?;
        tokenizer.with_padding(None);
        let json = tokenizer.to_string(false).map_err(|reason| bad(source, &reason))?;
        Ok(Self { tokenizer, json, description, copied: BTreeMap::new() })
    }

    /// The limit that the saved `tokenizer_config.json` declares: the positions that the model has.
    pub fn with_model_max_length(mut self, tokens: usize) -> Self {
        self.description.model_max_length = Some(tokens);
        self
    }

    /// Whether the saved `tokenizer_config.json` has `transformers` pass segments to the model. DistilBERT takes
    /// none and fails when it is given some.
    pub fn with_token_type_ids(mut self, passed: bool) -> Self {
        self.description.token_type_ids = passed;
        self
    }

    /// The number of rows that an embedding table needs for every token: one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab(true).values().max().map_or(0, |largest| *largest as usize + 1)
    }

    /// The id of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The id of the padding token, where there is one.
    pub fn pad_id(&self) -> Option<u32> {
        self.token_id(&self.description.special_names.pad)
    }

    /// The id of the token that stands for a masked one, where there is one.
    pub fn mask_id(&self) -> Option<u32> {
        // RoBERTa's spelling, where the configuration does not say it.
        self.token_id(self.mask_name()).or_else(|| self.token_id("<mask>"))
    }

    pub(crate) fn mask_name(&self) -> &str {
        &self.description.special_names.mask
    }

    /// The ids of all tokens that stand for no piece of text: those that the configuration names, and those that the
    /// tokenizer marks as special.
    pub fn special_ids(&self) -> BTreeSet<u32> {
        let names = self.description.special_names.by_key();
        let named = names.iter().filter_map(|(_, name)| self.token_id(name));
        let added = self.tokenizer.get_added_tokens_decoder();
        let marked = added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id);
        named.chain(marked).chain(self.mask_id()).collect()
    }

    /// The ids of all tokens, ascending.
    pub fn ids(&self) -> BTreeSet<u32> {
        self.tokenizer.get_vocab(true).into_values().collect()
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// The length limit that `tokenizer_config.json` declares, where it declares one.
    pub fn model_max_length(&self) -> Option<usize> {
        self.description.model_max_length
    }

    /// Everything that decides how a text is tokenised, as JSON: the same text for the same tokenizer, whichever
    /// files it came from. This is also what [`TextTokenizer::save`] writes as `tokenizer.json`.
    pub fn canonical_json(&self) -> &str {
        &self.json
    }

    /// The kind of model behind the tokenizer.
    pub fn kind(&self) -> &'static str {
        match self.tokenizer.get_model() {
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "WordLevel",
            ModelWrapper::Unigram(_) => "Unigram",
        }
    }

    /// Tokenises rows, on all threads of the current rayon pool; the result is the same for any number of them.
    ///
    /// A row gets at most `max_length` tokens, special tokens included; of a pair, the longer text is cut first.
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
        let mut truncating = self.tokenizer.clone();
        truncating
            .with_truncation(Some(TruncationParams { max_length, ..TruncationParams::default() }))
            .map_err(|reason| bad("tokenizer.json", &reason))?;
        let mut encodings = Encodings::new();
        for block in rows.chunks(BLOCK_ROWS) {
            let chunks: Vec<Result<Encodings, Error>> =
                block.par_chunks(CHUNK_ROWS).map(|chunk| encode_chunk(&truncating, chunk)).collect();
            for chunk in chunks {
                encodings.append(&chunk?);
            }
            progress(encodings.len());
        }
        Ok(encodings)
    }

    fn is_word_piece(&self) -> bool {
        matches!(self.tokenizer.get_model(), ModelWrapper::WordPiece(_))
    }
}

fn encode_chunk(tokenizer: &Tokenizer, rows: &[Row]) -> Result<Encodings, Error> {
    let mut encodings = Encodings::new();
    for row in rows {
        let failed = |reason: String| Error::Encode { line: row.line, reason };
        let encoding = match &row.text_b {
            Some(text_b) => tokenizer.encode_fast((row.text.as_str(), text_b.as_str()), true),
            None => tokenizer.encode_fast(row.text.as_str(), true),
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

pub(crate) fn bad(file: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::BadTokenizer { file: file.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
