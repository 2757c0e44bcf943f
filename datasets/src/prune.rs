//! Cuts a vocabulary to the pieces that a data set uses. In a small student the embedding table is most of the model.
//!
//! Whatever the kind of vocabulary, a text whose pieces are all kept is tokenised as before, and any other text still falls
//! apart into pieces, since those of a single character are kept:
//!
//! - WordPiece takes, at each place of a word, the longest piece that fits; a kept one is still the longest.
//! - Unigram takes the best way through a text; a way that is left is still the best. What an unknown character costs
//!   follows from the lowest score, so the piece that has it is kept too, and so are pieces with a character that is in
//!   no piece alone.
//! - Byte-pair encoding merges the pair of lowest rank that there is. Of a kept piece the parts are kept, and theirs, so
//!   all merges on the way to it are still there, in their order, and none is new.
//!
//! One thing can change with WordPiece: a word that was unknown because a character of it had no piece of its own, while
//! some longer piece has it inside, may now be known. BERT's own vocabularies have no such character.

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

/// A padding token beyond this id is none of RoBERTa's.
const LAST_PADDING: u32 = 15;

/// Keeps the `used` ids with what leads to them, every piece of a single character and all special and added tokens.
///
/// Pass [`Encodings::used_ids`](crate::Encodings::used_ids) of all data that must be tokenised as before. New ids keep
/// the order of the old ones, so `[PAD]` stays 0 if it was. An error for tokenizers other than WordPiece,
/// BPE and Unigram.
pub fn prune_vocabulary(tokenizer: &TextTokenizer, used: impl Iterator<Item = u32>) -> Result<PrunedVocabulary, Error> {
    let mut json: Value = serde_json::from_str(tokenizer.canonical_json()).map_err(|reason| bad(&reason))?;
    let pieces = Pieces::of(&json["model"]).ok_or(Error::NotPrunable { kind: tokenizer.kind() })?;
    let mut kept = pieces.always_kept(&json["model"]);
    each_special_id(&mut json, &mut |special| kept.extend(id(special)));
    // RoBERTa, and what reads like it, counts positions from behind the padding's id, which therefore stays what it is.
    let padding = tokenizer.pad_id().filter(|padding| *padding <= LAST_PADDING && tokenizer.kind() != "WordPiece");
    kept.extend((0..padding.unwrap_or(0)).filter(|&id| tokenizer.token(id).is_some()));
    for id in used {
        if tokenizer.token(id).is_none() {
            return Err(Error::UnknownTokenId { id, size: tokenizer.vocab_size() });
        }
        kept.insert(id);
    }
    pieces.keep_parts(&json["model"], &mut kept);
    let new_ids: BTreeMap<u32, u32> = kept.iter().copied().zip(0..).collect();

    cut(&mut json["model"], &pieces, &new_ids);
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
            return Err(bad(&reason));
        }
    }
    Ok(PrunedVocabulary { tokenizer: pruned, kept: kept.into_iter().collect() })
}

/// The pieces of a vocabulary by their text.
struct Pieces {
    ids: BTreeMap<String, u32>,
    /// What stands before a piece that goes on within a word.
    prefix: String,
    /// What stands behind a piece that ends a word.
    suffix: String,
}

impl Pieces {
    /// None where the kind of vocabulary cannot be pruned.
    fn of(model: &Value) -> Option<Self> {
        let affix = |key: &str| model[key].as_str().unwrap_or_default().to_owned();
        let listed = |(text, id): (&str, Option<u32>)| Some((text.to_owned(), id?));
        let ids = match model["type"].as_str()? {
            "WordPiece" | "BPE" => {
                let vocabulary = model["vocab"].as_object()?.iter();
                vocabulary.filter_map(|(text, value)| listed((text, id(value)))).collect()
            }
            "Unigram" => {
                let vocabulary = model["vocab"].as_array()?.iter().zip(0..);
                vocabulary.filter_map(|(piece, id)| listed((piece[0].as_str()?, Some(id)))).collect()
            }
            _ => return None,
        };
        Some(Self { ids, prefix: affix("continuing_subword_prefix"), suffix: affix("end_of_word_suffix") })
    }

    /// Pieces of a single character or byte, the unknown one, and of a Unigram vocabulary those with a character that has
    /// no piece of its own and the one of the lowest score.
    fn always_kept(&self, model: &Value) -> BTreeSet<u32> {
        let is_one = |text: &str| text.chars().count() == 1;
        let is_single = |text: &str| {
            let without_prefix = text.strip_prefix(&self.prefix).unwrap_or(text);
            let bare = without_prefix.strip_suffix(&self.suffix).unwrap_or(without_prefix);
            is_one(text) || is_one(without_prefix) || is_one(bare)
        };
        let is_byte = |text: &str| model["byte_fallback"] == true && text.len() == 6 && text.starts_with("<0x");
        let is_kept = |text: &str| is_single(text) || is_byte(text) || model["unk_token"] == text;
        let mut kept: BTreeSet<u32> =
            self.ids.iter().filter(|(text, _)| is_kept(text)).map(|(_, &piece)| piece).collect();
        kept.extend(id(&model["unk_id"]));
        let scores = model["vocab"].as_array().into_iter().flatten().zip(0..);
        let scores = scores.filter_map(|(piece, id)| Some((piece[1].as_f64()?, id)));
        kept.extend(scores.min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, lowest)| lowest));
        if model["type"] == "Unigram" {
            let alone: BTreeSet<char> =
                self.ids.keys().filter(|text| is_one(text)).filter_map(|text| text.chars().next()).collect();
            let is_needed = |text: &str| text.chars().any(|c| !alone.contains(&c));
            kept.extend(self.ids.iter().filter(|(text, _)| is_needed(text)).map(|(_, &piece)| piece));
        }
        kept
    }

    /// The two parts and the whole of each merge of a byte-pair encoding, in their order; none where one is no piece.
    fn merges(&self, model: &Value) -> Vec<Option<[u32; 3]>> {
        let merges = model["merges"].as_array().into_iter().flatten();
        let ids = merges.map(|merge| {
            let (left, right) = (merge[0].as_str()?, merge[1].as_str()?);
            let whole = format!("{left}{}", right.get(self.prefix.len()..)?);
            Some([*self.ids.get(left)?, *self.ids.get(right)?, *self.ids.get(&whole)?])
        });
        ids.collect()
    }

    /// Adds the parts of the kept pieces, and the parts of these.
    fn keep_parts(&self, model: &Value, kept: &mut BTreeSet<u32>) {
        let mut parts: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for [left, right, whole] in self.merges(model).into_iter().flatten() {
            parts.entry(whole).or_default().extend([left, right]);
        }
        let mut open: Vec<u32> = kept.iter().copied().collect();
        while let Some(piece) = open.pop() {
            open.extend(parts.get(&piece).into_iter().flatten().copied().filter(|part| kept.insert(*part)));
        }
    }
}

/// Cuts the vocabulary and the merges down to the kept pieces.
fn cut(model: &mut Value, pieces: &Pieces, new_ids: &BTreeMap<u32, u32>) {
    let new_id = |old: &Value| new_ids.get(&id(old)?).copied();
    match &mut model["vocab"] {
        Value::Object(vocabulary) => {
            let cut = std::mem::take(vocabulary).into_iter();
            *vocabulary = cut.filter_map(|(token, old)| Some((token, new_id(&old)?.into()))).collect::<Map<_, _>>();
        }
        Value::Array(vocabulary) => {
            let mut old = 0..;
            vocabulary.retain(|_| old.next().is_some_and(|old| new_ids.contains_key(&old)));
        }
        _ => {}
    }
    if let Some(unk_id) = new_id(&model["unk_id"]) {
        model["unk_id"] = unk_id.into();
    }
    let merges = pieces.merges(model);
    if let Some(list) = model["merges"].as_array_mut() {
        let is_kept = |ids: [u32; 3]| ids.iter().all(|id| new_ids.contains_key(id));
        let mut merges = merges.into_iter();
        list.retain(|_| merges.next().flatten().is_some_and(is_kept));
    }
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

fn bad(reason: &dyn std::fmt::Display) -> Error {
    Error::BadTokenizer { file: "tokenizer.json".to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
