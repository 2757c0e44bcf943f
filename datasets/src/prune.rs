//! Cuts a WordPiece vocabulary to the pieces that a data set uses.
//!
//! In a small student most of the parameters are word embeddings. At each position of a word, WordPiece takes the
//! longest piece of the vocabulary that matches. If that piece is kept it is still the longest, so a text whose pieces
//! are all kept is tokenised as before; and since every single-character piece is kept, any other text can still be
//! split into pieces. One thing can change: a word that was unknown because one of its characters has no piece of its
//! own, but occurs inside a longer piece, may now be known. BERT's own vocabularies have no such character.

use crate::tokenizer::bad;
use crate::{Error, TextTokenizer};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A tokenizer with a smaller vocabulary, and the old id of each new one.
#[derive(Debug, Clone)]
pub struct PrunedVocabulary {
    /// The tokenizer with the new ids.
    pub tokenizer: TextTokenizer,
    /// The old id of each new id, ascending: row `i` of the new embedding table is row `kept[i]` of the old one.
    pub kept: Vec<u32>,
}

/// Keeps the `used` ids, every single-character piece (`x` and `##x`) and all special and added tokens.
///
/// Pass [`Encodings::used_ids`](crate::Encodings::used_ids) of all data that must be tokenised as before. New ids keep
/// the order of the old ones, so `[PAD]` stays 0 if it was. An error for tokenizers other than WordPiece.
pub fn prune_vocabulary(tokenizer: &TextTokenizer, used: impl Iterator<Item = u32>) -> Result<PrunedVocabulary, Error> {
    if tokenizer.kind() != "WordPiece" {
        return Err(Error::NotWordPiece { kind: tokenizer.kind() });
    }
    let mut json: Value =
        serde_json::from_str(tokenizer.canonical_json()).map_err(|reason| bad("tokenizer.json", &reason))?;
    let mut kept = always_kept(&mut json);
    for id in used {
        if tokenizer.token(id).is_none() {
            return Err(Error::UnknownTokenId { id, size: tokenizer.vocab_size() });
        }
        kept.insert(id);
    }
    let new_ids: BTreeMap<u32, u32> = kept.iter().copied().zip(0..).collect();

    let vocabulary = json["model"]["vocab"].as_object().into_iter().flatten();
    let vocabulary: Map<String, Value> =
        vocabulary.filter_map(|(token, old)| Some((token.clone(), new_ids.get(&id(old)?).copied()?.into()))).collect();
    json["model"]["vocab"] = vocabulary.into();
    each_special_id(&mut json, &mut |old| {
        if let Some(new) = id(old).and_then(|old| new_ids.get(&old)) {
            *old = json!(new);
        }
    });

    let pruned = tokenizer.rewritten(&json.to_string())?;
    for (old, new) in &new_ids {
        let (before, after) = (tokenizer.token(*old), pruned.token(*new));
        if before != after {
            let reason = format!(
                "cannot be pruned: token {old} `{}` would become `{}`; go on without pruning",
                before.unwrap_or_default(),
                after.unwrap_or_default(),
            );
            return Err(bad("tokenizer.json", &reason));
        }
    }
    Ok(PrunedVocabulary { tokenizer: pruned, kept: kept.into_iter().collect() })
}

/// Single characters, the unknown token, and every token that another part of the tokenizer refers to.
fn always_kept(json: &mut Value) -> BTreeSet<u32> {
    let mut kept = BTreeSet::new();
    each_special_id(json, &mut |special| kept.extend(id(special)));
    let model = &json["model"];
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    let is_one = |text: &str| text.chars().count() == 1;
    for (token, token_id) in model["vocab"].as_object().into_iter().flatten() {
        let is_one_further_on = token.strip_prefix(prefix).is_some_and(is_one);
        if is_one(token) || is_one_further_on || model["unk_token"] == token.as_str() {
            kept.extend(id(token_id));
        }
    }
    kept
}

/// Visits every token id outside the vocabulary itself: those of added tokens and of the post-processor.
fn each_special_id(json: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    for token in json["added_tokens"].as_array_mut().into_iter().flatten() {
        visit(&mut token["id"]);
    }
    each_post_processor_id(&mut json["post_processor"], visit);
}

fn each_post_processor_id(processor: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    match processor["type"].as_str() {
        Some("TemplateProcessing") => {
            for token in processor["special_tokens"].as_object_mut().into_iter().flat_map(Map::values_mut) {
                token["ids"].as_array_mut().into_iter().flatten().for_each(&mut *visit);
            }
        }
        Some("BertProcessing" | "RobertaProcessing") => {
            visit(&mut processor["sep"][1]);
            visit(&mut processor["cls"][1]);
        }
        Some("Sequence") => {
            for inner in processor["processors"].as_array_mut().into_iter().flatten() {
                each_post_processor_id(inner, visit);
            }
        }
        _ => {}
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests;
