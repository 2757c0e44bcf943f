//! The keys of data, made as a cache's own were.

use std::path::Path;

use anyhow::{Context, bail};
use cache::CacheReader;
use datasets::{Key, LabelNames, TextTokenizer, TokenizerFiles};

use crate::data;
use crate::interrupt;
use crate::jobs::capture::{Source, TOKENIZER, Windows};
use crate::recipe::ColumnsRecipe;
use crate::tasks::{Targets, Task};

/// Makes the keys of data with the tokenizer that a cache keeps.
pub(super) struct Keys {
    tokenizer: TextTokenizer,
    /// None where labels do not matter.
    names: Option<LabelNames>,
    targets: Targets,
    columns: ColumnsRecipe,
    max_length: usize,
    batch_tokens: usize,
}

impl Keys {
    pub(super) fn new(dir: &Path, reader: &CacheReader, columns: &ColumnsRecipe) -> anyhow::Result<Self> {
        let fingerprint = reader.fingerprint();
        if columns.max_length.is_some_and(|asked| asked != fingerprint.max_length) {
            bail!("{}: holds rows of length {}; leave --max-length out", dir.display(), fingerprint.max_length);
        }
        if !columns.label_names.is_empty() && columns.label_names != fingerprint.labels {
            bail!("{}: knows its class names; leave --label-names out", dir.display());
        }
        let json = reader.attachment(TOKENIZER)?;
        let json = json.with_context(|| format!("{}: keeps no {TOKENIZER} to make keys with", dir.display()))?;
        let files = TokenizerFiles { tokenizer_json: Some(json.into()), ..TokenizerFiles::default() };
        let tokenizer = TextTokenizer::from_files(&files)?;
        let targets = Task::of_cache(fingerprint).targets(&tokenizer)?;
        let labels = &fingerprint.labels;
        Ok(Self {
            tokenizer,
            names: if labels.is_empty() { None } else { Some(LabelNames::new(labels.clone())?) },
            targets,
            columns: columns.clone(),
            max_length: fingerprint.max_length,
            batch_tokens: reader.batch_tokens(),
        })
    }

    /// Calls `then` with the key and the class of each row of a file.
    pub(super) fn each(
        &self,
        data: &Path,
        mut then: impl FnMut(Key, Option<u32>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let source = Source::File { path: data, columns: data::columns_of(&self.columns) };
        let windows = Windows {
            source: &source,
            tokenizer: &self.tokenizer,
            names: self.names.as_ref(),
            targets: &self.targets,
            max_length: self.max_length,
            batch_tokens: self.batch_tokens,
        };
        let mut result = Ok(());
        windows.each(|window| {
            result = interrupt::check()
                .map_err(anyhow::Error::new)
                .and_then(|()| window.keys.iter().zip(&window.labels).try_for_each(|(key, label)| then(*key, *label)));
            result.is_ok()
        })?;
        result
    }
}
