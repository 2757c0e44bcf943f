//! What the small files beside a vocabulary say: `tokenizer_config.json`, `special_tokens_map.json`,
//! `added_tokens.json`, and the model's `config.json`.
//!
//! Which of them counts where they disagree is as in `PreTrainedTokenizerBase._from_pretrained` of `transformers` 5.24:
//! `special_tokens_map.json`, `added_tokens.json` and the added tokens of `tokenizer.json` are read where
//! `tokenizer_config.json` has no `added_tokens_decoder`, and the first of them overrules the configuration.

use super::added::{Added, Written};
use super::error::bad;
use super::files::{ADDED_TOKENS, CONFIG, MODEL_CONFIG, SPECIAL_TOKENS, TOKENIZER, TokenizerFiles};
use crate::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The parts that special tokens play, in the order in which `transformers` adds them.
pub(super) const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Everything the small files say.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// `tokenizer_class`, with the file that names it.
    pub(super) class: Option<(String, &'static str)>,
    /// Of the model.
    pub(super) model_type: Option<String>,
    /// Whether the folder names code of its own for the tokenizer.
    pub(super) own_code: bool,
    pub(super) do_lower_case: Option<bool>,
    pub(super) keep_accents: Option<bool>,
    pub(super) strip_accents: Option<bool>,
    pub(super) tokenize_chinese_chars: Option<bool>,
    pub(super) add_prefix_space: Option<bool>,
    pub(super) split_by_punct: Option<bool>,
    pub(super) model_max_length: Option<usize>,
    pub(super) model_input_names: Option<Vec<String>>,
    /// Whether a long text keeps its end.
    pub(super) keeps_end: bool,
    /// The special tokens that are named, by role; none where it is written that there is none.
    pub(super) special: BTreeMap<&'static str, Option<Written>>,
    /// Special tokens without a role, where there is a list of them.
    pub(super) extra: Option<Vec<Added>>,
    /// Added tokens by the id that their file gives them.
    pub(super) added: BTreeMap<u32, Added>,
}

/// `tokenizer_config.json`, as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    tokenizer_class: Option<String>,
    auto_map: Option<Value>,
    do_lower_case: Option<bool>,
    keep_accents: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
    split_by_punct: Option<bool>,
    split_special_tokens: Option<bool>,
    fast_tokenizer_files: Vec<String>,
    model_max_length: Option<f64>,
    max_len: Option<f64>,
    model_input_names: Option<Vec<String>>,
    truncation_side: Option<String>,
    added_tokens_decoder: Option<BTreeMap<String, Added>>,
    #[serde(flatten)]
    special: Special,
}

/// Special tokens, as either file writes them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Special {
    #[serde(deserialize_with = "written")]
    bos_token: Option<Option<Written>>,
    #[serde(deserialize_with = "written")]
    eos_token: Option<Option<Written>>,
    #[serde(deserialize_with = "written")]
    unk_token: Option<Option<Written>>,
    #[serde(deserialize_with = "written")]
    sep_token: Option<Option<Written>>,
    #[serde(deserialize_with = "written")]
    pad_token: Option<Option<Written>>,
    #[serde(deserialize_with = "written")]
    cls_token: Option<Option<Written>>,
    #[serde(deserialize_with = "written")]
    mask_token: Option<Option<Written>>,
    additional_special_tokens: Option<Vec<Written>>,
    extra_special_tokens: Option<Extra>,
}

/// What is written, `null` too; what is not stays `None`.
fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Written>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A list, or an object from a name of their own to each.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Extra {
    List(Vec<Written>),
    Named(BTreeMap<String, Written>),
}

/// What the model's own configuration says of its tokenizer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ModelConfig {
    model_type: Option<String>,
    tokenizer_class: Option<String>,
}

/// What of `tokenizer.json` counts as a setting.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Serialized {
    added_tokens: Vec<SerializedToken>,
    truncation: Option<Truncation>,
}

#[derive(Debug, Deserialize)]
struct SerializedToken {
    id: u32,
    #[serde(flatten)]
    token: Added,
}

#[derive(Debug, Deserialize)]
struct Truncation {
    direction: Option<String>,
}

impl Settings {
    pub(super) fn read(files: &TokenizerFiles<'_>) -> Result<Self, Error> {
        let config: Config = parse(files.tokenizer_config.as_ref(), CONFIG)?;
        let model: ModelConfig = parse(files.model_config.as_ref(), MODEL_CONFIG)?;
        // A tokenizer.json that cannot be read is refused where its parts are.
        let serialized: Serialized =
            files.tokenizer_json.as_ref().and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
        if config.split_special_tokens == Some(true) {
            return Err(bad(
                CONFIG,
                "`split_special_tokens` is true, which is not supported: special tokens written inside a text stay \
                 whole; set it to false if the model was trained so",
            ));
        }
        if let Some(other) = config.fast_tokenizer_files.iter().find(|file| *file != TOKENIZER) {
            return Err(bad(
                CONFIG,
                format!(
                    "`fast_tokenizer_files` names {other}, which `transformers` may read in the place of {TOKENIZER}; make \
                     the file that counts the {TOKENIZER} and remove the entry"
                ),
            ));
        }
        let in_config = config.tokenizer_class.map(|class| (class, CONFIG));
        let in_model = model.tokenizer_class.map(|class| (class, MODEL_CONFIG));
        // Where nobody set a limit, transformers writes an enormous number.
        let limit = config.model_max_length.or(config.max_len).filter(|limit| (1.0..1e9).contains(limit));
        let side = config.truncation_side.or(serialized.truncation.and_then(|truncation| truncation.direction));
        let mut settings = Self {
            class: in_config.or(in_model),
            model_type: model.model_type,
            own_code: match &config.auto_map {
                Some(Value::Object(map)) => map.contains_key("AutoTokenizer"),
                Some(Value::Array(list)) => !list.is_empty(),
                _ => false,
            },
            do_lower_case: config.do_lower_case,
            keep_accents: config.keep_accents,
            strip_accents: config.strip_accents,
            tokenize_chinese_chars: config.tokenize_chinese_chars,
            add_prefix_space: config.add_prefix_space,
            split_by_punct: config.split_by_punct,
            model_max_length: limit.map(|limit| limit as usize),
            model_input_names: config.model_input_names,
            keeps_end: match side.as_deref() {
                None | Some("right" | "Right") => false,
                Some("left" | "Left") => true,
                Some(other) => {
                    return Err(bad(CONFIG, format!("`truncation_side` is `{other}`, expected `right` or `left`")));
                }
            },
            ..Self::default()
        };
        settings.take_special(config.special);
        match config.added_tokens_decoder {
            Some(decoder) => {
                for (key, token) in decoder {
                    let id = key
                        .parse()
                        .map_err(|_| bad(CONFIG, format!("added_tokens_decoder: `{key}` is not a token id")))?;
                    settings.added.insert(id, token);
                }
            }
            None => {
                settings.take_special(parse(files.special_tokens_map.as_ref(), SPECIAL_TOKENS)?);
                let listed: BTreeMap<String, u32> = parse(files.added_tokens.as_ref(), ADDED_TOKENS)?;
                for (content, id) in listed {
                    let special = settings.special.values().flatten().any(|token| token.content() == content)
                        || settings.extra.iter().flatten().any(|token| token.content == content);
                    settings.added.insert(id, Added { special, normalized: None, ..Added::special(&content) });
                }
                settings.added.extend(serialized.added_tokens.into_iter().map(|found| (found.id, found.token)));
            }
        }
        Ok(settings)
    }

    /// Takes what is named over what was named before.
    fn take_special(&mut self, special: Special) {
        let tokens = [
            special.bos_token,
            special.eos_token,
            special.unk_token,
            special.sep_token,
            special.pad_token,
            special.cls_token,
            special.mask_token,
        ];
        let named = ROLES.into_iter().zip(tokens);
        self.special.extend(named.filter_map(|(role, token)| Some((role, token?))));
        let extra: Option<Vec<Written>> = match special.extra_special_tokens {
            Some(Extra::List(list)) => Some(list),
            Some(Extra::Named(named)) => Some(named.into_values().collect()),
            None => None,
        };
        let listed = extra.filter(|extra| !extra.is_empty()).or(special.additional_special_tokens);
        if let Some(listed) = listed {
            self.extra = Some(listed.iter().map(Written::added).collect());
        }
    }
}

fn parse<T: DeserializeOwned + Default>(bytes: Option<&Cow<'_, [u8]>>, file: &str) -> Result<T, Error> {
    match bytes {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|reason| bad(file, reason)),
        None => Ok(T::default()),
    }
}
