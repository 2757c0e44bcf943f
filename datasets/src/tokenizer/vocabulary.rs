//! The vocabularies that are no `tokenizer.json`, as the models that a `tokenizer.json` would have.

use super::class::Class;
use super::error::bad;
use super::files::{MERGES, VOCAB_JSON, VOCAB_TXT};
use super::sentencepiece::{Algorithm, PieceKind, SentencePiece};
use super::settings::Settings;
use crate::Error;
use serde_json::{Map, Value, json};

/// WordPiece from `vocab.txt`. A piece's id is its line, from 0; lines end with `\n` alone.
pub(super) fn word_piece(vocab_txt: &[u8], unk: &str) -> Result<Value, Error> {
    let mut vocabulary = Map::new();
    let without_last_end = vocab_txt.strip_suffix(b"\n").unwrap_or(vocab_txt);
    for (id, line) in without_last_end.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let token =
            std::str::from_utf8(line).map_err(|_| Error::InvalidUtf8 { file: VOCAB_TXT.to_owned(), line: id + 1 })?;
        // White space behind a piece is not of it; a piece of white space alone keeps its line, and is never found.
        let token = Some(token.trim_end()).filter(|trimmed| !trimmed.is_empty()).unwrap_or(token);
        vocabulary.insert(token.to_owned(), id.into());
    }
    Ok(json!({
        "type": "WordPiece",
        "unk_token": unk,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": vocabulary,
    }))
}

/// Byte-level byte-pair encoding from `vocab.json` and `merges.txt`.
pub(super) fn byte_pairs(vocab_json: &[u8], merges_txt: &[u8]) -> Result<Value, Error> {
    let vocabulary: Map<String, Value> =
        serde_json::from_slice(vocab_json).map_err(|reason| bad(VOCAB_JSON, reason))?;
    if let Some((piece, id)) = vocabulary.iter().find(|(_, id)| id.as_u64().is_none_or(|id| id > u64::from(u32::MAX))) {
        return Err(bad(VOCAB_JSON, format!("the id of `{piece}` is {id}, expected a whole number from 0")));
    }
    let merges_txt = std::str::from_utf8(merges_txt).map_err(|_| bad(MERGES, "not valid UTF-8"))?;
    let mut merges = Vec::new();
    for (number, line) in merges_txt.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let Some((left, right)) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
            return Err(bad(MERGES, format!("line {}: `{line}` is not two pieces with a space between", number + 1)));
        };
        let merged = format!("{left}{right}");
        if let Some(missing) = [left, right, &merged].into_iter().find(|piece| !vocabulary.contains_key(*piece)) {
            let reason = format!(
                "line {}: `{line}` needs the piece `{missing}`, which {VOCAB_JSON} does not have; the two files do not \
                 belong together, or one is cut short: copy or download them again",
                number + 1
            );
            return Err(bad(MERGES, reason));
        }
        merges.push(json!([left, right]));
    }
    Ok(json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges,
    }))
}

/// Unigram from a sentencepiece model, with the ids that the class gives its pieces: fairseq's models have four special
/// tokens in the place of three pieces (XLM-R), or five in the place of one (CamemBERT), and the mask behind the last.
pub(super) fn unigram(model: &SentencePiece, class: Class, settings: &Settings, file: &str) -> Result<Value, Error> {
    match model.algorithm {
        Algorithm::Unigram => {}
        Algorithm::Bpe => {
            return Err(bad(
                file,
                "is a byte-pair encoding of sentencepiece, which versions 4 and 5 of `transformers` cut differently under \
                 this class; save the tokenizer with the version that the model was trained with, by \
                 `AutoTokenizer.from_pretrained(..).save_pretrained(..)`, and use its tokenizer.json",
            ));
        }
        Algorithm::Other => return Err(bad(file, "cuts by words or characters; only Unigram models are read")),
    }
    let name = |role| class.name_of(role, settings).unwrap_or_default();
    let piece = |text: String, score: f64| json!([text, score]);
    let mut pieces: Vec<Value> = Vec::new();
    let own = match class {
        Class::XlmRoberta => {
            pieces.extend(["bos_token", "pad_token", "eos_token", "unk_token"].map(|role| piece(name(role), 0.0)));
            model.pieces.get(3..)
        }
        Class::Camembert => {
            pieces.push(piece("<s>NOTUSED".to_owned(), 0.0));
            pieces.push(piece(name("pad_token"), 0.0));
            pieces.push(piece("</s>NOTUSED".to_owned(), 0.0));
            pieces.push(piece(name("unk_token"), 0.0));
            pieces.push(piece("<unk>NOTUSED".to_owned(), -100.0));
            model.pieces.get(1..)
        }
        _ => Some(&*model.pieces),
    };
    pieces.extend(own.into_iter().flatten().map(|found| piece(found.text.clone(), f64::from(found.score))));
    if matches!(class, Class::XlmRoberta | Class::Camembert) {
        pieces.push(piece(name("mask_token"), 0.0));
    }
    let unknown = piece(name("unk_token"), 0.0);
    let unk_id = match class {
        Class::XlmRoberta => 3,
        Class::Albert => 1,
        Class::Camembert => pieces.iter().position(|piece| piece[0] == unknown[0]).unwrap_or(0),
        _ => pieces.iter().position(|piece| *piece == unknown).unwrap_or(model.unk_id),
    };
    if unk_id >= pieces.len() {
        return Err(bad(file, format!("the unknown piece is to be {unk_id} of {}", pieces.len())));
    }
    Ok(json!({ "type": "Unigram", "unk_id": unk_id, "vocab": pieces, "byte_fallback": false }))
}

/// The pieces that are found whole in a text, in the order of their ids, and whether they are special.
pub(super) fn whole_pieces(model: &SentencePiece) -> impl Iterator<Item = (&str, bool)> {
    model.pieces.iter().filter_map(|piece| match piece.kind {
        PieceKind::Control => Some((piece.text.as_str(), true)),
        PieceKind::UserDefined => Some((piece.text.as_str(), false)),
        PieceKind::Other => None,
    })
}

/// Bytes in base 64, as `tokenizer.json` writes the table of a sentencepiece normaliser (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            match digit <= group.len() {
                true => text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize])),
                false => text.push('='),
            }
        }
    }
    text
}
