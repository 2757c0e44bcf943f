//! Writes a tokenizer as the files that `AutoTokenizer` of `transformers` loads, whichever version.
//!
//! Nothing of the folder that the tokenizer came from is copied: the class, the special tokens and the inputs that are
//! written are those of the model that is saved. The class is BERT's where that reads the very same tokenizer, and else
//! the general one, which takes `tokenizer.json` as it is in versions 4 and 5.

use super::TextTokenizer;
use super::error::bad;
use super::files::{CONFIG, SPECIAL_TOKENS, TOKENIZER, TokenizerFiles, VOCAB_TXT};
use crate::Error;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

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
    /// That is `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and, for WordPiece without holes,
    /// `vocab.txt`.
    pub fn files(&self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut files = BTreeMap::new();
        let named = self.special_names().iter();
        let special_names: Map<String, Value> =
            named.map(|(role, name)| ((*role).to_owned(), name.as_str().into())).collect();
        let mut config = self.config("PreTrainedTokenizerFast", None, &special_names);
        let json: Value = serde_json::from_str(self.canonical_json()).map_err(|reason| bad(TOKENIZER, reason))?;
        if let spaced @ Value::Bool(_) = &json["pre_tokenizer"]["add_prefix_space"] {
            // Version 4 sets the pre-tokenizer to this, and to false where it is not written.
            config.insert("add_prefix_space".to_owned(), spaced.clone());
            config.sort_keys();
        }
        if self.kind() == "WordPiece" {
            if let Some(bytes) = vocab_txt(&json["model"]["vocab"]) {
                files.insert(VOCAB_TXT.to_owned(), bytes);
            }
            let standard =
                json["model"]["continuing_subword_prefix"] == "##" && json["model"]["max_input_chars_per_word"] == 100;
            let bert = self.config("BertTokenizer", Some(&json["normalizer"]), &special_names);
            if standard && self.reads_the_same(&bert)? {
                config = bert;
            }
        }
        files.insert(TOKENIZER.to_owned(), self.canonical_json().to_owned().into_bytes());
        files.insert(CONFIG.to_owned(), pretty(&config)?);
        files.insert(SPECIAL_TOKENS.to_owned(), pretty(&special_names)?);
        Ok(files)
    }

    fn config(
        &self,
        class: &str,
        normalizer: Option<&Value>,
        special_names: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut config = special_names.clone();
        if let Some(normalizer) = normalizer {
            // The class sets the normalizer to these, so they must say what it is.
            config.insert("do_lower_case".to_owned(), normalizer["lowercase"].clone());
            config.insert("strip_accents".to_owned(), normalizer["strip_accents"].clone());
            config.insert("tokenize_chinese_chars".to_owned(), normalizer["handle_chinese_chars"].clone());
        }
        config.insert("tokenizer_class".to_owned(), class.into());
        if let Some(limit) = self.model_max_length() {
            config.insert("model_max_length".to_owned(), limit.into());
        }
        if self.keeps_end() {
            config.insert("truncation_side".to_owned(), "left".into());
        }
        let mut inputs = vec!["input_ids", "attention_mask"];
        if self.passes_token_types() {
            inputs.insert(1, "token_type_ids");
        }
        config.insert("model_input_names".to_owned(), inputs.into());
        config.sort_keys();
        config
    }

    /// Whether `tokenizer.json` beside this configuration is read as this very tokenizer.
    fn reads_the_same(&self, config: &Map<String, Value>) -> Result<bool, Error> {
        let files = TokenizerFiles {
            tokenizer_json: Some(self.canonical_json().as_bytes().into()),
            tokenizer_config: Some(pretty(config)?.into()),
            ..TokenizerFiles::default()
        };
        Ok(Self::from_files(&files).is_ok_and(|read| read.canonical_json() == self.canonical_json()))
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
    let mut bytes = serde_json::to_vec_pretty(object).map_err(|reason| bad(CONFIG, reason))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A reader never meets half a file: it is written beside its place, flushed to disk and renamed.
fn write_whole(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut builder = tempfile::Builder::new();
    // By which `distill` knows the leftovers of a program that was killed, and removes them.
    builder.prefix(".distill-").suffix(".partial");
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
