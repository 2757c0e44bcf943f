//! Writes a tokenizer as the files that `AutoTokenizer` of `transformers` loads.

use super::{TextTokenizer, bad};
use crate::Error;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

pub(super) const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// What else a tokenizer that is not WordPiece may have beside `tokenizer.json`.
pub(super) const COPIED: &[&str] = &[
    CONFIG,
    SPECIAL_TOKENS,
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "vocab.json",
];

impl TextTokenizer {
    /// Writes the tokenizer's files into a folder that exists: see [`TextTokenizer::files`].
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        for (name, bytes) in self.files()? {
            let path = folder.join(name);
            write_whole(folder, &path, &bytes)
                .map_err(|cause| Error::Write { file: path.display().to_string(), cause })?;
        }
        Ok(())
    }

    /// The files that `transformers` needs, by name; the same bytes for the same tokenizer.
    ///
    /// That is `tokenizer.json`; for WordPiece also `vocab.txt`, `tokenizer_config.json` and
    /// `special_tokens_map.json`, written anew; for others what came beside their `tokenizer.json`, as it was.
    pub fn files(&self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut files = self.copied.clone();
        files.insert("tokenizer.json".to_owned(), self.json.clone().into_bytes());
        if self.is_word_piece() {
            let json: Value = serde_json::from_str(&self.json).map_err(|reason| bad("tokenizer.json", &reason))?;
            if let Some(bytes) = vocab_txt(&json["model"]["vocab"]) {
                files.insert("vocab.txt".to_owned(), bytes);
            }
            let special_names = self.present_special_names();
            files.insert(CONFIG.to_owned(), pretty(&self.config(&json, &special_names))?);
            files.insert(SPECIAL_TOKENS.to_owned(), pretty(&special_names)?);
        }
        Ok(files)
    }

    fn present_special_names(&self) -> Map<String, Value> {
        let names = self.description.special_names.by_key().into_iter();
        let present = names.filter(|(_, name)| self.token_id(name).is_some());
        present.map(|(key, name)| (key.to_owned(), name.into())).collect()
    }

    fn config(&self, json: &Value, special_names: &Map<String, Value>) -> Map<String, Value> {
        let mut config = special_names.clone();
        let normalizer = &json["normalizer"];
        let class = if self.is_bert(json) {
            // transformers sets the normalizer to these, so they must say what it is.
            config.insert("do_lower_case".to_owned(), normalizer["lowercase"].clone());
            config.insert("strip_accents".to_owned(), normalizer["strip_accents"].clone());
            config.insert("tokenize_chinese_chars".to_owned(), normalizer["handle_chinese_chars"].clone());
            "BertTokenizer"
        } else {
            "PreTrainedTokenizerFast"
        };
        config.insert("tokenizer_class".to_owned(), class.into());
        if let Some(limit) = self.description.model_max_length {
            config.insert("model_max_length".to_owned(), limit.into());
        }
        let mut inputs = vec!["input_ids", "attention_mask"];
        if self.description.token_type_ids {
            inputs.insert(1, "token_type_ids");
        }
        config.insert("model_input_names".to_owned(), inputs.into());
        config.sort_keys();
        config
    }

    /// Whether this is BERT's tokenizer in every part, so that the class of that name stands for it.
    fn is_bert(&self, json: &Value) -> bool {
        let special_names = &self.description.special_names;
        let id = |token: &str| self.token_id(token).map_or(0, u64::from);
        let (cls, sep) = ((&*special_names.cls, id(&special_names.cls)), (&*special_names.sep, id(&special_names.sep)));
        let template = super::vocab_txt::post_processor(cls, sep);
        let older_form = json!({ "type": "BertProcessing", "sep": [sep.0, sep.1], "cls": [cls.0, cls.1] });
        json["normalizer"]["type"] == "BertNormalizer"
            && json["normalizer"]["clean_text"] == true
            && json["pre_tokenizer"]["type"] == "BertPreTokenizer"
            && json["model"]["continuing_subword_prefix"] == "##"
            && json["model"]["max_input_chars_per_word"] == 100
            && (json["post_processor"] == template || json["post_processor"] == older_form)
    }
}

/// One token a line, in the order of ids; `None` where that would give a token another id.
fn vocab_txt(vocabulary: &Value) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (line, (token, id)) in vocabulary.as_object()?.iter().enumerate() {
        if id.as_u64() != Some(line as u64) || token.contains(['\n', '\r']) {
            return None;
        }
        bytes.extend_from_slice(token.as_bytes());
        bytes.push(b'\n');
    }
    Some(bytes)
}

fn pretty(object: &Map<String, Value>) -> Result<Vec<u8>, Error> {
    let mut bytes = serde_json::to_vec_pretty(object).map_err(|reason| bad(CONFIG, &reason))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A reader never meets half a file: it is written beside its place, flushed to disk and renamed.
fn write_whole(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // The default is for the owner alone; this leaves it to the umask, as for any other file.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
