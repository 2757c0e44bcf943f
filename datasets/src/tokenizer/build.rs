//! Puts a tokenizer together from its files, as the class that reads them does.

use super::added::{Added, Written};
use super::class::{Class, no_vocabulary};
use super::error::bad;
use super::files::{ADDED_TOKENS, CONFIG, MODEL_CONFIG, TOKENIZER, TokenizerFiles, VOCAB_JSON, VOCAB_TXT};
use super::parts::{Ends, parts_of, same_post_processor, same_pre_tokenizer};
use super::sentencepiece::SentencePiece;
use super::settings::{ROLES, Settings};
use super::vocabulary;
use crate::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenizers::models::unigram::Unigram;
use tokenizers::{
    AddedToken, AddedVocabulary, DecoderWrapper, Model as _, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
};

/// A tokenizer as its files describe it.
pub(super) struct Built {
    pub(super) tokenizer: Tokenizer,
    /// The file with the vocabulary, for messages.
    pub(super) source: String,
}

/// Builds the tokenizer of these files.
pub(super) fn build(files: &TokenizerFiles<'_>, class: Class, settings: &Settings) -> Result<Built, Error> {
    match &files.tokenizer_json {
        Some(json) => from_json(json, class, settings),
        None => from_vocabulary(files, class, settings),
    }
}

/// `tokenizer.json`, with the parts that the class sets itself: these follow the configuration, whatever the file says.
/// Everything stays as it is where the class is made for another kind of model, but RoBERTa's, which builds byte-pair encoding
/// of any.
fn from_json(json: &[u8], class: Class, settings: &Settings) -> Result<Built, Error> {
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(|reason| bad(TOKENIZER, reason))?;
    // Drawn anew at each call, it would cut the same text into other pieces. `transformers` 5 leaves it out where it knows the
    // class.
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        tokenizer.with_model(bpe);
    }
    let is_its_own = class.kind() == Some(kind(&tokenizer));
    if class == Class::Roberta && !is_its_own {
        return Err(of_another_kind(kind(&tokenizer), settings));
    }
    if is_its_own {
        set_model(&mut tokenizer, json, class, settings)?;
    }
    let mut extra = settings.extra.clone();
    let normalizer = part(&tokenizer.get_normalizer())?;
    if is_its_own {
        tokenizer.with_added_vocabulary(AddedVocabulary::new());
        if class == Class::Camembert && extra.is_none() {
            let known = |token: &&str| tokenizer.token_to_id(token).is_some();
            let unused = ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"].into_iter().filter(known);
            extra = Some(unused.map(Added::special).collect());
        }
    }
    add_tokens(&mut tokenizer, class, settings, extra.unwrap_or_default(), Defaults::Known)?;
    if is_its_own {
        let parts =
            parts_of(class, settings, find_charsmap(&normalizer), ends(&tokenizer, class, settings, TOKENIZER)?);
        // What does the same keeps its spelling, and the tokenizer the hash of it.
        if normalizer != parts.normalizer {
            tokenizer.with_normalizer(read::<NormalizerWrapper>(parts.normalizer)?).map_err(|e| bad(TOKENIZER, e))?;
        }
        if !same_pre_tokenizer(&part(&tokenizer.get_pre_tokenizer())?, &parts.pre_tokenizer) {
            tokenizer.with_pre_tokenizer(read::<PreTokenizerWrapper>(parts.pre_tokenizer)?);
        }
        let post_processor = part(&tokenizer.get_post_processor())?;
        // ALBERT's class keeps what the file has.
        let keeps = class == Class::Albert && !post_processor.is_null();
        if !keeps && !same_post_processor(&post_processor, &parts.post_processor) {
            tokenizer.with_post_processor(read::<PostProcessorWrapper>(parts.post_processor)?);
        }
    }
    Ok(Built { tokenizer, source: TOKENIZER.to_owned() })
}

/// Refuses a model of this kind under RoBERTa's class.
fn of_another_kind(found: &str, settings: &Settings) -> Error {
    let (file, why) = match (&settings.class, &settings.model_type) {
        (Some((name, file)), _) => (*file, format!("the class `{name}`")),
        (None, model_type) => {
            (MODEL_CONFIG, format!("the class of the model's type `{}`", model_type.as_deref().unwrap_or_default()))
        }
    };
    bad(
        file,
        format!(
            "{why} builds byte-pair encoding (BPE) anew, and the model in {TOKENIZER} is {found}, so that ids would be others \
             than what the file says; if {TOKENIZER} says all, name PreTrainedTokenizerFast as `tokenizer_class` in {CONFIG}"
        ),
    )
}

/// Of the model in `tokenizer.json`, what the class sets itself: `transformers` 5 takes the vocabulary and the merges alone.
fn set_model(tokenizer: &mut Tokenizer, json: &[u8], class: Class, settings: &Settings) -> Result<(), Error> {
    let unknown = class.name_of("unk_token", settings).unwrap_or_default();
    match tokenizer.get_model() {
        ModelWrapper::WordPiece(found) => {
            if found.token_to_id(&unknown).is_none() {
                return Err(Error::MissingSpecialToken {
                    file: TOKENIZER.to_owned(),
                    token: unknown,
                    role: "unk_token",
                });
            }
            let mut model = found.clone();
            model.unk_token = unknown;
            model.continuing_subword_prefix = "##".to_owned();
            model.max_input_chars_per_word = 100;
            if model != *found {
                tokenizer.with_model(model);
            }
        }
        ModelWrapper::BPE(found) => {
            let is_empty = |part: &Option<String>| part.as_deref().unwrap_or_default().is_empty();
            let affixes = [&found.continuing_subword_prefix, &found.end_of_word_suffix];
            let same = found.unk_token.is_none() && affixes.into_iter().all(is_empty);
            if !same || found.fuse_unk || found.byte_fallback || found.ignore_merges {
                let mut model = found.clone();
                (model.unk_token, model.continuing_subword_prefix, model.end_of_word_suffix) = (None, None, None);
                (model.fuse_unk, model.byte_fallback, model.ignore_merges) = (false, false, false);
                model.clear_cache();
                tokenizer.with_model(model);
            }
        }
        ModelWrapper::Unigram(found) => {
            let written: WrittenUnigram = serde_json::from_slice(json).map_err(|reason| bad(TOKENIZER, reason))?;
            let is_unknown = |(piece, _): &&(String, f64)| *piece == unknown;
            let at = |score: Option<f64>| {
                found.iter().position(|piece| is_unknown(&piece) && score.is_none_or(|score| score == piece.1))
            };
            let unk_id = match class {
                Class::XlmRoberta => 3,
                Class::Camembert => at(None).unwrap_or(0),
                Class::DebertaV2 => at(Some(0.0)).unwrap_or(1),
                _ => 1,
            };
            if (written.model.unk_id, written.model.byte_fallback) != (Some(unk_id), false) {
                let model = Unigram::from(found.iter().cloned().collect(), Some(unk_id), false);
                tokenizer.with_model(model.map_err(|reason| bad(TOKENIZER, reason))?);
            }
        }
        ModelWrapper::WordLevel(_) => {}
    }
    Ok(())
}

/// What `tokenizer.json` says of a Unigram model besides its pieces.
#[derive(Deserialize)]
struct WrittenUnigram {
    model: WrittenUnigramModel,
}

#[derive(Deserialize)]
struct WrittenUnigramModel {
    unk_id: Option<usize>,
    #[serde(default)]
    byte_fallback: bool,
}

/// The table of the sentencepiece normaliser among the steps of a normaliser.
fn find_charsmap(normalizer: &Value) -> Option<&str> {
    let steps = match normalizer["type"] == "Sequence" {
        true => normalizer["normalizers"].as_array().map_or(&[][..], Vec::as_slice),
        false => std::slice::from_ref(normalizer),
    };
    steps.iter().find(|step| step["type"] == "Precompiled")?["precompiled_charsmap"].as_str()
}

fn from_vocabulary(files: &TokenizerFiles<'_>, class: Class, settings: &Settings) -> Result<Built, Error> {
    let name = |role| class.name_of(role, settings).unwrap_or_default();
    let sentencepiece = files.sentencepiece.iter().find(|(file, _)| file == class.vocabulary());
    let mut extra = settings.extra.clone();
    let mut charsmap = None;
    let (model, source, defaults) = match (class, &files.vocab_txt, &files.vocab_json, &files.merges_txt, sentencepiece)
    {
        (Class::Bert, Some(vocab_txt), ..) => {
            (vocabulary::word_piece(vocab_txt, &name("unk_token"))?, VOCAB_TXT, Defaults::Known)
        }
        (Class::Roberta, _, Some(vocab_json), Some(merges_txt), _) => {
            (vocabulary::byte_pairs(vocab_json, merges_txt)?, VOCAB_JSON, Defaults::Known)
        }
        (.., Some((file, bytes))) => {
            let model = SentencePiece::parse(bytes, file)?;
            let whole = vocabulary::whole_pieces(&model);
            let whole =
                whole.map(|(piece, special)| Added { special, normalized: Some(false), ..Added::special(piece) });
            extra.get_or_insert_with(|| whole.collect());
            charsmap = Some(&model.charsmap).filter(|charsmap| !charsmap.is_empty()).map(|map| vocabulary::base64(map));
            (vocabulary::unigram(&model, class, settings, file)?, file.as_str(), Defaults::All)
        }
        _ => return Err(no_vocabulary(class, files, settings)),
    };
    let model: ModelWrapper = serde_json::from_value(model).map_err(|reason| bad(source, reason))?;
    let mut tokenizer = Tokenizer::new(model);
    if class == Class::Bert && tokenizer.token_to_id(&name("unk_token")).is_none() {
        return Err(Error::MissingSpecialToken {
            file: source.to_owned(),
            token: name("unk_token"),
            role: "unk_token",
        });
    }
    add_tokens(&mut tokenizer, class, settings, extra.unwrap_or_default(), defaults)?;
    let parts = parts_of(class, settings, charsmap.as_deref(), ends(&tokenizer, class, settings, source)?);
    tokenizer.with_normalizer(read::<NormalizerWrapper>(parts.normalizer)?).map_err(|reason| bad(source, reason))?;
    tokenizer.with_pre_tokenizer(read::<PreTokenizerWrapper>(parts.pre_tokenizer)?);
    tokenizer.with_post_processor(read::<PostProcessorWrapper>(parts.post_processor)?);
    tokenizer.with_decoder(read::<DecoderWrapper>(parts.decoder)?);
    Ok(Built { tokenizer, source: source.to_owned() })
}

/// What `tokenizer.json` calls the kind of model.
pub(super) fn kind(tokenizer: &Tokenizer) -> &'static str {
    match tokenizer.get_model() {
        ModelWrapper::BPE(_) => "BPE",
        ModelWrapper::WordPiece(_) => "WordPiece",
        ModelWrapper::WordLevel(_) => "WordLevel",
        ModelWrapper::Unigram(_) => "Unigram",
    }
}

/// A part of a tokenizer as JSON.
pub(super) fn part(part: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(part).map_err(|reason| bad(TOKENIZER, reason))
}

/// A part of a tokenizer from JSON.
pub(super) fn read<T: DeserializeOwned>(part: Value) -> Result<Option<T>, Error> {
    serde_json::from_value(part).map_err(|reason| bad(TOKENIZER, reason))
}

/// The tokens around a text.
fn ends(tokenizer: &Tokenizer, class: Class, settings: &Settings, source: &str) -> Result<Ends, Error> {
    let of = |role| {
        let token = class.name_of(role, settings).unwrap_or_default();
        match tokenizer.token_to_id(&token) {
            Some(id) => Ok((token, id)),
            None => Err(Error::MissingSpecialToken { file: source.to_owned(), token, role }),
        }
    };
    Ok(Ends { cls: of("cls_token")?, sep: of("sep_token")? })
}

/// Which of the special tokens that nobody names are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defaults {
    /// Those that the vocabulary has. `transformers` adds the others too, with ids that the model has no embeddings for.
    Known,
    All,
}

/// Adds the tokens that are found whole in a text, in the order of `TokenizersBackend.__init__`, which decides the ids
/// of those that the vocabulary does not have.
fn add_tokens(
    tokenizer: &mut Tokenizer,
    class: Class,
    settings: &Settings,
    extra: Vec<Added>,
    defaults: Defaults,
) -> Result<(), Error> {
    let mut tokens: Vec<AddedToken> = settings.added.values().map(Added::token).collect();
    // A token with a role is special, whatever its file says.
    for token in &mut tokens {
        let named = ROLES.iter().any(|role| class.name_of(role, settings).as_deref() == Some(&token.content));
        token.special |= named;
    }
    let before = tokenizer.get_added_tokens_decoder();
    let mut listed: Vec<String> = before.values().chain(&tokens).map(|token| token.content.clone()).collect();
    let known = |token: &str| tokenizer.token_to_id(token).is_some();
    let named = ROLES.into_iter().filter_map(|role| match settings.special.get(role) {
        Some(written) => written.as_ref().map(Written::special),
        None => {
            let added = Added::special(class.special().get(role)?);
            // CamemBERT's mask takes the space before it along.
            let added = Added { lstrip: class == Class::Camembert && role == "mask_token", ..added };
            (defaults == Defaults::All || known(&added.content)).then_some(added)
        }
    });
    for added in named.chain(extra) {
        if !listed.contains(&added.content) {
            listed.push(added.content.clone());
            tokens.push(added.token());
        }
    }
    let size = tokenizer.get_vocab_size(false);
    tokenizer.add_tokens(tokens).map_err(|reason| bad(ADDED_TOKENS, reason))?;
    for (expected, added) in &settings.added {
        let id = tokenizer.token_to_id(&added.content);
        let own = before.values().any(|token| token.content == added.content);
        let appended = id.is_some_and(|id| id as usize >= size) && !own;
        if appended && id != Some(*expected) {
            return Err(bad(
                CONFIG,
                format!(
                    "the added token `{}` is to have the id {expected}, and with the tokens before it `transformers` \
                     gives it {}; add the tokens that are missing between, or name the class PreTrainedTokenizerFast \
                     beside a {TOKENIZER}",
                    added.content,
                    id.unwrap_or_default(),
                ),
            ));
        }
    }
    Ok(())
}
