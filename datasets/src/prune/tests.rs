//! A pruned vocabulary tokenises what it was pruned for as before, and everything else somehow.

use super::*;
use crate::{Row, TokenizerFiles};
use proptest::prelude::*;

const SPECIALS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

fn tokenizer(pieces: &[String]) -> TextTokenizer {
    let vocab = SPECIALS.iter().map(|name| (*name).to_owned()).chain(pieces.iter().cloned()).collect::<Vec<_>>();
    let vocab = vocab.join("\n");
    TextTokenizer::from_files(&TokenizerFiles { vocab_txt: Some(vocab.as_bytes().into()), ..TokenizerFiles::default() })
        .unwrap()
}

fn pieces(tokenizer: &TextTokenizer, text: &str) -> Vec<String> {
    ids(tokenizer, text).into_iter().filter_map(|id| tokenizer.token(id)).collect()
}

fn ids(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
    let row = Row { text: text.into(), text_b: None, label: None, line: 1 };
    tokenizer.encode(&[row], 512).unwrap().ids(0).to_vec()
}

fn owned(pieces: &[&str]) -> Vec<String> {
    pieces.iter().map(|piece| (*piece).to_owned()).collect()
}

/// RoBERTa's positions are counted from the padding's id.
#[test]
fn the_padding_keeps_its_id() {
    let pieces = ["unused", "also", "pad", "unk", "more", "hello", "h"];
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "added_tokens": [],
        "model": { "type": "Unigram", "unk_id": 3, "byte_fallback": false,
                   "vocab": pieces.map(|piece| json!([piece, if piece == "h" { -9.0 } else { -1.0 }])) },
    });
    let whole = TextTokenizer::from_files(&TokenizerFiles {
        tokenizer_json: Some(json.to_string().into_bytes().into()),
        tokenizer_config: Some(br#"{"pad_token": "pad"}"#[..].into()),
        ..TokenizerFiles::default()
    })
    .unwrap();
    let pruned = prune_vocabulary(&whole, [6].into_iter()).unwrap();
    assert_eq!(pruned.kept[..4], [0, 1, 2, 3], "{:?}", pruned.kept);
    assert_eq!((whole.pad_id(), pruned.tokenizer.pad_id()), (Some(2), Some(2)));
}

#[test]
fn keeps_used_pieces_single_characters_and_specials_in_their_order() {
    let whole = tokenizer(&owned(&["hello", "h", "world", "##s", "##ld", "wor", "##é", "好", "##"]));
    let used = ids(&whole, "hello");
    let pruned = prune_vocabulary(&whole, used.into_iter()).unwrap();
    assert_eq!(pruned.kept, [0, 1, 2, 3, 4, 5, 6, 8, 11, 12]);
    assert_eq!(pruned.tokenizer.vocab_size(), 10);
    assert_eq!(pieces(&pruned.tokenizer, "hello worlds 好"), ["[CLS]", "hello", "[UNK]", "好", "[SEP]"]);
    assert_eq!(ids(&pruned.tokenizer, "hello"), [2, 5, 3]);
    let vocab = String::from_utf8(pruned.tokenizer.files().unwrap()["vocab.txt"].clone()).unwrap();
    assert_eq!(vocab.lines().collect::<Vec<_>>()[5..], ["hello", "h", "##s", "##é", "好"]);
}

#[test]
fn special_tokens_far_back_get_new_ids_everywhere() {
    let config: &[u8] = br#"{"model_max_length": 64, "pad_token": "<p>"}"#;
    let vocab: &[u8] = b"x\nunused\n[UNK]\nfree\n[SEP]\nyes\n[CLS]\n<p>";
    let whole = TextTokenizer::from_files(&TokenizerFiles {
        vocab_txt: Some(vocab.into()),
        tokenizer_config: Some(config.into()),
        ..TokenizerFiles::default()
    })
    .unwrap();
    let pruned = prune_vocabulary(&whole, [5].into_iter()).unwrap();
    assert_eq!(pruned.kept, [0, 2, 4, 5, 6, 7]);
    assert_eq!(ids(&pruned.tokenizer, "yes free x"), [4, 3, 1, 0, 2]);
    assert_eq!(pruned.tokenizer.pad_id(), Some(5));
    assert_eq!(pruned.tokenizer.model_max_length(), Some(64));
}

#[test]
fn the_older_post_processor_and_tokens_beyond_the_vocabulary_are_rewritten_too() {
    let mut json: Value = serde_json::from_str(tokenizer(&owned(&["unused", "a"])).canonical_json()).unwrap();
    json["post_processor"] = json!({ "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] });
    let mut added = json["added_tokens"][0].clone();
    (added["id"], added["content"]) = (7.into(), "<url>".into());
    json["added_tokens"].as_array_mut().unwrap().push(added);
    let json = json.to_string();
    let files = TokenizerFiles { tokenizer_json: Some(json.as_bytes().into()), ..TokenizerFiles::default() };
    let whole = TextTokenizer::from_files(&files).unwrap();
    assert_eq!(ids(&whole, "a<url>"), [2, 6, 7, 3]);
    let pruned = prune_vocabulary(&whole, std::iter::empty()).unwrap();
    assert_eq!(pruned.kept, [0, 1, 2, 3, 4, 6, 7]);
    assert_eq!(ids(&pruned.tokenizer, "a<url>"), [2, 5, 6, 3]);
}

#[test]
fn ids_that_the_tokenizer_does_not_have_are_refused() {
    let message = prune_vocabulary(&tokenizer(&[]), [9].into_iter()).unwrap_err().to_string();
    assert_eq!(message, "token id 9 is not in the tokenizer's vocabulary of 5");
}

#[test]
fn pruning_again_changes_nothing() {
    let whole = tokenizer(&owned(&["ab", "a", "##b", "##bc"]));
    let once = prune_vocabulary(&whole, ids(&whole, "ab").into_iter()).unwrap();
    let twice = prune_vocabulary(&once.tokenizer, ids(&once.tokenizer, "ab").into_iter()).unwrap();
    assert_eq!(once.tokenizer.canonical_json(), twice.tokenizer.canonical_json());
    assert!(twice.kept.iter().copied().eq(0..twice.kept.len() as u32));
}

/// The end of a long text falls to single characters in a pruned vocabulary; that must not move the cut.
#[test]
fn a_truncated_pair_is_cut_in_the_same_place() {
    let whole = tokenizer(&owned(&["a", "b", "##b", "bbbb", "c"]));
    let row = Row { text: "a a a a".into(), text_b: Some("c c c bbbb".into()), label: None, line: 1 };
    let before = whole.encode(std::slice::from_ref(&row), 8).unwrap();
    assert!(before.truncated(0) && !before.ids(0).contains(&8));
    let pruned = prune_vocabulary(&whole, before.used_ids().into_iter()).unwrap();
    let after = pruned.tokenizer.encode(&[row], 8).unwrap();
    assert!(after.ids(0).iter().map(|id| pruned.kept[*id as usize]).eq(before.ids(0).iter().copied()));
}

fn some_pieces() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set("(##)?[abcd]{1,4}", 0..40)
}

fn some_texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("([abcd]{1,8} ){1,4}", 1..6)
}

proptest! {
    #[test]
    fn texts_of_kept_pieces_are_tokenised_as_before(vocab in some_pieces(), used in some_texts(), others in some_texts()) {
        let whole = tokenizer(&vocab.into_iter().collect::<Vec<_>>());
        let pruned = prune_vocabulary(&whole, used.iter().flat_map(|text| ids(&whole, text))).unwrap();
        let kept: BTreeSet<u32> = pruned.kept.iter().copied().collect();
        for text in used.iter().chain(&others) {
            let before = ids(&whole, text);
            let after: Vec<u32> =
                ids(&pruned.tokenizer, text).into_iter().map(|id| pruned.kept[id as usize]).collect();
            let known = !before.contains(&1);
            if known && before.iter().all(|id| kept.contains(id)) {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn with_a_piece_for_every_character_no_word_changes_between_known_and_unknown(
        vocab in some_pieces(),
        used in some_texts(),
        others in prop::collection::vec("([abcdxy]{1,8} ){1,4}", 1..6),
    ) {
        let characters = "abcd".chars().flat_map(|c| [c.to_string(), format!("##{c}")]);
        let whole = tokenizer(&vocab.into_iter().chain(characters).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
        let pruned = prune_vocabulary(&whole, used.iter().flat_map(|text| ids(&whole, text))).unwrap();
        for text in used.iter().chain(&others) {
            let (before, after) = (pieces(&whole, text), pieces(&pruned.tokenizer, text));
            let unknown = |pieces: &[String]| pieces.iter().filter(|piece| *piece == "[UNK]").count();
            prop_assert_eq!(unknown(&before), unknown(&after));
            if before.iter().all(|piece| pruned.tokenizer.token_id(piece).is_some()) {
                prop_assert_eq!(before, after);
            }
        }
    }
}

/// Byte-pair encoding of the letters a to d, with merges of pieces that the earlier ones made.
fn byte_pairs(choices: &[(usize, usize)]) -> TextTokenizer {
    let mut pieces = owned(&["a", "b", "c", "d"]);
    let mut merges = Vec::new();
    for (left, right) in choices {
        let (left, right) = (pieces[left % pieces.len()].clone(), pieces[right % pieces.len()].clone());
        let merged = format!("{left}{right}");
        if merged.len() <= 6 && !merges.contains(&json!([left, right])) {
            merges.push(json!([left, right]));
            // Some are made in two ways.
            if !pieces.contains(&merged) {
                pieces.push(merged);
            }
        }
    }
    let vocab: Map<String, Value> = pieces.into_iter().zip(0..).map(|(piece, id)| (piece, json!(id))).collect();
    from_model(&json!({ "type": "BPE", "vocab": vocab, "merges": merges }))
}

/// A Unigram vocabulary of these pieces, with an unknown one in front.
fn unigram(scored: &[(String, u8)]) -> TextTokenizer {
    let letters = ["a", "b", "c"].map(|letter| (letter.to_owned(), 60));
    let mut pieces = vec![json!(["<unk>", 0.0])];
    for (piece, score) in letters.iter().chain(scored) {
        if pieces.iter().all(|other| other[0] != **piece) {
            pieces.push(json!([piece, -f64::from(*score) / 8.0]));
        }
    }
    from_model(&json!({ "type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false }))
}

fn from_model(model: &Value) -> TextTokenizer {
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null, "model": model,
    });
    let json = json.to_string();
    let files = TokenizerFiles { tokenizer_json: Some(json.as_bytes().into()), ..TokenizerFiles::default() };
    TextTokenizer::from_files(&files).unwrap()
}

/// Every text whose pieces are all kept has the same pieces as before.
fn keeps_meaning(whole: &TextTokenizer, used: &[String], others: &[String]) -> Result<(), TestCaseError> {
    let pruned = prune_vocabulary(whole, used.iter().flat_map(|text| ids(whole, text))).unwrap();
    let kept: BTreeSet<u32> = pruned.kept.iter().copied().collect();
    for text in used.iter().chain(others) {
        let before = ids(whole, text);
        let after: Vec<u32> = ids(&pruned.tokenizer, text).into_iter().map(|id| pruned.kept[id as usize]).collect();
        if before.iter().all(|id| kept.contains(id)) {
            prop_assert_eq!(before, after);
        }
        let spelled = |tokenizer: &TextTokenizer| pieces(tokenizer, text).concat();
        if !spelled(whole).contains("<unk>") {
            prop_assert_eq!(spelled(whole), spelled(&pruned.tokenizer));
        }
    }
    Ok(())
}

#[test]
fn the_way_to_a_kept_piece_is_kept_with_its_merges() {
    // ab, cd, abcd; and abc, which leads nowhere that is used.
    let whole = byte_pairs(&[(0, 1), (2, 3), (4, 5), (4, 2)]);
    let used = ids(&whole, "abcd");
    assert_eq!(used, [6]);
    let pruned = prune_vocabulary(&whole, used.into_iter()).unwrap();
    assert_eq!(pruned.kept, [0, 1, 2, 3, 4, 5, 6]);
    let json: Value = serde_json::from_str(pruned.tokenizer.canonical_json()).unwrap();
    assert_eq!(json["model"]["merges"], json!([["a", "b"], ["c", "d"], ["ab", "cd"]]));
    assert_eq!(pieces(&pruned.tokenizer, "abcd abc"), ["abcd", "ab", "c"]);
}

#[test]
fn the_lowest_score_is_kept_since_unknown_characters_cost_by_it() {
    let whole = unigram(&[("ab".to_owned(), 10), ("cc".to_owned(), 250)]);
    let pruned = prune_vocabulary(&whole, ids(&whole, "ab").into_iter()).unwrap();
    assert_eq!(pieces(&pruned.tokenizer, "ab cc x"), ["ab", "c", "c", "<unk>"]);
    assert!(pruned.tokenizer.token_id("cc").is_some());
}

#[test]
fn a_vocabulary_of_whole_words_is_refused() {
    let whole = from_model(&json!({ "type": "WordLevel", "vocab": { "a": 0, "b": 1 }, "unk_token": "b" }));
    let message = prune_vocabulary(&whole, [0].into_iter()).unwrap_err().to_string();
    assert!(message.contains("WordLevel") && message.contains("without pruning"), "{message}");
}

proptest! {
    #[test]
    fn byte_pairs_keep_their_meaning(
        merges in prop::collection::vec((any::<usize>(), any::<usize>()), 0..40),
        used in some_texts(),
        others in some_texts(),
    ) {
        keeps_meaning(&byte_pairs(&merges), &used, &others)?;
    }

    #[test]
    fn unigrams_keep_their_meaning(
        scored in prop::collection::vec(("[abcd]{2,5}", any::<u8>()), 0..30),
        used in some_texts(),
        others in some_texts(),
    ) {
        keeps_meaning(&unigram(&scored), &used, &others)?;
    }
}
