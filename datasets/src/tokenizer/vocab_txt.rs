//! Builds BERT's WordPiece tokenizer from `vocab.txt`, as `transformers` does where there is no `tokenizer.json`.

use super::config::{AddedTokenConfig, Config, SpecialNames};
use crate::Error;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The `tokenizer.json` of this vocabulary. A word piece's id is its line, from 0.
pub(super) fn build(vocab_txt: &[u8], config: &Config, special_names: &SpecialNames) -> Result<Value, Error> {
    let vocabulary = vocabulary(vocab_txt)?;
    let id = |token: &str| vocabulary.get(token).and_then(Value::as_u64);
    let required =
        |token: &str, role| id(token).ok_or_else(|| Error::MissingSpecialToken { token: token.to_owned(), role });
    required(&special_names.unk, "unk_token")?;
    let cls = required(&special_names.cls, "cls_token")?;
    let sep = required(&special_names.sep, "sep_token")?;

    let mut added_tokens = BTreeMap::new();
    for (_, name) in special_names.by_key() {
        if let Some(id) = id(name) {
            added_tokens.insert(id, added_token(id, name));
        }
    }
    for (key, token) in &config.added_tokens_decoder {
        let id = id(&token.content).or_else(|| key.parse().ok()).ok_or_else(|| Error::BadTokenizer {
            file: super::files::CONFIG.to_owned(),
            reason: format!("added_tokens_decoder: `{key}` is not a token id"),
        })?;
        added_tokens.insert(id, detailed_added_token(id, token));
    }
    let (cls_name, sep_name) = (&special_names.cls, &special_names.sep);
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens.into_values().collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": config.tokenize_chinese_chars.unwrap_or(true),
            "strip_accents": config.strip_accents,
            "lowercase": config.do_lower_case.unwrap_or(true),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": post_processor((cls_name, cls), (sep_name, sep)),
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece",
            "unk_token": special_names.unk,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }))
}

/// `[CLS] text [SEP]`, or `[CLS] text [SEP] other text [SEP]` with the last two in the second segment.
pub(super) fn post_processor(cls: (&str, u64), sep: (&str, u64)) -> Value {
    let special = |token: &str, type_id: u32| json!({ "SpecialToken": { "id": token, "type_id": type_id } });
    let text = |id: &str, type_id: u32| json!({ "Sequence": { "id": id, "type_id": type_id } });
    let mut special_tokens = Map::new();
    for (token, id) in [cls, sep] {
        special_tokens.insert(token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] }));
    }
    json!({
        "type": "TemplateProcessing",
        "single": [special(cls.0, 0), text("A", 0), special(sep.0, 0)],
        "pair": [special(cls.0, 0), text("A", 0), special(sep.0, 0), text("B", 1), special(sep.0, 1)],
        "special_tokens": special_tokens,
    })
}

fn vocabulary(vocab_txt: &[u8]) -> Result<Map<String, Value>, Error> {
    let mut vocabulary = Map::new();
    let without_last_end = vocab_txt.strip_suffix(b"\n").unwrap_or(vocab_txt);
    for (id, line) in without_last_end.split(|byte| *byte == b'\n').enumerate() {
        let token = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line))
            .map_err(|_| Error::InvalidUtf8 { file: "vocab.txt".to_owned(), line: id + 1 })?;
        vocabulary.insert(token.to_owned(), id.into());
    }
    Ok(vocabulary)
}

fn added_token(id: u64, content: &str) -> Value {
    let token = AddedTokenConfig {
        content: content.to_owned(),
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
    };
    detailed_added_token(id, &token)
}

fn detailed_added_token(id: u64, token: &AddedTokenConfig) -> Value {
    json!({
        "id": id,
        "content": token.content,
        "single_word": token.single_word,
        "lstrip": token.lstrip,
        "rstrip": token.rstrip,
        "normalized": token.normalized,
        "special": token.special,
    })
}
