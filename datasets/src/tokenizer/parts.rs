//! The parts of a `tokenizer.json` as the classes of `transformers` 5.24 set them, and when two of them do the same.

use super::class::Class;
use super::settings::Settings;
use serde_json::{Map, Value, json};

/// The parts around a vocabulary.
pub(super) struct Parts {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) post_processor: Value,
    pub(super) decoder: Value,
}

/// The tokens before and behind a text, with their ids.
pub(super) struct Ends {
    pub(super) cls: (String, u32),
    pub(super) sep: (String, u32),
}

/// What a class sets, with its own kind of vocabulary. `charsmap` is the table of a sentencepiece normaliser in base 64.
pub(super) fn parts_of(class: Class, settings: &Settings, charsmap: Option<&str>, ends: Ends) -> Parts {
    let metaspace =
        |scheme: &str| json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true });
    let sequence = |steps: Vec<Value>| json!({ "type": "Sequence", "normalizers": steps });
    let precompiled = charsmap.map(|charsmap| json!({ "type": "Precompiled", "precompiled_charsmap": charsmap }));
    let fairseqs = |scheme: &str| json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, metaspace(scheme)] });
    let adds_space = settings.add_prefix_space;
    let scheme = |otherwise: &'static str| if adds_space.unwrap_or(true) { "always" } else { otherwise };
    match class {
        Class::Bert | Class::General => Parts {
            normalizer: json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": settings.tokenize_chinese_chars.unwrap_or(true),
                "strip_accents": settings.strip_accents,
                "lowercase": settings.do_lower_case.unwrap_or(true),
            }),
            pre_tokenizer: json!({ "type": "BertPreTokenizer" }),
            post_processor: berts_post_processor(&ends),
            decoder: json!({ "type": "WordPiece", "prefix": "##", "cleanup": true }),
        },
        Class::Roberta => {
            let adds_space = adds_space.unwrap_or(false);
            let bytes = |adds_space: bool| {
                json!({
                    "type": "ByteLevel", "add_prefix_space": adds_space, "trim_offsets": true, "use_regex": true,
                })
            };
            Parts {
                normalizer: Value::Null,
                pre_tokenizer: bytes(adds_space),
                post_processor: json!({
                    "type": "RobertaProcessing", "sep": ends.sep, "cls": ends.cls,
                    "trim_offsets": true, "add_prefix_space": adds_space,
                }),
                decoder: bytes(true),
            }
        }
        Class::XlmRoberta | Class::Camembert => Parts {
            normalizer: precompiled.unwrap_or(Value::Null),
            pre_tokenizer: fairseqs(scheme("never")),
            post_processor: robertas_post_processor(&ends),
            decoder: metaspace(scheme("never")),
        },
        Class::Albert => {
            let replace = |quotes: &str| json!({ "type": "Replace", "pattern": { "String": quotes }, "content": "\"" });
            let mut steps = vec![replace("``"), replace("''")];
            if !settings.keep_accents.unwrap_or(false) {
                steps.extend([json!({ "type": "NFKD" }), json!({ "type": "StripAccents" })]);
            }
            if settings.do_lower_case.unwrap_or(true) {
                steps.push(json!({ "type": "Lowercase" }));
            }
            steps.extend(precompiled);
            Parts {
                normalizer: sequence(steps),
                pre_tokenizer: fairseqs(scheme("never")),
                post_processor: berts_post_processor(&ends),
                decoder: metaspace(scheme("never")),
            }
        }
        Class::DebertaV2 => {
            let spaces = json!({
                "type": "Replace", "pattern": { "Regex": r"\s{2,}|[\n\r\t]" }, "content": " ",
            });
            let strip = json!({ "type": "Strip", "strip_left": false, "strip_right": true });
            let mut steps = vec![spaces, json!({ "type": "NFC" }), strip];
            if settings.do_lower_case.unwrap_or(false) {
                steps.insert(0, json!({ "type": "Lowercase" }));
            }
            let mut cuts = vec![metaspace(scheme("first"))];
            if settings.split_by_punct.unwrap_or(false) {
                cuts.insert(0, json!({ "type": "Punctuation", "behavior": "Isolated" }));
            }
            Parts {
                normalizer: sequence(steps),
                pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": cuts }),
                post_processor: berts_post_processor(&ends),
                decoder: metaspace(scheme("first")),
            }
        }
    }
}

/// `[CLS] text [SEP]`, or `[CLS] text [SEP] other text [SEP]` with the last two in the second segment.
fn berts_post_processor(ends: &Ends) -> Value {
    let Ends { cls: (cls, _), sep: (sep, _) } = ends;
    let pair = [special(cls, 0), text("A", 0), special(sep, 0), text("B", 1), special(sep, 1)];
    template(&[special(cls, 0), text("A", 0), special(sep, 0)], &pair, ends)
}

/// `<s> text </s>`, or `<s> text </s> </s> other text </s>`, all in the first segment.
fn robertas_post_processor(ends: &Ends) -> Value {
    let Ends { cls: (cls, _), sep: (sep, _) } = ends;
    let single = [special(cls, 0), text("A", 0), special(sep, 0)];
    let second = [special(sep, 0), text("B", 0), special(sep, 0)];
    template(&single, &[single.clone(), second].concat(), ends)
}

fn special(token: &str, type_id: u32) -> Value {
    json!({ "SpecialToken": { "id": token, "type_id": type_id } })
}

fn text(id: &str, type_id: u32) -> Value {
    json!({ "Sequence": { "id": id, "type_id": type_id } })
}

fn template(single: &[Value], pair: &[Value], ends: &Ends) -> Value {
    let special_tokens: Map<String, Value> = [&ends.cls, &ends.sep]
        .into_iter()
        .map(|(token, id)| (token.clone(), json!({ "id": token, "ids": [id], "tokens": [token] })))
        .collect();
    json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special_tokens })
}

/// A post-processor in the one form that says the same of all: what surrounds one text, and what two.
fn as_template(post_processor: &Value) -> Value {
    let end = |key: &str| serde_json::from_value(post_processor[key].clone());
    let (Ok(cls), Ok(sep)) = (end("cls"), end("sep")) else { return post_processor.clone() };
    match post_processor["type"].as_str() {
        Some("BertProcessing") => berts_post_processor(&Ends { cls, sep }),
        Some("RobertaProcessing") => robertas_post_processor(&Ends { cls, sep }),
        _ => post_processor.clone(),
    }
}

/// Whether two post-processors put the same tokens and segments around texts.
pub(super) fn same_post_processor(one: &Value, other: &Value) -> bool {
    // Maps are equal whatever their order.
    as_template(one) == as_template(other)
}

/// Whether two pre-tokenizers cut alike; the rest is about offsets.
pub(super) fn same_pre_tokenizer(one: &Value, other: &Value) -> bool {
    let byte_level = |value: &Value| value["type"] == "ByteLevel";
    match byte_level(one) && byte_level(other) {
        true => ["add_prefix_space", "use_regex"].iter().all(|key| one[key] == other[key]),
        false => one == other,
    }
}

/// The post-processor with all texts in the first segment.
pub(super) fn without_segments(post_processor: &Value) -> Value {
    let mut template = as_template(post_processor);
    for part in ["single", "pair"] {
        for piece in template[part].as_array_mut().into_iter().flatten() {
            for kind in ["SpecialToken", "Sequence"] {
                if let Some(type_id) = piece.get_mut(kind).and_then(|of| of.get_mut("type_id")) {
                    *type_id = 0.into();
                }
            }
        }
    }
    template
}
