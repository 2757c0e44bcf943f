//! Tokenizers from each set of files, truncation, and what is written for `transformers`.

mod forms;
mod refusals;

use super::encode::BLOCK_ROWS;
use super::*;
use crate::{Row, TokenBatch};
use serde_json::{Value, json};
use std::path::Path;

const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\nwor\n##ld\n##s\na\nb\nc\n好\n";

fn from_vocab(vocab: &str, config: Option<&str>) -> Result<TextTokenizer, Error> {
    TextTokenizer::from_files(&TokenizerFiles {
        vocab_txt: Some(vocab.as_bytes().into()),
        tokenizer_config: config.map(|config| config.as_bytes().into()),
        ..TokenizerFiles::default()
    })
}

fn from_json(json: &str) -> TextTokenizer {
    TextTokenizer::from_files(&TokenizerFiles {
        tokenizer_json: Some(json.as_bytes().into()),
        ..TokenizerFiles::default()
    })
    .unwrap()
}

fn row(text: &str, text_b: Option<&str>) -> Row {
    Row { text: text.into(), text_b: text_b.map(str::to_owned), label: None, line: 1 }
}

fn tokens(tokenizer: &TextTokenizer, text: &str) -> String {
    let encodings = tokenizer.encode(&[row(text, None)], 64).unwrap();
    encodings.ids(0).iter().filter_map(|id| tokenizer.token(*id)).collect::<Vec<_>>().join(" ")
}

fn encode(text: &str, text_b: Option<&str>, max_length: usize) -> (Vec<u32>, Vec<u8>, bool) {
    let encodings = from_vocab(VOCAB, None).unwrap().encode(&[row(text, text_b)], max_length).unwrap();
    (encodings.ids(0).to_vec(), encodings.type_ids(0).to_vec(), encodings.truncated(0))
}

#[test]
fn vocab_txt_alone_makes_a_bert_tokenizer() {
    let tokenizer = from_vocab(VOCAB, None).unwrap();
    assert_eq!(tokenizer.vocab_size(), 14);
    assert_eq!(tokenizer.pad_id(), Some(0));
    assert_eq!(tokens(&tokenizer, "Héllo worlds!好"), "[CLS] hello world ##s [UNK] 好 [SEP]");
    assert_eq!(tokens(&tokenizer, "a [MASK]"), "[CLS] a [MASK] [SEP]");
    assert_eq!(encode("a", Some("b c"), 64), (vec![2, 10, 3, 11, 12, 3], vec![0, 0, 0, 1, 1, 1], false));
}

#[test]
fn vocab_txt_may_have_windows_line_ends_and_no_last_one() {
    let same = from_vocab(VOCAB.trim_end(), None).unwrap();
    let windows = from_vocab(&VOCAB.replace('\n', "\r\n"), None).unwrap();
    let usual = from_vocab(VOCAB, None).unwrap();
    assert_eq!(usual.canonical_json(), same.canonical_json());
    assert_eq!(usual.canonical_json(), windows.canonical_json());
}

#[test]
fn the_config_decides_on_case_accents_characters_and_special_tokens() {
    let cased = from_vocab("[PAD]\n[UNK]\n[CLS]\n[SEP]\nA\na\né", Some(r#"{"do_lower_case": false}"#)).unwrap();
    assert_eq!(tokens(&cased, "A a é"), "[CLS] A a é [SEP]");
    let accents = from_vocab("[UNK]\n[CLS]\n[SEP]\né\ne", Some(r#"{"strip_accents": false}"#)).unwrap();
    assert_eq!(tokens(&accents, "É"), "[CLS] é [SEP]");
    let chinese = from_vocab("[UNK]\n[CLS]\n[SEP]\n好\n##好", Some(r#"{"tokenize_chinese_chars": false}"#)).unwrap();
    assert_eq!(tokens(&chinese, "好好"), "[CLS] 好 ##好 [SEP]");
    let config = r#"{"cls_token": "<s>", "sep_token": {"content": "</s>"}, "unk_token": "<u>",
        "added_tokens_decoder": {"3": {"content": "<url>", "special": true}}}"#;
    let named = from_vocab("<u>\n<s>\n</s>\n<url>\na", Some(config)).unwrap();
    assert_eq!(tokens(&named, "a<url>b"), "<s> a <url> <u> </s>");
}

#[test]
fn what_is_missing_is_named() {
    let none = TextTokenizer::from_folder(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
    assert!(none.contains("no tokenizer.json and no vocab.txt"), "{none}");
    let no_cls = from_vocab("[UNK]\n[SEP]\na", None).unwrap_err().to_string();
    assert!(no_cls.contains("no `[CLS]`") && no_cls.contains("`cls_token`"), "{no_cls}");
    let bad_config = from_vocab(VOCAB, Some("{")).unwrap_err().to_string();
    assert!(bad_config.starts_with("tokenizer_config.json: "), "{bad_config}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), "{\"model\": 3}").unwrap();
    let bad_json = TextTokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(bad_json.starts_with(&folder.path().join("tokenizer.json").display().to_string()), "{bad_json}");
}

#[test]
fn truncation_and_padding_of_the_file_are_reset_and_not_saved() {
    let plain = from_vocab(VOCAB, None).unwrap();
    let mut json: Value = serde_json::from_str(plain.canonical_json()).unwrap();
    json["truncation"] = json!({ "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0 });
    json["padding"] = json!({ "strategy": { "Fixed": 12 }, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]" });
    let reset = from_json(&json.to_string());
    assert_eq!(reset.canonical_json(), plain.canonical_json());
    assert_eq!(tokens(&reset, "a b c a b c"), "[CLS] a b c a b c [SEP]");
}

#[test]
fn long_texts_lose_their_end() {
    assert_eq!(encode("a b c", None, 5), (vec![2, 10, 11, 12, 3], vec![0; 5], false));
    assert_eq!(encode("a b c", None, 4), (vec![2, 10, 11, 3], vec![0; 4], true));
}

#[test]
fn of_a_pair_the_longer_text_is_cut_first() {
    let cut = |a, b, max_length| {
        let (ids, type_ids, truncated) = encode(a, b, max_length);
        assert_eq!(
            type_ids.iter().filter(|id| **id == 1).count(),
            ids.iter().rev().skip(1).take_while(|id| **id != 3).count() + 1
        );
        (ids, truncated)
    };
    assert_eq!(cut("a a a a", Some("b"), 6), (vec![2, 10, 10, 3, 11, 3], true));
    assert_eq!(cut("a", Some("b b b b"), 6), (vec![2, 10, 3, 11, 11, 3], true));
    assert_eq!(cut("a a a", Some("b b b"), 6), (vec![2, 10, 3, 11, 11, 3], true));
    assert_eq!(cut("a a a a", Some("b b b"), 6), (vec![2, 10, 10, 3, 11, 3], true));
    assert_eq!(cut("a a", Some("b b"), 7), (vec![2, 10, 10, 3, 11, 11, 3], false));
}

#[test]
fn the_ids_in_use_include_what_a_truncated_pair_lost() {
    let tokenizer = from_vocab(VOCAB, None).unwrap();
    let used = |rows: &[Row]| tokenizer.encode(rows, 6).unwrap().used_ids();
    assert_eq!(used(&[row("a a a c", Some("b"))]), [2, 3, 10, 11, 12]);
    assert_eq!(used(&[row("a a a a c", None)]), [2, 3, 10]);
}

#[test]
fn a_limit_without_room_for_text_is_refused() {
    let tokenizer = from_vocab(VOCAB, None).unwrap();
    assert!(tokenizer.encode(&[row("a", None)], 2).unwrap_err().to_string().contains("--max-length 2"));
    assert!(tokenizer.encode(&[row("a", Some("b"))], 3).is_err());
    assert_eq!(tokenizer.encode(&[row("a", None)], 3).unwrap().length(0), 3);
}

#[test]
fn any_number_of_threads_gives_the_same_encodings() {
    let tokenizer = from_vocab(VOCAB, None).unwrap();
    let text = |number: usize| ["a b ", "hello ", "worlds ", "x "][number % 4].repeat(number % 7 + 1);
    let rows: Vec<Row> = (0..3 * BLOCK_ROWS / 2).map(|number| row(&text(number), None)).collect();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| tokenizer.encode(&rows, 12)).unwrap()
    };
    let one = on(1);
    assert_eq!(one, on(3));
    assert_eq!(one.len(), rows.len());
    let last = rows.len() - 1;
    let alone = tokenizer.encode(&rows[last..], 12).unwrap();
    assert_eq!((one.ids(last), one.key(last)), (alone.ids(0), alone.key(0)));
    assert_eq!(TokenBatch::gather(&one, &[last as u32]).input_ids, alone.ids(0));
}

#[test]
fn progress_is_told_up_to_the_last_row() {
    let rows = vec![row("a", None); BLOCK_ROWS + 1];
    let mut told = Vec::new();
    from_vocab(VOCAB, None).unwrap().encode_with_progress(&rows, 8, |done| told.push(done)).unwrap();
    assert_eq!(told, [BLOCK_ROWS, BLOCK_ROWS + 1]);
}

#[test]
fn a_saved_word_piece_tokenizer_loads_from_either_file() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = from_vocab(VOCAB, Some(r#"{"do_lower_case": false, "model_max_length": 512}"#)).unwrap();
    tokenizer.save(folder.path()).unwrap();
    let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(text("vocab.txt"), VOCAB);
    assert_eq!(text("tokenizer.json"), tokenizer.canonical_json());
    assert_eq!(TextTokenizer::from_folder(folder.path()).unwrap().canonical_json(), tokenizer.canonical_json());
    let config: Value = serde_json::from_str(&text("tokenizer_config.json")).unwrap();
    assert_eq!(
        config,
        json!({
            "cls_token": "[CLS]", "do_lower_case": false, "mask_token": "[MASK]",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"], "model_max_length": 512,
            "pad_token": "[PAD]", "sep_token": "[SEP]", "strip_accents": null, "tokenize_chinese_chars": true,
            "tokenizer_class": "BertTokenizer", "unk_token": "[UNK]",
        })
    );
    let specials: Value = serde_json::from_str(&text("special_tokens_map.json")).unwrap();
    assert_eq!(
        specials,
        json!({ "cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]",
            "unk_token": "[UNK]" })
    );
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let again = TextTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(again.canonical_json(), tokenizer.canonical_json());
    assert_eq!(again.files().unwrap(), tokenizer.files().unwrap());
}

#[cfg(unix)]
#[test]
fn saved_files_can_be_read_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let ordinary = folder.path().join("ordinary");
    std::fs::write(&ordinary, "").unwrap();
    from_vocab(VOCAB, None).unwrap().save(folder.path()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&folder.path().join("tokenizer.json")), mode(&ordinary));
}

#[test]
fn the_config_written_for_a_student_without_segments_says_so() {
    let tokenizer = from_vocab(VOCAB, None).unwrap().with_token_type_ids(false).with_model_max_length(256);
    let config: Value = serde_json::from_slice(&tokenizer.files().unwrap()["tokenizer_config.json"]).unwrap();
    assert_eq!(config["model_input_names"], json!(["input_ids", "attention_mask"]));
    assert_eq!(config["model_max_length"], 256);
    let again = from_vocab(VOCAB, Some(&config.to_string())).unwrap();
    assert_eq!(again.files().unwrap(), tokenizer.files().unwrap());
}

#[test]
fn word_piece_in_parts_that_are_not_berts_is_saved_under_the_general_class() {
    let mut json: Value = serde_json::from_str(from_vocab(VOCAB, None).unwrap().canonical_json()).unwrap();
    json["normalizer"] = json!({ "type": "Lowercase" });
    let config: Value =
        serde_json::from_slice(&from_json(&json.to_string()).files().unwrap()["tokenizer_config.json"]).unwrap();
    assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(config.get("do_lower_case"), None);
}

#[test]
fn a_vocabulary_with_holes_is_saved_without_vocab_txt() {
    let mut json: Value = serde_json::from_str(from_vocab(VOCAB, None).unwrap().canonical_json()).unwrap();
    json["model"]["vocab"]["好"] = 20.into();
    let tokenizer = from_json(&json.to_string());
    assert_eq!(tokenizer.vocab_size(), 21);
    assert!(!tokenizer.files().unwrap().contains_key("vocab.txt"));
}

#[test]
fn a_general_tokenizer_is_saved_under_the_general_class_and_nothing_is_copied() {
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "added_tokens": [{ "id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true }],
        "model": { "type": "BPE", "vocab": { "<s>": 0, "a": 1, "b": 2, "ab": 3 }, "merges": [["a", "b"]] },
    });
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("tokenizer.json", &json.to_string());
    write("tokenizer_config.json", "{ \"tokenizer_class\": \"SomebodysTokenizer\", \"mine\": 1 }");
    write("merges.txt", "a b\n");
    write("model.safetensors", "-");
    let tokenizer = TextTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!((tokenizer.kind(), tokenizer.vocab_size()), ("BPE", 4));
    assert_eq!(tokens(&tokenizer, "aab"), "a ab");
    let files = tokenizer.files().unwrap();
    let names = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(files.keys().collect::<Vec<_>>(), names);
    let config: Value = serde_json::from_slice(&files["tokenizer_config.json"]).unwrap();
    let inputs = json!(["input_ids", "token_type_ids", "attention_mask"]);
    let expected =
        json!({ "cls_token": "<s>", "model_input_names": inputs, "tokenizer_class": "PreTrainedTokenizerFast" });
    assert_eq!(config, expected);
}

#[test]
fn merges_are_not_dropped_at_random() {
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "added_tokens": [],
        "model": { "type": "BPE", "dropout": 0.5, "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": [["a", "b"]] },
    });
    let tokenizer = configured(&json, &json!({})).unwrap();
    // By chance it would be 40 times the same in one of 10^12 runs.
    assert!((0..40).all(|_| tokens(&tokenizer, "ab") == "ab"));
    assert!(tokenizer.canonical_json().contains("\"dropout\":null"));
}

/// Of a configuration beside a `tokenizer.json`, what is read or why not.
fn configured(json: &Value, config: &Value) -> Result<TextTokenizer, Error> {
    TextTokenizer::from_files(&TokenizerFiles {
        tokenizer_json: Some(json.to_string().into_bytes().into()),
        tokenizer_config: Some(config.to_string().into_bytes().into()),
        ..TokenizerFiles::default()
    })
}

fn json_of(tokenizer: &TextTokenizer) -> Value {
    serde_json::from_str(tokenizer.canonical_json()).unwrap()
}

/// As `transformers` 4.57 and 5.24 cut it: "[", "mask", "]", had the vocabulary these pieces.
#[test]
fn a_special_token_that_is_null_is_none() {
    let config = |mask: Value| json!({ "tokenizer_class": "BertTokenizer", "mask_token": mask });
    let null = from_vocab(VOCAB, Some(&config(Value::Null).to_string())).unwrap();
    assert_eq!(tokens(&null, "a [MASK]"), "[CLS] a [UNK] [UNK] [UNK] [SEP]");
    assert_eq!(null.mask_id(), None);
    let named = from_vocab(VOCAB, Some(&config("b".into()).to_string())).unwrap();
    assert_eq!((named.mask_id(), tokens(&named, "abc")), (Some(11), "[CLS] a b c [SEP]".to_owned()));
    let map = TokenizerFiles {
        vocab_txt: Some(VOCAB.as_bytes().into()),
        special_tokens_map: Some(br#"{"pad_token": null}"#[..].into()),
        ..TokenizerFiles::default()
    };
    assert_eq!(TextTokenizer::from_files(&map).unwrap().pad_id(), None);
}

/// Version 4 of `transformers` sets a byte-level pre-tokenizer to what the configuration says, and to false where it says
/// nothing.
#[test]
fn a_space_before_a_text_is_written_for_every_version() {
    for spaced in [true, false] {
        let mut json = json_of(&from_vocab(VOCAB, None).unwrap());
        json["pre_tokenizer"] =
            json!({ "type": "ByteLevel", "add_prefix_space": spaced, "trim_offsets": true, "use_regex": true });
        json["model"] = json!({ "type": "BPE", "vocab": { "a": 0, "\u{120}": 1 }, "merges": [] });
        json["post_processor"] = Value::Null;
        json["added_tokens"] = json!([]);
        let files = from_json(&json.to_string()).files().unwrap();
        let config: Value = serde_json::from_slice(&files["tokenizer_config.json"]).unwrap();
        assert_eq!(config["add_prefix_space"], spaced);
    }
}

#[test]
fn a_class_that_is_not_built_in_must_agree_with_its_file() {
    let json = json_of(&from_vocab(VOCAB, None).unwrap());
    let read = |class: &str, key: &str, value: bool| {
        let mut config = named_specials();
        (config["tokenizer_class"], config[key]) = (class.into(), value.into());
        configured(&json, &config)
    };
    for class in ["MPNetTokenizer", "FunnelTokenizerFast"] {
        assert!(read(class, "do_lower_case", true).is_ok() && read(class, "add_prefix_space", true).is_ok());
        let message = read(class, "do_lower_case", false).unwrap_err().to_string();
        assert!(message.contains("`do_lower_case` is false") && message.contains(class), "{message}");
        let message = read(class, "tokenize_chinese_chars", false).unwrap_err().to_string();
        assert!(message.contains("`handle_chinese_chars` is true"), "{message}");
    }
    // Those that nobody knows are read as the file says, and LXMERT's is BERT's.
    assert!(read("SomebodysTokenizer", "do_lower_case", false).is_ok());
    assert_eq!(tokens(&read("LxmertTokenizer", "do_lower_case", false).unwrap(), "Hello"), "[CLS] [UNK] [SEP]");
}

/// A configuration with a special token for every role.
fn named_specials() -> Value {
    json!({ "bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]", "sep_token": "[SEP]",
        "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]" })
}

#[test]
fn defaults_of_a_class_that_is_not_built_in_were_overlooked() {
    let json = json_of(&from_vocab(VOCAB, None).unwrap());
    let mut config = named_specials();
    config["tokenizer_class"] = "MPNetTokenizerFast".into();
    assert!(configured(&json, &config).is_ok());
    config["mask_token"] = Value::Null;
    config.as_object_mut().unwrap().remove("bos_token");
    let message = configured(&json, &config).unwrap_err().to_string();
    assert!(
        message.contains("`MPNetTokenizerFast`") && message.contains("`bos_token`, `mask_token` are not"),
        "{message}"
    );

    for (spaced, agrees) in [(true, true), (false, false)] {
        let mut json = json.clone();
        json["pre_tokenizer"] =
            json!({ "type": "ByteLevel", "add_prefix_space": spaced, "trim_offsets": true, "use_regex": true });
        let read = |class: &str| configured(&json, &json!({ "tokenizer_class": class }));
        assert_eq!(read("BlenderbotTokenizerFast").is_ok(), agrees);
        assert!(read("GPT2TokenizerFast").is_ok());
        if let Err(error) = read("BlenderbotTokenizer") {
            assert!(error.to_string().contains("`add_prefix_space` is true"), "{error}");
        }
    }
}

#[test]
fn convberts_class_was_put_over_its_tokenizer_json() {
    let mut json = json_of(&from_vocab(VOCAB, None).unwrap());
    json["model"]["max_input_chars_per_word"] = 3.into();
    let config = json!({ "tokenizer_class": "ConvBertTokenizerFast", "unk_token": "a", "do_lower_case": false });
    let read = configured(&json, &config).unwrap();
    assert_eq!(tokens(&read, "A hello"), "[CLS] a [UNK] [SEP]");
    let vocab = from_vocab(VOCAB, Some(&config.to_string())).unwrap();
    assert_eq!(tokens(&vocab, "A hello"), "[CLS] a hello [SEP]");
}

#[test]
fn another_file_in_the_place_of_tokenizer_json_is_refused() {
    let json = json_of(&from_vocab(VOCAB, None).unwrap());
    let read = |files: Value| configured(&json, &json!({ "fast_tokenizer_files": files }));
    let message = read(json!(["tokenizer.json", "tokenizer.4.0.0.json"])).unwrap_err().to_string();
    assert!(message.contains("names tokenizer.4.0.0.json"), "{message}");
    assert!(read(json!(["tokenizer.json"])).is_ok());
}

/// The hash of a tokenizer decides whether a cache is still good, so what was read right before keeps its spelling.
#[test]
fn a_tokenizer_json_that_agrees_with_its_class_keeps_its_bytes() {
    for folder in ["tests/fixtures/e2e/teacher", "distill/demo/teacher", "tests/fixtures/tokenizers/bert-json"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        let json = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
        let tokenizer = TextTokenizer::from_folder(&folder).unwrap();
        assert_eq!(tokenizer.canonical_json(), from_json(&json).canonical_json(), "{}", folder.display());
    }
    // Spellings that mean the same.
    let tokenizer = from_vocab(VOCAB, None).unwrap();
    let mut json: Value = serde_json::from_str(tokenizer.canonical_json()).unwrap();
    json["post_processor"] = json!({ "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] });
    let older = from_json(&json.to_string());
    let read = TextTokenizer::from_files(&TokenizerFiles {
        tokenizer_json: Some(json.to_string().into_bytes().into()),
        tokenizer_config: Some(br#"{"tokenizer_class": "BertTokenizer"}"#[..].into()),
        ..TokenizerFiles::default()
    });
    assert_eq!(read.unwrap().canonical_json(), older.canonical_json());
}

#[test]
fn the_truncation_side_is_kept_where_the_tokenizer_is_saved_and_where_only_its_json_is() {
    let left = from_vocab(VOCAB, Some(r#"{"truncation_side": "left"}"#)).unwrap();
    let cut =
        |tokenizer: &TextTokenizer, text, text_b| tokenizer.encode(&[row(text, text_b)], 5).unwrap().ids(0).to_vec();
    assert_eq!(cut(&left, "a b c a", None), [2, 11, 12, 10, 3]);
    assert_eq!(cut(&left, "a b c", Some("b")), [2, 12, 3, 11, 3]);
    let config: Value = serde_json::from_slice(&left.files().unwrap()["tokenizer_config.json"]).unwrap();
    assert_eq!((&config["truncation_side"], &config["tokenizer_class"]), (&json!("left"), &json!("BertTokenizer")));
    let attached = from_json(left.canonical_json());
    assert!(attached.keeps_end());
    assert_eq!(attached.canonical_json(), left.canonical_json());
    assert_eq!(cut(&attached, "a b c a", None), [2, 11, 12, 10, 3]);
    assert_ne!(left.canonical_json(), from_vocab(VOCAB, None).unwrap().canonical_json());
    // The configuration counts before the file.
    let files = TokenizerFiles {
        tokenizer_json: Some(left.canonical_json().as_bytes().into()),
        tokenizer_config: Some(br#"{"truncation_side": "right"}"#[..].into()),
        ..TokenizerFiles::default()
    };
    assert!(!TextTokenizer::from_files(&files).unwrap().keeps_end());
}

#[test]
fn two_long_texts_share_the_room_by_their_whole_lengths() {
    // Each alone is longer than the limit; the first is the longer one.
    let tokenizer = from_vocab(VOCAB, None).unwrap();
    let long = |count: usize| "a ".repeat(count);
    let cut = |first, second| {
        let row = row(&long(first), Some(&long(second)));
        let ids = tokenizer.encode(&[row], 12).unwrap().ids(0).to_vec();
        ids.iter().position(|&id| id == 3).unwrap() - 1
    };
    assert_eq!((cut(40, 30), cut(30, 40), cut(30, 30)), (5, 4, 4));
}

#[test]
fn segments_are_left_out_where_the_configuration_passes_none() {
    let tokenizer = from_vocab(VOCAB, Some(r#"{"model_input_names": ["input_ids", "attention_mask"]}"#)).unwrap();
    assert!(!tokenizer.passes_token_types());
    let without = tokenizer.clone().without_segments().unwrap();
    let encodings = without.encode(&[row("a", Some("b"))], 16).unwrap();
    assert_eq!((encodings.ids(0), encodings.type_ids(0)), (&[2, 10, 3, 11, 3][..], &[0; 5][..]));
    assert_eq!(from_json(without.canonical_json()).encode(&[row("a", Some("b"))], 16).unwrap(), encodings);
    let roberta = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers/roberta-json");
    let roberta = TextTokenizer::from_folder(&roberta).unwrap();
    assert_eq!(roberta.clone().without_segments().unwrap().canonical_json(), roberta.canonical_json());
}

#[test]
fn a_declared_limit_is_kept_unless_the_model_has_fewer_positions() {
    let of = |declared: &str| from_vocab(VOCAB, Some(declared)).unwrap().with_model_max_length(64).model_max_length();
    assert_eq!(of(r#"{"model_max_length": 32}"#), Some(32));
    assert_eq!(of(r#"{"model_max_length": 1000000000000000019884624838656}"#), Some(64));
    assert_eq!(of(r#"{"max_len": 512}"#), Some(64));
}

#[test]
fn lines_of_vocab_txt_end_with_a_line_feed_alone() {
    let vocab = format!("{}\u{2028}\n\u{85}\nz\n", VOCAB);
    let tokenizer = from_vocab(&vocab, None).unwrap();
    assert_eq!((tokenizer.token_id("z"), tokenizer.vocab_size()), (Some(16), 17));
    assert_eq!(tokens(&tokenizer, "a\u{2028}z"), "[CLS] a z [SEP]");
}

/// Read by the class that reads the tokenizer of `json`, with another model and other settings.
fn as_class(class: &str, json: &Value, config: Value) -> Result<TextTokenizer, Error> {
    let mut config = config;
    config["tokenizer_class"] = class.into();
    TextTokenizer::from_files(&TokenizerFiles {
        tokenizer_json: Some(json.to_string().into_bytes().into()),
        tokenizer_config: Some(config.to_string().into_bytes().into()),
        ..TokenizerFiles::default()
    })
}

/// As version 5.24 of `transformers` reads them: `Tokenizer(WordPiece(vocab, unk_token=str(unk_token)))`.
#[test]
fn the_unknown_token_of_the_configuration_was_ignored_beside_a_tokenizer_json() {
    let json: Value = serde_json::from_str(from_vocab(VOCAB, None).unwrap().canonical_json()).unwrap();
    let named = as_class("BertTokenizer", &json, json!({ "unk_token": "a" })).unwrap();
    assert_eq!(tokens(&named, "b xyz c"), "[CLS] b a c [SEP]");
    let missing = as_class("BertTokenizer", &json, json!({ "unk_token": "<oov>" })).unwrap_err().to_string();
    assert!(missing.contains("no `<oov>`") && missing.contains("`unk_token`"), "{missing}");
    // The general class reads the file as it is.
    let general = as_class("PreTrainedTokenizerFast", &json, json!({ "unk_token": "a" })).unwrap();
    assert_eq!(tokens(&general, "b xyz c"), "[CLS] b [UNK] c [SEP]");
}

#[test]
fn limits_and_prefixes_of_the_file_counted_where_a_class_sets_them() {
    let plain = from_vocab(VOCAB, None).unwrap();
    let mut json: Value = serde_json::from_str(plain.canonical_json()).unwrap();
    json["model"]["max_input_chars_per_word"] = 3.into();
    json["model"]["continuing_subword_prefix"] = "@@".into();
    let read = as_class("BertTokenizer", &json, json!({})).unwrap();
    assert_eq!(tokens(&read, "hello worlds"), "[CLS] hello world ##s [SEP]");
    assert_eq!(read.canonical_json(), plain.canonical_json());
    let general = as_class("PreTrainedTokenizerFast", &json, json!({})).unwrap();
    assert_eq!(tokens(&general, "hello a"), "[CLS] [UNK] a [SEP]");
}

#[test]
fn the_unknown_piece_of_a_unigram_model_is_where_its_class_looks_for_it() {
    let pieces = json!([
        ["<s>", 0.0],
        ["<pad>", 0.0],
        ["</s>", 0.0],
        ["<unk>", 0.0],
        ["▁a", -1.0],
        ["<mask>", 0.0],
        ["[CLS]", 0.0],
        ["[SEP]", 0.0],
        ["[UNK]", 0.0]
    ]);
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "added_tokens": [],
        "model": { "type": "Unigram", "unk_id": 4, "vocab": pieces, "byte_fallback": false },
    });
    for (class, unknown) in [
        ("XLMRobertaTokenizer", "<s> ▁a <unk> </s>"),
        ("CamembertTokenizer", "<s> ▁a <unk> </s>"),
        ("AlbertTokenizer", "[CLS] ▁a <pad> [SEP]"),
        ("DebertaV2Tokenizer", "[CLS] ▁a [UNK] [SEP]"),
    ] {
        let read = as_class(class, &json, json!({})).unwrap();
        let found = tokens(&read, "a x").replace(" ▁ ", " ");
        assert!(found.starts_with(&unknown[..unknown.rfind(' ').unwrap()]), "{class}: {found}");
    }
}

#[test]
fn classes_that_build_their_parts_anew_were_taken_at_the_word_of_the_file() {
    let json: Value = serde_json::from_str(from_vocab(VOCAB, None).unwrap().canonical_json()).unwrap();
    for class in
        ["T5TokenizerFast", "LlamaTokenizer", "XLNetTokenizerFast", "HerbertTokenizerFast", "DebertaTokenizerFast"]
    {
        let message = as_class(class, &json, json!({})).unwrap_err().to_string();
        assert!(message.contains(&format!("`{class}` builds its tokenizer anew")), "{message}");
        assert!(message.contains("PreTrainedTokenizerFast"), "{message}");
    }
    assert!(as_class("SomebodysTokenizer", &json, json!({})).is_ok());
}
