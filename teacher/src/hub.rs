//! Finds a model's files: in a local folder, in the cache shared with Python's `huggingface_hub`, or on the Hub.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use self::remote::HubModel;
use self::source::{CONFIG_FILE, HubEnvironment, Source};
use crate::Error;

mod remote;
mod source;

pub use remote::{Download, OnDownload};
pub use source::HubOptions;

/// The paths of a model's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFiles {
    /// The name or path as given.
    pub name: String,
    /// The local folder; `None` for a model from the Hub.
    pub folder: Option<PathBuf>,
    /// The commit of the files; `None` for a local folder.
    pub commit: Option<String>,
    /// `config.json`.
    pub config: PathBuf,
    /// One file, or the shards in order of their names.
    pub weights: Vec<PathBuf>,
    /// `tokenizer.json`.
    pub tokenizer_json: Option<PathBuf>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<PathBuf>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<PathBuf>,
    /// `vocab.txt`, of WordPiece.
    pub vocab_txt: Option<PathBuf>,
    /// `vocab.json`, of byte-pair encoding.
    pub vocab_json: Option<PathBuf>,
    /// `merges.txt`, of byte-pair encoding.
    pub merges_txt: Option<PathBuf>,
    /// `added_tokens.json`, and a sentencepiece model where there is no `tokenizer.json`.
    pub other_tokenizer_files: Vec<PathBuf>,
}

/// Finds a model by the path of its folder or by its name on the Hub (`owner/name`, or an old name without an owner). A
/// local folder with that name takes precedence.
pub fn locate(name_or_path: &str, options: &HubOptions) -> Result<ModelFiles, Error> {
    HubEnvironment::from_env().locate(name_or_path, options, None)
}

/// [`locate`], with a callback for the progress of downloads.
pub fn locate_with_progress(
    name_or_path: &str,
    options: &HubOptions,
    on_download: OnDownload,
) -> Result<ModelFiles, Error> {
    HubEnvironment::from_env().locate(name_or_path, options, Some(on_download))
}

impl HubEnvironment {
    fn locate(
        &self,
        name_or_path: &str,
        options: &HubOptions,
        on_download: Option<OnDownload>,
    ) -> Result<ModelFiles, Error> {
        let path = Path::new(name_or_path);
        if path.is_dir() {
            if let Some(revision) = &options.revision {
                return Err(Error::RevisionOfFolder { folder: path.to_owned(), revision: revision.clone() });
            }
            return collect(name_or_path, &Folder(path));
        }
        if path.exists() {
            return Err(Error::NotAFolder { path: path.to_owned() });
        }
        if !is_hub_name(name_or_path) {
            return Err(Error::NoSuchFolder { name: name_or_path.to_owned() });
        }
        collect(name_or_path, &HubModel::open(self, name_or_path, options, on_download)?)
    }
}

struct Folder<'a>(&'a Path);

impl Source for Folder<'_> {
    fn find(&self, file: &str) -> Result<Option<PathBuf>, Error> {
        let path = self.0.join(file);
        Ok(path.is_file().then_some(path))
    }

    fn missing(&self, wanted: &str, way_out: &'static str) -> Error {
        Error::MissingFile { place: self.0.display().to_string(), wanted: wanted.to_owned(), way_out }
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.0.to_owned())
    }

    fn commit(&self) -> Option<String> {
        None
    }
}

/// The forms that weights come in, the better one first: one file, or an index of several.
const WEIGHTS: [(&str, &str); 2] =
    [("model.safetensors", "model.safetensors.index.json"), ("pytorch_model.bin", "pytorch_model.bin.index.json")];

fn collect(name: &str, source: &dyn Source) -> Result<ModelFiles, Error> {
    let no_config = "give a folder, or the name of a model, as `save_pretrained` writes it";
    let Some(config) = source.find(CONFIG_FILE)? else {
        refuse_adapter(name, source)?;
        return Err(source.missing(CONFIG_FILE, no_config));
    };
    let tokenizer_json = source.find("tokenizer.json")?;
    let mut others = vec!["added_tokens.json"];
    if tokenizer_json.is_none() {
        others.extend(["spiece.model", "spm.model", "sentencepiece.bpe.model"]);
    }
    let others = others.into_iter().filter_map(|file| source.find(file).transpose()).collect::<Result<_, _>>()?;
    Ok(ModelFiles {
        name: name.to_owned(),
        folder: source.folder(),
        commit: source.commit(),
        config,
        tokenizer_json,
        tokenizer_config: source.find("tokenizer_config.json")?,
        special_tokens_map: source.find("special_tokens_map.json")?,
        vocab_txt: source.find("vocab.txt")?,
        vocab_json: source.find("vocab.json")?,
        merges_txt: source.find("merges.txt")?,
        other_tokenizer_files: others,
        // Last, so that whatever else is amiss shows before the long download.
        weights: weights(name, source)?,
    })
}

fn weights(name: &str, source: &dyn Source) -> Result<Vec<PathBuf>, Error> {
    for (whole, index) in WEIGHTS {
        if let Some(file) = source.find(whole)? {
            return Ok(vec![file]);
        }
        if let Some(index) = source.find(index)? {
            let incomplete = "its index names it: copy or download the model again";
            return shards(&index)?
                .iter()
                .map(|shard| source.find(shard)?.ok_or_else(|| source.missing(shard, incomplete)))
                .collect();
        }
    }
    refuse_adapter(name, source)?;
    let convert = "weights of TensorFlow or Flax are not read: load and save the model with `transformers` first";
    Err(source.missing("model.safetensors or pytorch_model.bin", convert))
}

/// Names what lies in the place of a model, where it is an adapter.
fn refuse_adapter(name: &str, source: &dyn Source) -> Result<(), Error> {
    let Some(path) = source.find("adapter_config.json")? else { return Ok(()) };
    let text = std::fs::read(&path).map_err(|source| Error::Read { path, source })?;
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let base = json["base_model_name_or_path"].as_str().unwrap_or("the model that it was made for");
    Err(Error::Adapter { place: name.to_owned(), base: base.to_owned() })
}

/// The files that an index of weights names.
fn shards(index: &Path) -> Result<BTreeSet<String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let wrong = |finding: String| Error::ShardIndex { path: index.to_owned(), finding };
    let text = std::fs::read(index).map_err(|source| Error::Read { path: index.to_owned(), source })?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    if shards.is_empty() {
        return Err(wrong("`weight_map` is empty".to_owned()));
    }
    // A name that leads out of the model's folder would read somebody else's file.
    let plain = |name: &str| name.ends_with(".safetensors") || name.ends_with(".bin");
    match shards.iter().find(|shard| !plain(shard) || shard.contains(['/', '\\', ':'])) {
        Some(shard) => Err(wrong(format!("`weight_map` names `{shard}`, expected the plain name of a weights file"))),
        None => Ok(shards),
    }
}

/// `owner/name`, or `name` alone, in the letters that the Hub allows.
fn is_hub_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let letters = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        letters && !part.is_empty() && !part.starts_with(['.', '-']) && !part.contains("..")
    };
    name.len() <= 96 && name.split('/').count() <= 2 && name.split('/').all(is_part)
}

#[cfg(test)]
mod loopback;
#[cfg(test)]
mod tests;
