//! The files that a tokenizer may consist of: their names, and how they are found in a folder.

use crate::Error;
use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL_TOKENS: &str = "special_tokens_map.json";
pub(super) const ADDED_TOKENS: &str = "added_tokens.json";
pub(super) const VOCAB_TXT: &str = "vocab.txt";
pub(super) const VOCAB_JSON: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";
pub(super) const MODEL_CONFIG: &str = "config.json";

/// Names of sentencepiece models; which of them is read depends on the tokenizer's class.
pub(super) const SENTENCEPIECE: [&str; 3] = ["spiece.model", "spm.model", "sentencepiece.bpe.model"];

/// The files that make up a tokenizer, in memory. Give those that there are; the model's own `config.json` too, since
/// it decides the tokenizer's class where `tokenizer_config.json` names none.
#[derive(Debug, Clone, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`: the whole tokenizer. Preferred.
    pub tokenizer_json: Option<Cow<'a, [u8]>>,
    /// `tokenizer_config.json`: class, settings, special tokens.
    pub tokenizer_config: Option<Cow<'a, [u8]>>,
    /// `special_tokens_map.json`: special tokens, as older folders name them.
    pub special_tokens_map: Option<Cow<'a, [u8]>>,
    /// `added_tokens.json`: tokens beyond the vocabulary with their ids, of older folders.
    pub added_tokens: Option<Cow<'a, [u8]>>,
    /// `vocab.txt`: one word piece a line.
    pub vocab_txt: Option<Cow<'a, [u8]>>,
    /// `vocab.json`: the pieces of a byte-pair encoding, with their ids.
    pub vocab_json: Option<Cow<'a, [u8]>>,
    /// `merges.txt`: its merges, one a line.
    pub merges_txt: Option<Cow<'a, [u8]>>,
    /// Sentencepiece models, by file name.
    pub sentencepiece: Vec<(String, Cow<'a, [u8]>)>,
    /// The model's `config.json`.
    pub model_config: Option<Cow<'a, [u8]>>,
}

impl TokenizerFiles<'static> {
    /// Reads what a folder has of them.
    pub fn of_folder(folder: &Path) -> Result<Self, Error> {
        let read = |name: &str| match fs::read(folder.join(name)) {
            Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::Read { file: folder.join(name).display().to_string(), cause }),
        };
        let tokenizer_json = read(TOKENIZER)?;
        let mut sentencepiece = Vec::new();
        // Hundreds of kilobytes that nothing reads beside tokenizer.json.
        if tokenizer_json.is_none() {
            for name in SENTENCEPIECE {
                if let Some(bytes) = read(name)? {
                    sentencepiece.push((name.to_owned(), bytes));
                }
            }
        }
        Ok(Self {
            tokenizer_json,
            tokenizer_config: read(CONFIG)?,
            special_tokens_map: read(SPECIAL_TOKENS)?,
            added_tokens: read(ADDED_TOKENS)?,
            vocab_txt: read(VOCAB_TXT)?,
            vocab_json: read(VOCAB_JSON)?,
            merges_txt: read(MERGES)?,
            sentencepiece,
            model_config: read(MODEL_CONFIG)?,
        })
    }
}

impl TokenizerFiles<'_> {
    /// The names of the files with a vocabulary in them.
    pub(super) fn vocabularies(&self) -> Vec<&str> {
        let single = [
            (TOKENIZER, &self.tokenizer_json),
            (VOCAB_TXT, &self.vocab_txt),
            (VOCAB_JSON, &self.vocab_json),
            (MERGES, &self.merges_txt),
        ];
        let found = single.into_iter().filter(|(_, bytes)| bytes.is_some()).map(|(name, _)| name);
        found.chain(self.sentencepiece.iter().map(|(name, _)| name.as_str())).collect()
    }
}
