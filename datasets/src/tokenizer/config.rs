//! What `tokenizer_config.json` says, as far as it matters here.

use super::bad;
use crate::Error;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The file, as written. Whatever it leaves out has BERT's default.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) do_lower_case: Option<bool>,
    pub(super) strip_accents: Option<bool>,
    pub(super) tokenize_chinese_chars: Option<bool>,
    /// Further special tokens, by id (in digits).
    pub(super) added_tokens_decoder: BTreeMap<String, AddedTokenConfig>,
    model_max_length: Option<f64>,
    model_input_names: Option<Vec<String>>,
    tokenizer_class: Option<String>,
    unk_token: Option<TokenName>,
    cls_token: Option<TokenName>,
    sep_token: Option<TokenName>,
    pad_token: Option<TokenName>,
    mask_token: Option<TokenName>,
}

/// A token added to the vocabulary, with how it is found in a text.
#[derive(Debug, Deserialize)]
pub(super) struct AddedTokenConfig {
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

/// A special token is written as its text or as an object with that text in it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenName {
    Plain(String),
    Detailed { content: String },
}

/// What is kept of the file, with its defaults filled in.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub(super) special_names: SpecialNames,
    pub(super) model_max_length: Option<usize>,
    pub(super) token_type_ids: bool,
}

/// How the vocabulary spells the special tokens.
#[derive(Debug, Clone)]
pub(super) struct SpecialNames {
    pub(super) unk: String,
    pub(super) cls: String,
    pub(super) sep: String,
    pub(super) pad: String,
    pub(super) mask: String,
}

impl Config {
    pub(super) fn parse(bytes: Option<&[u8]>) -> Result<Self, Error> {
        match bytes {
            Some(bytes) => serde_json::from_slice(bytes).map_err(|reason| bad(super::files::CONFIG, &reason)),
            None => Ok(Self::default()),
        }
    }

    pub(super) fn description(&self) -> Description {
        let name = |token: &Option<TokenName>, default: &str| match token {
            Some(TokenName::Plain(name) | TokenName::Detailed { content: name }) => name.clone(),
            None => default.to_owned(),
        };
        // Where nobody set a limit, transformers writes an enormous number.
        let model_max_length = self.model_max_length.filter(|limit| (1.0..1e9).contains(limit));
        let token_type_ids = match (&self.model_input_names, &self.tokenizer_class) {
            (Some(names), _) => names.iter().any(|name| name == "token_type_ids"),
            (None, Some(class)) => !class.starts_with("DistilBert"),
            (None, None) => true,
        };
        Description {
            special_names: SpecialNames {
                unk: name(&self.unk_token, "[UNK]"),
                cls: name(&self.cls_token, "[CLS]"),
                sep: name(&self.sep_token, "[SEP]"),
                pad: name(&self.pad_token, "[PAD]"),
                mask: name(&self.mask_token, "[MASK]"),
            },
            model_max_length: model_max_length.map(|limit| limit as usize),
            token_type_ids,
        }
    }
}

impl SpecialNames {
    /// Each with the key that `transformers` has for it, in the order of these keys.
    pub(super) fn by_key(&self) -> [(&'static str, &str); 5] {
        [
            ("cls_token", &self.cls),
            ("mask_token", &self.mask),
            ("pad_token", &self.pad),
            ("sep_token", &self.sep),
            ("unk_token", &self.unk),
        ]
    }
}
