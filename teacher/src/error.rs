//! Errors of finding and loading a model. Each message names the file or model, what was found and how to fix it.

use std::io;
use std::path::PathBuf;

/// Why a model could not be found or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a folder nor a valid name on the Hub.
    #[error("`{name}`: no such folder, and no name of a Hub model (`owner/name`); check the spelling")]
    NoSuchFolder {
        /// What was asked for.
        name: String,
    },
    /// A file where a folder was expected.
    #[error("{path}: a file; give the folder that holds it together with config.json and the tokenizer")]
    NotAFolder {
        /// What was asked for.
        path: PathBuf,
    },
    /// A local folder was given together with a revision.
    #[error(
        "{folder}: a local folder, which has no revision `{revision}`; leave the revision out, or move the folder away"
    )]
    RevisionOfFolder {
        /// The folder.
        folder: PathBuf,
        /// The revision asked for.
        revision: String,
    },
    /// Not a valid name of a branch, tag or commit.
    #[error("revision `{revision}`: not the name of a branch, a tag or a commit")]
    BadRevision {
        /// The revision asked for.
        revision: String,
    },
    /// A model folder or repository lacks a file.
    #[error("{place}: no {wanted}; {way_out}")]
    MissingFile {
        /// The folder, or the model's name.
        place: String,
        /// The file, or the choice of files, that is needed.
        wanted: String,
        /// What to do about it.
        way_out: &'static str,
    },
    /// The Hub has no such model.
    #[error(
        "`{name}`: neither a local folder nor a model on {endpoint}; check the spelling, and if the model is private or \
         gated set HF_TOKEN to a token that may read it"
    )]
    NoSuchModel {
        /// The model's name.
        name: String,
        /// The Hub that was asked.
        endpoint: String,
    },
    /// The model has no such branch, tag or commit.
    #[error("`{name}`: no revision `{revision}` on {endpoint}; leave it out for `main`, or check the spelling")]
    NoSuchRevision {
        /// The model's name.
        name: String,
        /// The revision asked for.
        revision: String,
        /// The Hub that was asked.
        endpoint: String,
    },
    /// The Hub denies access: the token is missing or not authorised.
    #[error(
        "`{name}`: {endpoint} refuses it ({status}{message}): it does not exist, or is private or gated; check the \
         spelling, accept the model's terms on its page, and set HF_TOKEN to a valid token that may read it"
    )]
    Denied {
        /// The model's name.
        name: String,
        /// The Hub that was asked.
        endpoint: String,
        /// 401 or 403.
        status: u16,
        /// What the Hub says, after `: `; may be empty.
        message: String,
    },
    /// The Hub answered with an error or an invalid response.
    #[error("`{name}`: {endpoint} failed on {file}: {finding}; try again later, or give a local folder")]
    HubFailed {
        /// The model's name.
        name: String,
        /// The Hub that was asked.
        endpoint: String,
        /// The file asked for.
        file: String,
        /// The status or the flaw in the answer.
        finding: String,
    },
    /// The Hub could not be reached.
    #[error(
        "`{name}`: {endpoint} cannot be reached for {file}: {finding}; check the network and HF_ENDPOINT, or use what is \
         in the cache with --offline, or give a local folder"
    )]
    Unreachable {
        /// The model's name.
        name: String,
        /// The Hub that was asked.
        endpoint: String,
        /// The file asked for.
        file: String,
        /// What the network says.
        finding: String,
    },
    /// Every attempt to download a file was interrupted, or returned another number of bytes than announced.
    #[error(
        "`{name}`: {file} from {endpoint} came incomplete {attempts} times ({finding}), nothing of it was kept; try again, \
         or give a local folder"
    )]
    Incomplete {
        /// The model's name.
        name: String,
        /// The Hub that was asked.
        endpoint: String,
        /// The file asked for.
        file: String,
        /// The number of attempts.
        attempts: usize,
        /// The last failure.
        finding: String,
    },
    /// Offline, and not in the local cache.
    #[error(
        "`{name}`: offline, and the cache at {cache} has no {wanted} of revision `{revision}`; run it once without \
         --offline and with HF_HUB_OFFLINE unset, or give a local folder"
    )]
    NotInCache {
        /// The model's name.
        name: String,
        /// The revision asked for.
        revision: String,
        /// The file, or the choice of files, that is needed.
        wanted: String,
        /// Where the cache is.
        cache: PathBuf,
    },
    /// Another process downloads the same file.
    #[error("{lock}: another process is downloading {file} of `{name}`; wait for it to end, then try again")]
    CacheLocked {
        /// The model's name.
        name: String,
        /// The file asked for.
        file: String,
        /// The lock that is held.
        lock: PathBuf,
    },
    /// The cache of the Hub cannot be written or read.
    #[error(
        "`{name}`: {file} cannot be kept in the cache at {cache}: {source}; make room, or set HF_HOME to another folder"
    )]
    HubCache {
        /// The model's name.
        name: String,
        /// The file asked for.
        file: String,
        /// Where the cache is.
        cache: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Invalid settings for the Hub client.
    #[error("the Hub's settings: {finding}; check HF_ENDPOINT")]
    HubSettings {
        /// What is wrong with them.
        finding: String,
    },
    /// A file could not be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The index of a model's shards is invalid.
    #[error("{path}: {finding}; copy or download the file again")]
    ShardIndex {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// A weights file is truncated, malformed or of another kind.
    #[error("{path}: no readable weights: {finding}; copy or download the file again")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// A Git LFS pointer instead of the weights: cloned without Git LFS.
    #[error("{path}: a Git LFS pointer instead of the weights; run `git lfs pull` in its folder")]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// Weights saved by PyTorch before 1.6, or without its zip container.
    #[error(
        "{path}: weights in the old format of torch.save (no zip file), which is not read; in Python, \
         `torch.save(torch.load(path, weights_only=True), path)` or the model's `save_pretrained` writes it anew"
    )]
    OldPickle {
        /// The file.
        path: PathBuf,
    },
    /// A tensor of a type that cannot be converted to f32.
    #[error(
        "{path}: tensor `{tensor}` is {dtype}, expected f32, f16, bf16 or f64: the weights are quantised; use the model's \
         unquantised ones"
    )]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Its type, as the file calls it.
        dtype: String,
    },
    /// Weights that are codes for numbers.
    #[error("{path}: the weights are quantised ({finding}), which is not read; use the model's unquantised ones")]
    Quantised {
        /// `config.json` or the weights.
        path: PathBuf,
        /// What shows it.
        finding: String,
    },
    /// A folder with an adapter alone.
    #[error(
        "{place}: an adapter (LoRA or another of PEFT's), and no model: merge it into {base} first, in Python with \
         `PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(..)`, and give the folder that this \
         writes"
    )]
    Adapter {
        /// The folder, or the model's name.
        place: String,
        /// The model that the adapter is for.
        base: String,
    },
    /// Weights with an adapter that is not merged into them.
    #[error(
        "{path}: `{tensor}` belongs to an adapter that is not merged into the weights; merge it in Python with \
         `model.merge_and_unload().save_pretrained(..)`, and give the folder that this writes"
    )]
    Unmerged {
        /// The weights.
        path: PathBuf,
        /// A tensor that the adapter wraps.
        tensor: String,
    },
    /// Two shards hold a tensor of one name.
    #[error("{path}: tensor `{tensor}` is in an earlier shard too; copy or download the model again")]
    TensorTwice {
        /// The later file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// `config.json` is not valid JSON.
    #[error("{path}: no JSON: {source}; copy or download the model again")]
    BadJson {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A configuration that is not supported, or that contradicts the weights.
    #[error("{path}: {source}")]
    Model {
        /// `config.json` or the weights.
        path: PathBuf,
        /// What does not fit.
        source: nn::Error,
    },
    /// The head has another number of classes than `config.json` names.
    #[error(
        "{path}: names {expected} classes (`id2label`), and the weights have {found} (`{tensor}`); correct `id2label`, or give the \
         number of classes as `num_labels` and leave the names out"
    )]
    Classes {
        /// `config.json`.
        path: PathBuf,
        /// The head's tensor.
        tensor: String,
        /// Classes of the weights.
        found: usize,
        /// Classes that are named.
        expected: usize,
    },
    /// The checkpoint lacks a parameter of the encoder.
    #[error("{path}: no tensor `{name}`, which config.json asks for; is it a model of that type and number of layers?")]
    MissingTensor {
        /// The weights.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A masked-language model whose output matrix is not tied to its word embeddings.
    #[error(
        "{path}: tensor `{name}` differs from `{original}`; only masked-language models that share the two are read"
    )]
    Untied {
        /// The weights.
        path: PathBuf,
        /// The tensor of the output.
        name: String,
        /// The tensor that it should equal.
        original: String,
    },
    /// The checkpoint has more layers than the configuration.
    #[error("{path}: tensor `{name}` belongs to a layer beyond the {layers} that config.json gives")]
    ExtraLayer {
        /// The weights.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Layers in `config.json`.
        layers: usize,
    },
    /// A layer in the checkpoint has more feed-forward blocks than the configuration.
    #[error("{path}: tensor `{name}` belongs to a feed-forward part beyond the {parts} that config.json gives")]
    ExtraPart {
        /// The weights.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// `num_feedforward_networks` in `config.json`.
        parts: usize,
    },
}
