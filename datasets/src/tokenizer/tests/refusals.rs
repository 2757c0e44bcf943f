//! What is no tokenizer, or none that is read here, is refused by name.

use super::*;

/// The message for these files, `config` being `tokenizer_config.json`.
fn refused(config: &str, model_config: &str, files: TokenizerFiles<'_>) -> String {
    let bytes = |text: &str| (!text.is_empty()).then(|| text.as_bytes().to_vec().into());
    let files = TokenizerFiles { tokenizer_config: bytes(config), model_config: bytes(model_config), ..files };
    TextTokenizer::from_files(&files).expect_err("refused").to_string()
}

fn vocab() -> TokenizerFiles<'static> {
    TokenizerFiles { vocab_txt: Some(VOCAB.as_bytes().into()), ..TokenizerFiles::default() }
}

fn json() -> TokenizerFiles<'static> {
    let json = from_vocab(VOCAB, None).unwrap().canonical_json().as_bytes().to_vec();
    TokenizerFiles { tokenizer_json: Some(json.into()), ..TokenizerFiles::default() }
}

fn bytes(vocab: &'static str, merges: &'static str) -> TokenizerFiles<'static> {
    TokenizerFiles {
        vocab_json: Some(vocab.as_bytes().into()),
        merges_txt: Some(merges.as_bytes().into()),
        ..TokenizerFiles::default()
    }
}

fn spiece(name: &str, bytes: &[u8]) -> TokenizerFiles<'static> {
    TokenizerFiles { sentencepiece: vec![(name.to_owned(), bytes.to_vec().into())], ..TokenizerFiles::default() }
}

#[track_caller]
fn says(message: &str, expected: &[&str]) {
    for part in expected {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn a_class_that_cuts_words_with_other_tools_is_refused_by_name() {
    let japanese = r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#;
    says(&refused(japanese, "", vocab()), &["tokenizer_config.json", "`BertJapaneseTokenizer`", "MeCab", "vocab.txt"]);
    // As config.json of older models names it, and beside a tokenizer.json too.
    says(&refused("", japanese, json()), &["config.json: ", "`BertJapaneseTokenizer`", "MeCab", "tokenizer.json"]);
    says(&refused(r#"{"tokenizer_class": "KoBertTokenizer"}"#, "", vocab()), &["KoBertTokenizer"]);
    says(&refused(r#"{"tokenizer_class": "PhobertTokenizerFast"}"#, "", json()), &["PhobertTokenizerFast"]);
}

#[test]
fn an_unknown_class_is_refused_over_a_bare_vocabulary_and_read_from_a_tokenizer_json() {
    let unknown = r#"{"tokenizer_class": "MyTokenizer"}"#;
    says(&refused(unknown, "", vocab()), &["`MyTokenizer` is not known", "only vocab.txt", "save_pretrained"]);
    let config = Some(unknown.as_bytes().into());
    assert!(TextTokenizer::from_files(&TokenizerFiles { tokenizer_config: config, ..json() }).is_ok());
    let own = r#"{"tokenizer_class": "MyTokenizer", "auto_map": {"AutoTokenizer": ["my.MyTokenizer", null]}}"#;
    says(&refused(own, "", json()), &["`MyTokenizer`", "auto_map", "not run"]);
}

#[test]
fn a_vocabulary_of_another_class_is_refused_with_what_is_there() {
    let message = refused("", r#"{"model_type": "roberta"}"#, vocab());
    says(&message, &["`roberta`", "vocab.json and merges.txt", "only vocab.txt", "`tokenizer_class`"]);
    let message = refused(r#"{"tokenizer_class": "AlbertTokenizer"}"#, "", spiece("spm.model", b"x"));
    says(&message, &["names the class `AlbertTokenizer`", "spiece.model", "only spm.model"]);
}

#[test]
fn files_that_are_not_whole_are_refused() {
    let albert = r#"{"tokenizer_class": "AlbertTokenizer"}"#;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers/albert-spm");
    let whole = std::fs::read(folder.join("spiece.model")).unwrap();
    let message = refused(albert, "", spiece("spiece.model", &whole[..whole.len() / 2]));
    says(
        &message,
        &["spiece.model: not a whole sentencepiece model", "ends within a field", "download the file again"],
    );
    let roberta = r#"{"tokenizer_class": "RobertaTokenizer"}"#;
    let pieces = r#"{"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}"#;
    says(&refused(roberta, "", bytes("{\"a\": 0, ", "")), &["vocab.json: "]);
    says(&refused(roberta, "", bytes(pieces, "#version: 0.2\na b\na b c\n")), &["merges.txt: line 3: `a b c`"]);
    says(&refused(roberta, "", bytes(pieces, "a b\nab c\n")), &["line 2: `ab c`", "`c`", "do not belong together"]);
    says(&refused(roberta, "", bytes(r#"{"a": -1}"#, "")), &["vocab.json: the id of `a` is -1"]);
    says(&refused(roberta, "", bytes(r#"{"a": 0, "</s>": 1}"#, "")), &["vocab.json: no `<s>`", "`cls_token`"]);
}

#[test]
fn settings_that_cannot_be_followed_are_refused_by_name() {
    says(&refused(r#"{"truncation_side": "middle"}"#, "", vocab()), &["`truncation_side` is `middle`", "`left`"]);
    says(&refused(r#"{"split_special_tokens": true}"#, "", json()), &["split_special_tokens"]);
    let holes = r#"{"added_tokens_decoder": {"20": {"content": "<new>"}}}"#;
    says(&refused(holes, "", vocab()), &["`<new>` is to have the id 20", "gives it 14"]);
    says(&refused(r#"{"added_tokens_decoder": {"x": {"content": "<new>"}}}"#, "", vocab()), &["`x` is not a token id"]);
}

#[test]
fn robertas_class_over_another_kind_of_model_was_read_as_the_file_says() {
    let way_out = ["BPE", "is WordPiece", "PreTrainedTokenizerFast", "`tokenizer_class`"];
    for (config, model_config, named) in [
        (
            r#"{"tokenizer_class": "RobertaTokenizerFast"}"#,
            "",
            "tokenizer_config.json: the class `RobertaTokenizerFast`",
        ),
        ("", r#"{"tokenizer_class": "BartTokenizer"}"#, "config.json: the class `BartTokenizer`"),
        ("", r#"{"model_type": "roberta"}"#, "config.json: the class of the model's type `roberta`"),
    ] {
        let message = refused(config, model_config, json());
        says(&message, &way_out);
        says(&message, &[named]);
    }
    let general = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
    let files = TokenizerFiles {
        tokenizer_config: Some(general.as_bytes().into()),
        model_config: Some(br#"{"model_type": "roberta"}"#[..].into()),
        ..json()
    };
    assert!(TextTokenizer::from_files(&files).is_ok());
}
