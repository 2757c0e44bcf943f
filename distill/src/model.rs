//! A model with its tokenizer: loaded by folder or Hub name, and written as a folder that `transformers` loads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use datasets::TextTokenizer;
use half::{bf16, f16};
use nn::hf::HfConfig;
use nn::{EncoderConfig, Head, Parameters, Slot};
use safetensors::{Dtype, View};
use teacher::{Download, HubOptions, LoadedModel, ModelFiles};

use crate::files::{self, FileError};
use crate::hint::HintExt;
use crate::recipe::ExportDtype;
use crate::telemetry::Progress;
use crate::ui;

/// A model with its configuration and tokenizer, as loaded.
#[derive(Clone)]
pub(crate) struct TextModel {
    pub(crate) config: HfConfig,
    pub(crate) parameters: Parameters,
    pub(crate) tokenizer: TextTokenizer,
    /// Parameters of the head that are not in the checkpoint.
    pub(crate) missing_head: Vec<Slot>,
}

/// The files that [`save`] writes for every tokenizer.
pub(crate) const MODEL_FILES: [&str; 6] =
    [WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"];

/// The name of the weights' file.
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// Finds and loads a model for use with this head, even if the checkpoint does not have it.
pub(crate) fn load_for(name: &str, hub: &HubOptions, head: Head) -> anyhow::Result<TextModel> {
    let files = locate(name, hub)?;
    let loaded = teacher::load_for(&files, head).with_context(|| format!("cannot load the model `{name}`"))?;
    with_tokenizer(name, &files, loaded)
}

/// Finds and loads a model that is to get a classification head; one of another task is left aside, and missing.
pub(crate) fn load_base(name: &str, hub: &HubOptions) -> anyhow::Result<TextModel> {
    let files = locate(name, hub)?;
    let loaded = teacher::load_base(&files).with_context(|| format!("cannot load the model `{name}`"))?;
    if let Some(why) = &loaded.other_head {
        ui::say(format!("the head of {name} is of no use here, and is replaced: {why}"));
    }
    with_tokenizer(name, &files, loaded)
}

fn with_tokenizer(name: &str, files: &ModelFiles, loaded: LoadedModel) -> anyhow::Result<TextModel> {
    if !loaded.unused.is_empty() {
        tracing::debug!("{name}: tensors that the encoder has no use for: {}", loaded.unused.join(", "));
    }
    let tokenizer = load_tokenizer(files, &loaded.config.encoder)?;
    Ok(TextModel { config: loaded.config, parameters: loaded.parameters, tokenizer, missing_head: loaded.missing_head })
}

/// The configuration and tokenizer of a model. Does not read weights; a local folder need not have any.
pub(crate) fn describe(name: &str, hub: &HubOptions) -> anyhow::Result<(HfConfig, TextTokenizer)> {
    describe_by(name, hub, teacher::read_config)
}

/// The same of a model whose classification head is used: refuses one of another task.
pub(crate) fn describe_classifier(name: &str, hub: &HubOptions) -> anyhow::Result<(HfConfig, TextTokenizer)> {
    describe_by(name, hub, |files| teacher::read_config_for(files, Head::Classification))
}

fn describe_by(
    name: &str,
    hub: &HubOptions,
    read: impl FnOnce(&ModelFiles) -> Result<HfConfig, teacher::Error>,
) -> anyhow::Result<(HfConfig, TextTokenizer)> {
    let folder = Path::new(name);
    let files = match folder.is_dir() {
        true => ModelFiles { name: name.to_owned(), config: folder.join("config.json"), ..ModelFiles::default() },
        false => locate(name, hub)?,
    };
    let config = read(&files).with_context(|| format!("cannot load the model `{name}`"))?;
    let tokenizer = load_tokenizer(&files, &config.encoder)?;
    Ok((config, tokenizer))
}

/// Finds a model's files, with a progress bar for each download from the Hub.
fn locate(name: &str, options: &HubOptions) -> anyhow::Result<ModelFiles> {
    let bar: Mutex<Option<(String, u64, Progress)>> = Mutex::new(None);
    let on_download = move |download: &Download| {
        let Ok(mut bar) = bar.lock() else { return };
        if bar.as_ref().is_none_or(|(file, ..)| *file != download.file) {
            let progress = Progress::new(&format!("fetch {}", download.file), download.total_bytes, "bytes");
            *bar = Some((download.file.clone(), 0, progress));
        }
        if let Some((_, done, progress)) = bar.as_mut() {
            progress.inc(download.bytes.saturating_sub(*done));
            *done = download.bytes;
        }
    };
    Ok(teacher::locate_with_progress(name, options, Arc::new(on_download))?)
}

/// Loads a model; an error with the hint `way_out` if it does not have this head, which messages call `what`.
pub(crate) fn load_with_head(
    name: &str,
    hub: &HubOptions,
    head: Head,
    what: &str,
    way_out: String,
) -> anyhow::Result<TextModel> {
    let model = load_for(name, hub, head)?;
    if let Some(&slot) = model.missing_head.first() {
        let tensor = nn::names::hugging_face_name(model.config.encoder.family, slot);
        return Err(anyhow::anyhow!("{name}: no tensor `{tensor}`: the model has no {what} head")).hint(way_out);
    }
    Ok(model)
}

/// The tokenizer of a model; refuses one of another model.
fn load_tokenizer(files: &ModelFiles, encoder: &EncoderConfig) -> anyhow::Result<TextTokenizer> {
    // All files of a model lie side by side, in a local folder as in the Hub's cache.
    let folder = files.config.parent().unwrap_or(Path::new("."));
    let tokenizer = TextTokenizer::from_folder(folder)?;
    let (pieces, rows) = (tokenizer.vocab_size(), encoder.vocab_size);
    if pieces > rows {
        let last = tokenizer.token(pieces as u32 - 1).unwrap_or_default();
        bail!(
            "{}: the tokenizer's ids reach {}, which is `{last}`, and the model has embeddings for {rows} tokens; \
             they do not belong together: copy or download the model again",
            files.name,
            pieces - 1
        );
    }
    // A model that reads segments gets none from transformers where the tokenizer's configuration says so.
    match encoder.type_vocab_size > 0 && !tokenizer.passes_token_types() {
        true => Ok(tokenizer.without_segments()?),
        false => Ok(tokenizer),
    }
}

impl TextModel {
    /// [`max_length`] of this model, or the limit that its tokenizer declares where that is lower and none was asked for.
    pub(crate) fn max_length(&self, asked: Option<usize>) -> anyhow::Result<usize> {
        match (asked, self.tokenizer.model_max_length()) {
            (None, Some(declared)) => Ok(max_length(&self.config.encoder, None)?.min(declared)),
            _ => max_length(&self.config.encoder, asked),
        }
    }

    /// The same where the limit may have been asked of another model: what this one cannot take is as if it were not asked
    /// for, since a student with another tokenizer has a limit of its own.
    pub(crate) fn max_length_up_to(&self, asked: Option<usize>) -> anyhow::Result<usize> {
        self.max_length(asked.filter(|asked| *asked <= self.config.encoder.max_length()))
    }
}

/// Maximum length of a text in tokens: the requested one, else 128 or the model's limit if that is lower.
pub(crate) fn max_length(encoder: &EncoderConfig, asked: Option<usize>) -> anyhow::Result<usize> {
    let limit = encoder.max_length();
    match asked {
        Some(asked) if asked > limit => bail!("--max-length {asked}: the model takes at most {limit} tokens"),
        Some(asked) => Ok(asked),
        None => Ok(limit.min(128)),
    }
}

/// Reports how many texts were truncated.
pub(crate) fn report_truncated(truncated: usize, rows: usize, max_length: usize) {
    if truncated > 0 {
        ui::say(format!(
            "{} of {} rows are longer than {max_length} tokens and were cut; see --max-length",
            ui::count(truncated as u64),
            ui::count(rows as u64)
        ));
    }
}

/// Writes weights, configuration and tokenizer, each file atomically; returns the size of the weights' file in bytes.
pub(crate) fn save(
    folder: &Path,
    config: &HfConfig,
    parameters: &Parameters,
    tokenizer: &TextTokenizer,
    dtype: ExportDtype,
) -> anyhow::Result<u64> {
    fs::create_dir_all(folder).map_err(|source| FileError::writing(folder, source))?;
    let name = match dtype {
        ExportDtype::F32 => "float32",
        ExportDtype::F16 => "float16",
        ExportDtype::Bf16 => "bfloat16",
    };
    let mut json = serde_json::to_string_pretty(&nn::hf::write_config(&config.encoder, &config.labels, name))?;
    json.push('\n');
    files::write_whole(&folder.join("config.json"), json.as_bytes())?;
    let tokenizer = tokenizer.clone().with_model_max_length(config.encoder.max_length());
    let tokenizer = tokenizer.with_token_type_ids(config.encoder.type_vocab_size > 1);
    tokenizer.save(folder)?;
    let tensors = parameters.layout().entries().iter().map(|entry| {
        let values = parameters.get(entry.slot);
        (entry.name.clone(), Tensor { values, shape: &entry.shape, dtype })
    });
    // One key alone: the format's writer does not order several.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(tensors, Some(metadata))?;
    files::write_whole(&folder.join(WEIGHTS), &bytes)?;
    Ok(bytes.len() as u64)
}

/// Size of a model's weights on disk in bytes, over all shards.
pub(crate) fn weights_bytes(name: &str, hub: &HubOptions) -> anyhow::Result<u64> {
    let files = teacher::locate(name, hub)?;
    let sizes = files.weights.iter().map(|path| {
        let metadata = fs::metadata(path).map_err(|source| FileError::Read { path: path.clone(), source })?;
        Ok(metadata.len())
    });
    sizes.sum::<anyhow::Result<u64>>()
}

/// A parameter in the number format of an export.
struct Tensor<'a> {
    values: &'a [f32],
    shape: &'a [usize],
    dtype: ExportDtype,
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            ExportDtype::F32 => Dtype::F32,
            ExportDtype::F16 => Dtype::F16,
            ExportDtype::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.values.iter();
        Cow::Owned(match self.dtype {
            ExportDtype::F32 => values.flat_map(|v| v.to_le_bytes()).collect(),
            ExportDtype::F16 => values.flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            ExportDtype::Bf16 => values.flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        self.values.len() * if self.dtype == ExportDtype::F32 { 4 } else { 2 }
    }
}
