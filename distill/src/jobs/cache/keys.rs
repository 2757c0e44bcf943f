//! The keys of data, made as a cache's own were: of the tokens that its teacher reads, or of the texts themselves where its
//! answers were imported.

use std::path::Path;

use anyhow::{Context, bail};
use cache::{CacheReader, Fingerprint};
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
        let files = TokenizerFiles { tokenizer_json: Some(json.into()), ..TokenizerFiles::default() };
        let tokenizer = TextTokenizer::from_files(&files)?;
        let targets = Task::of_cache(fingerprint).targets(&tokenizer)?;
        Ok(Self::Tokens { tokenizer: Box::new(tokenizer), targets, max_length: fingerprint.max_length })
    }

    /// The keys of rows, in their order, and how many of the rows the teacher cut.
    pub(crate) fn keys(&self, rows: &[Row]) -> anyhow::Result<(Vec<Key>, usize)> {
        match self {
            Self::Tokens { tokenizer, targets, max_length } => {
                let encodings = targets.read_by_teacher(tokenizer.encode(rows, *max_length)?);
                Ok((encodings.keys(), encodings.truncated_count()))
            }
            Self::Texts => Ok((rows.iter().map(text_key).collect(), 0)),
        }
    }
}

/// The classes of a cache, in the order of its logits; none where these are of words.
pub(crate) fn class_names(cache: &CacheReader) -> anyhow::Result<Option<LabelNames>> {
    let labels = &cache.fingerprint().labels;
    Ok(if labels.is_empty() { None } else { Some(LabelNames::new(labels.clone())?) })
}

/// An error if the classes of a cache are to be called otherwise.
pub(crate) fn refuse_other_names(dir: &Path, cached: &Fingerprint, columns: &ColumnsRecipe) -> anyhow::Result<()> {
    if !columns.label_names.is_empty() && columns.label_names != cached.labels {
        bail!("{}: knows its class names; leave --label-names out", dir.display());
    }
    Ok(())
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
        refuse_other_names(dir, fingerprint, columns)?;
        Ok(Self { rows: RowKeys::of(dir, reader)?, names: class_names(reader)?, columns: columns.clone() })
    }

    /// Calls `then` with the key and the class of each row of a file.
    pub(super) fn each(
        &self,
        data: &Path,
        mut then: impl FnMut(Key, Option<u32>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let columns = if self.names.is_some() { data::columns_of } else { data::text_columns_of };
        let source = Source::File { path: data, columns: columns(&self.columns) };
        let label_column = source.in_chunks(CHUNK_ROWS, self.names.as_ref(), |rows, labels| {
            interrupt::check()?;
            self.rows.keys(rows)?.0.into_iter().zip(labels).try_for_each(|(key, label)| then(key, *label))?;
            Ok(true)
        })?;
        data::say_label_column(data, label_column.as_deref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::{CacheWriter, Captured, Dtype, Fingerprint, Masks, NewCache, Preprocessing, Quantity};
    use nn::Compute;
    use tempfile::TempDir;

    fn tokenizer_json() -> Vec<u8> {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/e2e/teacher/tokenizer.json");
        std::fs::read(fixture).expect("the fixture is there")
    }

    /// An empty cache of classes, which keeps this tokenizer.
    fn cache(preprocessing: Preprocessing, max_length: usize, tokenizer: Option<&[u8]>) -> (TempDir, CacheReader) {
        let precision = Compute::Cpu.precision().to_string();
        let labels = vec!["yes".to_owned(), "no".to_owned()];
        let captured = Captured::dense(labels.len(), Dtype::F32);
        let of_answers = crate::fingerprint::of_imported(String::new(), labels, Quantity::Logits, captured);
        let fingerprint = Fingerprint { preprocessing, max_length, precision, ..of_answers };
        let folder = tempfile::tempdir().expect("a folder");
        let attachments: Vec<(&str, &[u8])> = tokenizer.iter().map(|json| (TOKENIZER, *json)).collect();
        let new = NewCache { fingerprint: &fingerprint, batch_tokens: 64, attachments: &attachments };
        drop(CacheWriter::create_or_resume(folder.path(), &new).expect("a cache"));
        let reader = CacheReader::open(folder.path(), None).expect("opens");
        (folder, reader)
    }

    fn rows() -> Vec<Row> {
        let row = |text: &str, text_b: Option<&str>| Row {
            text: text.to_owned(),
            text_b: text_b.map(str::to_owned),
            label: None,
            line: 1,
        };
        vec![row("the bread is fresh", None), row("The  bread is fresh", None), row("a train", Some("is late"))]
    }

    #[test]
    fn keys_of_a_captured_cache_are_of_its_teacher_s_tokens_at_its_length() {
        let json = tokenizer_json();
        let files = TokenizerFiles { tokenizer_json: Some(json.clone().into()), ..TokenizerFiles::default() };
        let tokenizer = TextTokenizer::from_files(&files).expect("a tokenizer");
        for max_length in [4, 32] {
            let (folder, reader) = cache(Preprocessing::none(), max_length, Some(&json));
            let keys = RowKeys::of(folder.path(), &reader).and_then(|keys| keys.keys(&rows())).expect("keys").0;
            let encodings = tokenizer.encode(&rows(), max_length).expect("encodes");
            assert_eq!(keys, (0..3).map(|row| encodings.key(row)).collect::<Vec<_>>());
            // What the tokenizer cannot tell apart has one key.
            assert_eq!(keys[0], keys[1]);
        }
    }

    #[test]
    fn keys_of_masked_rows_are_of_the_masked_tokens() {
        let json = tokenizer_json();
        let masks = Preprocessing::Masked { masked: Masks { probability: 0.5, seed: 3 } };
        let keys = |preprocessing| {
            let (folder, reader) = cache(preprocessing, 32, Some(&json));
            RowKeys::of(folder.path(), &reader).and_then(|keys| keys.keys(&rows())).expect("keys").0
        };
        assert_ne!(keys(masks.clone()), keys(Preprocessing::none()));
        assert_eq!(keys(masks.clone()), keys(masks));
    }

    #[test]
    fn keys_of_imported_answers_are_of_the_texts_and_need_no_tokenizer() {
        let (folder, reader) = cache(Preprocessing::Imported { imported: Quantity::Logits }, 0, None);
        let keys = RowKeys::of(folder.path(), &reader).and_then(|keys| keys.keys(&rows())).expect("keys").0;
        assert_eq!(keys, rows().iter().map(text_key).collect::<Vec<_>>());
        assert_ne!(keys[0], keys[1]);
        let names = class_names(&reader).expect("names").expect("classes");
        assert_eq!(names.names(), ["yes", "no"]);
    }

    #[test]
    fn a_captured_cache_without_its_tokenizer_is_named() {
        let (folder, reader) = cache(Preprocessing::none(), 32, None);
        let error = RowKeys::of(folder.path(), &reader).err().expect("refused").to_string();
        assert!(error.contains("keeps no tokenizer.json to make keys with"), "{error}");
    }
}
