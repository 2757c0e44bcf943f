//! Which class of `transformers` reads a tokenizer, and what that class makes of it.
//!
//! The class is chosen as `AutoTokenizer` 5.24 does: `tokenizer_class` of `tokenizer_config.json` or of `config.json`,
//! else the one of the model's type; a class that it does not know leaves `tokenizer.json` as it is. What a class does
//! is as in its `tokenization_*.py` there. Classes that cut words with other tools are refused.

use super::added::Written;
use super::error::bad;
use super::files::{CONFIG, TOKENIZER, TokenizerFiles};
use super::settings::{ROLES, Settings};
use crate::Error;
use serde_json::Value;
use std::collections::BTreeMap;

/// A class, by how it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// BERT's WordPiece.
    Bert,
    /// RoBERTa's byte-level byte-pair encoding.
    Roberta,
    /// XLM-R's Unigram.
    XlmRoberta,
    /// CamemBERT's Unigram.
    Camembert,
    /// ALBERT's Unigram.
    Albert,
    /// DeBERTa-v2's Unigram.
    DebertaV2,
    /// `tokenizer.json` as it is.
    General,
}

/// What `transformers` calls the classes. Others are taken at the word of their `tokenizer.json`.
const NAMES: [(&str, Class); 19] = [
    ("BertTokenizer", Class::Bert),
    ("ConvBertTokenizer", Class::Bert),
    ("DistilBertTokenizer", Class::Bert),
    ("ElectraTokenizer", Class::Bert),
    ("LayoutLMTokenizer", Class::Bert),
    ("LxmertTokenizer", Class::Bert),
    ("MobileBertTokenizer", Class::Bert),
    ("SqueezeBertTokenizer", Class::Bert),
    ("RobertaTokenizer", Class::Roberta),
    ("BartTokenizer", Class::Roberta),
    ("LEDTokenizer", Class::Roberta),
    ("LongformerTokenizer", Class::Roberta),
    ("MvpTokenizer", Class::Roberta),
    ("XLMRobertaTokenizer", Class::XlmRoberta),
    ("CamembertTokenizer", Class::Camembert),
    ("AlbertTokenizer", Class::Albert),
    ("DebertaV2Tokenizer", Class::DebertaV2),
    ("PreTrainedTokenizer", Class::General),
    ("TokenizersBackend", Class::General),
];

/// Classes of `transformers` that set parts of a `tokenizer.json` by the configuration, as BERT's and RoBERTa's do, and that
/// are not built in: where the two say the same, the file is taken as it is.
const OTHER_CLASSES: [&str; 5] =
    ["BlenderbotTokenizer", "FunnelTokenizer", "GPT2Tokenizer", "MPNetTokenizer", "SplinterTokenizer"];

/// Classes of `transformers` 5.24 that build the parts of a tokenizer anew, whatever `tokenizer.json` has of them, or that are
/// code without one. None is built in, so that the file alone may give other ids than they do.
const BUILT_ANEW: [&str; 67] = [
    "BarthezTokenizer",
    "BartphoTokenizer",
    "BigBirdTokenizer",
    "BioGptTokenizer",
    "BlenderbotSmallTokenizer",
    "ByT5Tokenizer",
    "CLIPTokenizer",
    "CTRLTokenizer",
    "ClvpTokenizer",
    "CodeGenTokenizer",
    "CodeLlamaTokenizer",
    "CohereTokenizer",
    "CpmAntTokenizer",
    "DebertaTokenizer",
    "DiaTokenizer",
    "ErnieMTokenizer",
    "EsmTokenizer",
    "EsmcTokenizer",
    "FNetTokenizer",
    "FSMTTokenizer",
    "GPTNeoXJapaneseTokenizer",
    "GPTNeoXTokenizer",
    "GPTSw3Tokenizer",
    "GemmaTokenizer",
    "HerbertTokenizer",
    "LasrTokenizer",
    "LayoutLMv2Tokenizer",
    "LayoutLMv3Tokenizer",
    "LayoutXLMTokenizer",
    "LlamaTokenizer",
    "LukeTokenizer",
    "M2M100Tokenizer",
    "MBart50Tokenizer",
    "MBartTokenizer",
    "MLukeTokenizer",
    "MarianTokenizer",
    "MarkupLMTokenizer",
    "MgpstrTokenizer",
    "MyT5Tokenizer",
    "NllbTokenizer",
    "NougatTokenizer",
    "OpenAIGPTTokenizer",
    "PLBartTokenizer",
    "PegasusTokenizer",
    "PerceiverTokenizer",
    "ProphetNetTokenizer",
    "Qwen2Tokenizer",
    "Qwen3_5Tokenizer",
    "RagTokenizer",
    "ReformerTokenizer",
    "RemBertTokenizer",
    "SeamlessM4TTokenizer",
    "Siglip2Tokenizer",
    "SiglipTokenizer",
    "Speech2TextTokenizer",
    "SpeechT5Tokenizer",
    "T5Tokenizer",
    "Tipsv2Tokenizer",
    "UdopTokenizer",
    "VideoPrismTokenizer",
    "VitsTokenizer",
    "Wav2Vec2CTCTokenizer",
    "Wav2Vec2PhonemeCTCTokenizer",
    "WhisperTokenizer",
    "XGLMTokenizer",
    "XLNetTokenizer",
    "XLMProphetNetTokenizer",
];

/// The class of a model's type, where no class is named.
const MODEL_TYPES: [(&str, Class); 9] = [
    ("bert", Class::Bert),
    ("distilbert", Class::Bert),
    ("electra", Class::Bert),
    ("mobilebert", Class::Bert),
    ("roberta", Class::Roberta),
    ("xlm-roberta", Class::XlmRoberta),
    ("camembert", Class::Camembert),
    ("albert", Class::Albert),
    ("deberta-v2", Class::DebertaV2),
];

/// Classes that no `tokenizer.json` stands for, and what they cut words with.
const OTHER_TOOLS: [(&str, &str); 13] = [
    ("BertJapaneseTokenizer", "MeCab, Sudachi or Juman++"),
    ("KoBertTokenizer", "code of its own over a sentencepiece model"),
    ("KoBERTTokenizer", "code of its own over a sentencepiece model"),
    ("PhobertTokenizer", "a Vietnamese word segmenter and code of its own"),
    ("BertweetTokenizer", "code of its own for tweets"),
    ("BertGenerationTokenizer", "the sentencepiece library"),
    ("FlaubertTokenizer", "Moses' rules"),
    ("XLMTokenizer", "Moses' rules"),
    ("RoFormerTokenizer", "jieba"),
    ("CpmTokenizer", "jieba"),
    ("RoCBertTokenizer", "shapes and sounds of characters"),
    ("CanineTokenizer", "code points"),
    ("TapasTokenizer", "code of its own for tables"),
];

impl Class {
    /// The class that reads these files.
    pub(super) fn of(files: &TokenizerFiles<'_>, settings: &Settings) -> Result<Self, Error> {
        let known = |name: &str| NAMES.iter().find(|(known, _)| *known == name).map(|(_, class)| *class);
        let vocabularies = || files.vocabularies().join(", ");
        let Some((name, file)) = &settings.class else {
            let by_type =
                settings.model_type.as_deref().map(|name| MODEL_TYPES.iter().find(|(known, _)| *known == name));
            return Ok(match by_type {
                Some(found) => found.map_or(Self::General, |(_, class)| *class),
                // A vocab.txt of which nothing else is known is BERT's.
                None if files.tokenizer_json.is_none() && files.vocab_txt.is_some() => Self::Bert,
                None => Self::General,
            });
        };
        let plain = name.strip_suffix("Fast").unwrap_or(name);
        if let Some((_, tool)) = OTHER_TOOLS.iter().find(|(known, _)| *known == plain) {
            return Err(bad(
                file,
                format!(
                    "tokenizer_class `{name}` cuts words with {tool}, which is not built in, and {} alone would cut \
                     them otherwise; choose a model whose tokenizer is a tokenizer.json",
                    vocabularies()
                ),
            ));
        }
        if BUILT_ANEW.contains(&plain) && files.tokenizer_json.is_some() {
            return Err(bad(
                file,
                format!(
                    "tokenizer_class `{name}` builds its tokenizer anew, whatever {TOKENIZER} says of it, and is not built in, so \
                     that ids might be others than in `transformers`; if {TOKENIZER} says all, name the class \
                     PreTrainedTokenizerFast in its place"
                ),
            ));
        }
        match known(plain) {
            // A bare subclass of BERT's: it sets nothing in a file that is there.
            Some(_) if plain == "ConvBertTokenizer" && files.tokenizer_json.is_some() => Ok(Self::General),
            Some(class) => Ok(class),
            None if files.tokenizer_json.is_some() && !settings.own_code => {
                if OTHER_CLASSES.contains(&plain) {
                    refuse_contradiction(name, files, settings)?;
                }
                Ok(Self::General)
            }
            None if settings.own_code => Err(bad(
                file,
                format!(
                    "tokenizer_class `{name}` is code of the model's own (`auto_map`), which is not run; choose a model \
                     whose tokenizer is one of `transformers`' own, or remove both entries if tokenizer.json says all"
                ),
            )),
            None => Err(bad(
                file,
                format!(
                    "tokenizer_class `{name}` is not known, and there is no {TOKENIZER} that would say how it cuts \
                     texts, only {}; save the tokenizer from Python with \
                     `AutoTokenizer.from_pretrained(..).save_pretrained(..)`, which writes one where it can",
                    vocabularies()
                ),
            )),
        }
    }

    /// What `tokenizer.json` calls the kind of model that the class has.
    pub(super) fn kind(self) -> Option<&'static str> {
        match self {
            Self::Bert => Some("WordPiece"),
            Self::Roberta => Some("BPE"),
            Self::XlmRoberta | Self::Camembert | Self::Albert | Self::DebertaV2 => Some("Unigram"),
            Self::General => None,
        }
    }

    /// The files that the class builds a tokenizer from where there is no `tokenizer.json`.
    pub(super) fn vocabulary(self) -> &'static str {
        match self {
            Self::Bert => "vocab.txt",
            Self::Roberta => "vocab.json and merges.txt",
            Self::XlmRoberta | Self::Camembert => "sentencepiece.bpe.model",
            Self::Albert => "spiece.model",
            Self::DebertaV2 => "spm.model",
            Self::General => TOKENIZER,
        }
    }

    /// What the class calls the special tokens that nobody names, by role.
    pub(super) fn special(self) -> BTreeMap<&'static str, &'static str> {
        let berts = [("unk_token", "[UNK]"), ("sep_token", "[SEP]"), ("pad_token", "[PAD]"), ("cls_token", "[CLS]")];
        let fairseqs = [
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("unk_token", "<unk>"),
            ("sep_token", "</s>"),
            ("pad_token", "<pad>"),
            ("cls_token", "<s>"),
            ("mask_token", "<mask>"),
        ];
        let ends = [("bos_token", "[CLS]"), ("eos_token", "[SEP]"), ("mask_token", "[MASK]")];
        match self {
            Self::General => BTreeMap::new(),
            Self::Bert => berts.into_iter().chain([("mask_token", "[MASK]")]).collect(),
            Self::DebertaV2 => berts.into_iter().chain(ends).collect(),
            Self::Albert => {
                berts.into_iter().chain(ends).chain([("unk_token", "<unk>"), ("pad_token", "<pad>")]).collect()
            }
            Self::Roberta | Self::XlmRoberta | Self::Camembert => fairseqs.into(),
        }
    }

    /// What a special token is called: as the files name it, or else as the class does. None where neither does, or a file
    /// says that there is none.
    pub(super) fn name_of(self, role: &str, settings: &Settings) -> Option<String> {
        match settings.special.get(role) {
            Some(written) => written.as_ref().map(Written::content),
            None => self.special().get(role).copied(),
        }
        .map(str::to_owned)
    }

    /// Whether `transformers` gives the model token types with the class, where no list of inputs is written. Version 5
    /// gives none with a general class either, version 4 does; where nobody says, the segments count.
    pub(super) fn passes_token_types(self, settings: &Settings) -> bool {
        let name = settings.class.as_ref().map_or("", |(name, _)| name);
        match self {
            Self::Bert => !name.starts_with("DistilBert"),
            Self::Roberta | Self::XlmRoberta | Self::Camembert => false,
            Self::Albert | Self::DebertaV2 | Self::General => true,
        }
    }
}

/// Refuses settings that a class which is not built in would set in `tokenizer.json` to something else than is there.
fn refuse_contradiction(class: &str, files: &TokenizerFiles<'_>, settings: &Settings) -> Result<(), Error> {
    let plain = class.strip_suffix("Fast").unwrap_or(class);
    let unnamed = ROLES.iter().filter(|role| !matches!(settings.special.get(*role), Some(Some(_))));
    let unnamed: Vec<String> = unnamed.map(|role| format!("`{role}`")).collect();
    if plain == "MPNetTokenizer" && !unnamed.is_empty() {
        return Err(bad(
            CONFIG,
            format!(
                "the class `{class}` adds special tokens of its own where none are named, whatever {TOKENIZER} has, and {} \
                 are not; that class is not built in: load and save the tokenizer with `transformers`, which names all",
                unnamed.join(", ")
            ),
        ));
    }
    let json: Value = match &files.tokenizer_json {
        Some(json) => serde_json::from_slice(json).map_err(|reason| bad(TOKENIZER, reason))?,
        None => return Ok(()),
    };
    let steps = |part: &Value, list: &str| match part[list].as_array() {
        Some(steps) => steps.clone(),
        None => vec![part.clone()],
    };
    let found = |part: &str, list: &str, key: &str| {
        steps(&json[part], list).iter().find_map(|step| step[key].as_bool().map(|value| (key.to_owned(), value)))
    };
    let [lower, accents, chinese] =
        ["lowercase", "strip_accents", "handle_chinese_chars"].map(|key| found("normalizer", "normalizers", key));
    let spaced = found("pre_tokenizer", "pretokenizers", "add_prefix_space");
    // What Blenderbot's class takes where nothing is written; the others leave the file as it is then.
    let prefix_space = settings.add_prefix_space.or((plain == "BlenderbotTokenizer").then_some(true));
    let pairs = [
        ("do_lower_case", settings.do_lower_case, lower),
        ("strip_accents", settings.strip_accents, accents),
        ("tokenize_chinese_chars", settings.tokenize_chinese_chars, chinese),
        ("add_prefix_space", prefix_space, spaced),
    ];
    for (setting, wanted, found) in pairs {
        if let (Some(wanted), Some((key, found))) = (wanted, found)
            && wanted != found
        {
            return Err(bad(
                CONFIG,
                format!(
                    "`{setting}` is {wanted}, which the class `{class}` puts over {TOKENIZER}, where `{key}` is {found}; that \
                     class is not built in: load and save the tokenizer with `transformers`, which makes both the same"
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses a folder without the files that its class reads.
pub(super) fn no_vocabulary(class: Class, files: &TokenizerFiles<'_>, settings: &Settings) -> Error {
    let found = files.vocabularies();
    if found.is_empty() {
        return Error::NoTokenizer { folder: "the tokenizer files".to_owned() };
    }
    let why = match &settings.class {
        Some((name, file)) => format!("{file} names the class `{name}`"),
        None => match &settings.model_type {
            Some(model_type) => format!("no tokenizer_class is named, and the model's type is `{model_type}`"),
            None => "no tokenizer_class is named".to_owned(),
        },
    };
    bad(
        CONFIG,
        format!(
            "{why}, which reads {}, and there is only {}; name the class that the model was trained with as \
             `tokenizer_class`, or add a {TOKENIZER}",
            class.vocabulary(),
            found.join(", ")
        ),
    )
}
