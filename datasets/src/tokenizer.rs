//! A model's tokenizer: loaded as `transformers` loads it, and asked about its tokens.
//!
//! How it is put together from its files is in `build`, how rows become token ids in `encode`, how it is written in `save`.

mod added;
mod build;
mod class;
mod encode;
mod error;
mod files;
mod parts;
mod save;
mod sentencepiece;
mod settings;
mod vocabulary;

use crate::Error;
use build::{Built, build, kind, part, read};
use class::Class;
use error::bad;
use files::TOKENIZER;
pub use files::TokenizerFiles;
use settings::{ROLES, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokenizers::{PostProcessorWrapper, Tokenizer, TruncationDirection, TruncationParams};

/// A model's tokenizer, with truncation and padding off whatever its file says: [`TextTokenizer::encode`] truncates
/// and nothing pads.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    /// The tokenizer's own serialisation, which has its vocabulary in the order of ids.
    json: String,
    description: Description,
}

/// What of a tokenizer its serialisation does not say.
#[derive(Debug, Clone)]
struct Description {
    /// The special tokens that the vocabulary has, by role.
    special: BTreeMap<&'static str, String>,
    model_max_length: Option<usize>,
    token_type_ids: bool,
    /// Whether a long text keeps its end.
    keeps_end: bool,
}

impl TextTokenizer {
    /// Loads the tokenizer in a model's folder, as `AutoTokenizer` of `transformers` 5.24 does: from `tokenizer.json`,
    /// from a vocabulary (`vocab.txt`; `vocab.json` with `merges.txt`) or from a sentencepiece model, with what
    /// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `config.json` say of it.
    ///
    /// Refuses classes that cut words with other tools, vocabularies of a class that is not known, and files that are
    /// not whole.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let in_folder = |file: String| folder.join(file).display().to_string();
        Self::from_files(&TokenizerFiles::of_folder(folder)?).map_err(|error| match error {
            Error::NoTokenizer { .. } => Error::NoTokenizer { folder: folder.display().to_string() },
            Error::BadTokenizer { file, reason } => Error::BadTokenizer { file: in_folder(file), reason },
            Error::MissingSpecialToken { file, token, role } => {
                Error::MissingSpecialToken { file: in_folder(file), token, role }
            }
            other => other,
        })
    }

    /// As [`TextTokenizer::from_folder`], from memory.
    pub fn from_files(files: &TokenizerFiles<'_>) -> Result<Self, Error> {
        let settings = Settings::read(files)?;
        let class = Class::of(files, &settings)?;
        let Built { tokenizer, source } = build(files, class, &settings)?;
        let known = |name: &str| tokenizer.token_to_id(name).is_some();
        let names = ROLES.into_iter().filter_map(|role| {
            let named = class.name_of(role, &settings).filter(|name| known(name));
            // Where nobody says: as BERT's vocabularies spell it, or RoBERTa's.
            let said = settings.special.contains_key(role);
            let usual = || usual_names(role).into_iter().find(|name| known(name)).filter(|_| !said).map(str::to_owned);
            Some((role, named.or_else(usual)?))
        });
        let description = Description {
            special: names.collect(),
            model_max_length: settings.model_max_length,
            token_type_ids: match &settings.model_input_names {
                Some(names) => names.iter().any(|name| name == "token_type_ids"),
                None => class.passes_token_types(&settings),
            },
            keeps_end: settings.keeps_end,
        };
        Self::wrap(tokenizer, &source, description)
    }

    /// The tokenizer that `json` describes, with the special tokens and the declared limit of this one.
    pub(crate) fn rewritten(&self, json: &str) -> Result<Self, Error> {
        let source = "the rewritten tokenizer.json";
        let tokenizer = Tokenizer::from_bytes(json).map_err(|reason| bad(source, reason))?;
        Self::wrap(tokenizer, source, self.description.clone())
    }

    /// Wraps a tokenizer, and turns off the truncation and padding that its file may have set.
    fn wrap(mut tokenizer: Tokenizer, source: &str, description: Description) -> Result<Self, Error> {
        let wrong = |reason: tokenizers::Error| bad(source, reason);
        tokenizer.with_padding(None);
        // Only the direction counts; transformers reads it there too.
        let kept = TruncationParams { direction: TruncationDirection::Left, ..TruncationParams::default() };
        tokenizer.with_truncation(description.keeps_end.then_some(kept)).map_err(wrong)?;
        let json = tokenizer.to_string(false).map_err(wrong)?;
        tokenizer.with_truncation(None).map_err(wrong)?;
        Ok(Self { tokenizer, json, description })
    }

    /// The limit that the saved `tokenizer_config.json` declares: the positions that the model has, or the limit that
    /// the tokenizer declared if that is lower.
    pub fn with_model_max_length(mut self, tokens: usize) -> Self {
        let declared = self.description.model_max_length.unwrap_or(tokens);
        self.description.model_max_length = Some(declared.min(tokens));
        self
    }

    /// Whether the saved `tokenizer_config.json` has `transformers` pass segments to the model. DistilBERT takes
    /// none and fails when it is given some.
    pub fn with_token_type_ids(mut self, passed: bool) -> Self {
        self.description.token_type_ids = passed;
        self
    }

    /// The same tokenizer with all texts in the first segment: for a model that reads segments, where
    /// [`TextTokenizer::passes_token_types`] says that `transformers` gives it none.
    pub fn without_segments(mut self) -> Result<Self, Error> {
        let before = part(&self.tokenizer.get_post_processor())?;
        let after = parts::without_segments(&before);
        if parts::same_post_processor(&before, &after) {
            return Ok(self);
        }
        self.tokenizer.with_post_processor(read::<PostProcessorWrapper>(after)?);
        Self::wrap(self.tokenizer, TOKENIZER, self.description)
    }

    /// Whether the tokenizer's configuration has `transformers` pass segments to the model.
    pub fn passes_token_types(&self) -> bool {
        self.description.token_type_ids
    }

    /// Whether a long text keeps its end instead of its beginning (`truncation_side` is `left`).
    pub fn keeps_end(&self) -> bool {
        self.description.keeps_end
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
        self.token_id(self.description.special.get("pad_token")?)
    }

    /// The token that stands for a masked one, where there is one, as it is written.
    pub fn mask_token(&self) -> Option<&str> {
        self.description.special.get("mask_token").map(String::as_str).filter(|token| self.token_id(token).is_some())
    }

    /// The id of the token that stands for what the vocabulary does not have, where there is one.
    pub fn unk_id(&self) -> Option<u32> {
        self.token_id(self.description.special.get("unk_token")?)
    }

    /// Whether a word is one token of the vocabulary, at the beginning of a text or behind a space.
    pub fn is_whole_word(&self, word: &str) -> bool {
        let unknown = self.unk_id();
        let one = |text: &str| {
            let encoded = self.tokenizer.encode_fast(text, false);
            encoded.is_ok_and(|tokens| tokens.len() == 1 && Some(tokens.get_ids()[0]) != unknown)
        };
        one(word) || one(&format!(" {word}"))
    }

    /// The id of the token that masked-language models fill in, where there is one.
    pub fn mask_id(&self) -> Option<u32> {
        self.token_id(self.description.special.get("mask_token")?)
    }

    /// The names of the special tokens that the vocabulary has, by role.
    pub(crate) fn special_names(&self) -> &BTreeMap<&'static str, String> {
        &self.description.special
    }

    /// The ids of all tokens that stand for no piece of text: those that the configuration names, and those that the
    /// tokenizer marks as special.
    pub fn special_ids(&self) -> BTreeSet<u32> {
        let named = self.description.special.values().filter_map(|name| self.token_id(name));
        let added = self.tokenizer.get_added_tokens_decoder();
        let marked = added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id);
        named.chain(marked).collect()
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
        kind(&self.tokenizer)
    }
}

/// What vocabularies usually call a special token.
fn usual_names(role: &str) -> Vec<&'static str> {
    match role {
        "unk_token" => vec!["[UNK]", "<unk>"],
        "sep_token" => vec!["[SEP]", "</s>"],
        "pad_token" => vec!["[PAD]", "<pad>"],
        "cls_token" => vec!["[CLS]", "<s>"],
        "mask_token" => vec!["[MASK]", "<mask>"],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests;
