//! The keys of data, made as a cache's own were: of the tokens that its teacher reads, or of the texts themselves where its
//! answers were imported.

use std::path::Path;

use anyhow::{Context, bail};
use cache::CacheReader;
use datasets::{Key, LabelNames, Row, TextTokenizer, TokenizerFiles, text_key};

use crate::data;
use crate::interrupt;
use crate::jobs::capture::{Source, TOKENIZER};
use crate::recipe::ColumnsRecipe;
use crate::tasks::{Targets, Task};

/// Rows that are read at a time.
const CHUNK_ROWS: usize = 4096;

/// How a cache's rows are named.
pub(crate) enum RowKeys {
    /// By the tokens that its teacher reads.
    Tokens {
        /// The one that the cache keeps.
        tokenizer: Box<TextTokenizer>,
        targets: Targets,
        max_length: usize,
    },
    /// By their texts.
    Texts,
}

impl RowKeys {
    /// As the cache in this folder names its rows.
    pub(crate) fn of(dir: &Path, cache: &CacheReader) -> anyhow::Result<Self> {
        let fingerprint = cache.fingerprint();
        if fingerprint.keyed_by_text() {
            return Ok(Self::Texts);
        }
        let json = cache.attachment(TOKENIZER)?;
        let json = json.with_context(|| format!("{}: keeps no {TOKENIZER} to make keys with", dir.display()))?;
        let files = TokenizerFiles { tokenizer_json: Some(&json), ..TokenizerFiles::default() };
        let tokenizer = TextTokenizer::from_files(&files)?;
        let targets = Task::of_cache(fingerprint).targets(&tokenizer)?;
        Ok(Self::Tokens { tokenizer: Box::new(tokenizer), targets, max_length: fingerprint.max_length })
    }

    /// The keys of rows, in their order.
    pub(crate) fn keys(&self, rows: &[Row]) -> anyhow::Result<Vec<Key>> {
        match self {
            Self::Tokens { tokenizer, targets, max_length } => {
                let encodings = targets.read_by_teacher(tokenizer.encode(rows, *max_length)?);
                Ok((0..encodings.len()).map(|row| encodings.key(row)).collect())
            }
            Self::Texts => Ok(rows.iter().map(text_key).collect()),
        }
    }
}

/// The classes of a cache, in the order of its logits; none where these are of words.
pub(crate) fn class_names(cache: &CacheReader) -> anyhow::Result<Option<LabelNames>> {
    let labels = &cache.fingerprint().labels;
    Ok(if labels.is_empty() { None } else { Some(LabelNames::new(labels.clone())?) })
}

/// Makes the keys of a file's rows.
pub(super) struct Keys {
    rows: RowKeys,
    /// None where labels do not matter.
    names: Option<LabelNames>,
    columns: ColumnsRecipe,
}

impl Keys {
    pub(super) fn new(dir: &Path, reader: &CacheReader, columns: &ColumnsRecipe) -> anyhow::Result<Self> {
        let fingerprint = reader.fingerprint();
        if fingerprint.keyed_by_text() && columns.max_length.is_some() {
            bail!("{}: holds whole texts; leave --max-length out", dir.display());
        }
        if columns.max_length.is_some_and(|asked| asked != fingerprint.max_length) {
            bail!("{}: holds rows of length {}; leave --max-length out", dir.display(), fingerprint.max_length);
        }
        if !columns.label_names.is_empty() && columns.label_names != fingerprint.labels {
            bail!("{}: knows its class names; leave --label-names out", dir.display());
        }
        Ok(Self { rows: RowKeys::of(dir, reader)?, names: class_names(reader)?, columns: columns.clone() })
    }

    /// Calls `then` with the key and the class of each row of a file.
    pub(super) fn each(
        &self,
        data: &Path,
        mut then: impl FnMut(Key, Option<u32>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let source = Source::File { path: data, columns: data::columns_of(&self.columns) };
        source.in_chunks(CHUNK_ROWS, self.names.as_ref(), |rows, labels| {
            interrupt::check()?;
            self.rows.keys(rows)?.into_iter().zip(labels).try_for_each(|(key, label)| then(key, *label))?;
            Ok(true)
        })
    }
}
