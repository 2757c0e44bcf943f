//! Caches to test with: every form of storage, rows that anybody can compute again, folders as maps of bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cache::{
    CacheReader, CacheWriter, Captured, Dtype, Fingerprint, HiddenStates, HiddenTokens, Key, LogitForm, NewCache,
    NewRow, Outputs, StoredRow, verify,
};

pub(crate) const TOKENIZER: &[u8] = b"{\"version\": \"1.0\"}";

pub(crate) fn dense(dtype: Dtype) -> Captured {
    Captured::dense(5, dtype)
}

pub(crate) fn top_k(dtype: Dtype) -> Captured {
    let logits = LogitForm::TopK { k: 3, dtype, temperatures: vec![1.0, 2.0, 3.0] };
    Captured { width: 11, outputs: Outputs::Row, logits, hidden_states: None }
}

pub(crate) fn sample() -> Captured {
    let logits = LogitForm::Sample { draws: 6, temperature: 2.0, seed: 7 };
    Captured { width: 11, outputs: Outputs::Row, logits, hidden_states: None }
}

pub(crate) fn of_tokens(captured: Captured) -> Captured {
    Captured { outputs: Outputs::Token, ..captured }
}

pub(crate) fn with_hidden(captured: Captured, tokens: HiddenTokens) -> Captured {
    Captured { hidden_states: Some(HiddenStates { layers: vec![0, 2], tokens, width: 4 }), ..captured }
}

/// Every form of storage, by name.
pub(crate) fn forms() -> Vec<(&'static str, Captured)> {
    let wide = LogitForm::TopK { k: 2, dtype: Dtype::F32, temperatures: vec![1.0] };
    vec![
        ("f32", dense(Dtype::F32)),
        ("f16", dense(Dtype::F16)),
        ("bf16", dense(Dtype::Bf16)),
        ("f32 of tokens", of_tokens(dense(Dtype::F32))),
        ("f16 of tokens", of_tokens(dense(Dtype::F16))),
        ("bf16 of tokens", of_tokens(dense(Dtype::Bf16))),
        ("top_k", top_k(Dtype::F32)),
        ("top_k of tokens", of_tokens(top_k(Dtype::F16))),
        ("top_k in bf16", top_k(Dtype::Bf16)),
        (
            "top_k of a wide output",
            Captured { width: 70_000, outputs: Outputs::Row, logits: wide, hidden_states: None },
        ),
        ("sample", sample()),
        ("sample of tokens", of_tokens(sample())),
        ("first hidden", with_hidden(dense(Dtype::F16), HiddenTokens::First)),
        ("all hidden", with_hidden(dense(Dtype::F32), HiddenTokens::All)),
        ("top_k of tokens, all hidden", with_hidden(of_tokens(top_k(Dtype::F16)), HiddenTokens::All)),
        ("sample of tokens, first hidden", with_hidden(of_tokens(sample()), HiddenTokens::First)),
    ]
}

pub(crate) fn fingerprint(captured: &Captured) -> Fingerprint {
    let named = |name: &str| (0..captured.width.min(20)).map(|i| format!("{name} {i}")).collect::<Vec<_>>();
    Fingerprint {
        teacher: "weights".to_owned(),
        head: if captured.width <= 20 { named("row") } else { Vec::new() },
        config: "config".to_owned(),
        tokenizer: "tokenizer".to_owned(),
        labels: if captured.width <= 20 { named("label") } else { Vec::new() },
        max_length: 128,
        preprocessing: cache::Preprocessing::none(),
        task: "single_label".to_owned(),
        precision: "f32".to_owned(),
        captured: captured.clone(),
        average: None,
    }
}

/// Keys in no order, so that they fall into many buckets.
pub(crate) fn key(n: u64) -> Key {
    let mut state = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (u128::from(state ^ (state >> 27)) << 64 | u128::from(n)).to_be_bytes()
}

/// What a teacher says of text `n`.
pub(crate) struct Given {
    pub(crate) key: Key,
    pub(crate) logits: Vec<f32>,
    pub(crate) hidden: Vec<f32>,
    pub(crate) outputs: usize,
    pub(crate) hidden_tokens: usize,
}

pub(crate) fn given(n: u64, captured: &Captured) -> Given {
    let outputs = if captured.outputs == Outputs::Row { 1 } else { 1 + n as usize % 4 };
    let value = |i: usize| ((n as usize * 131 + i * 7919 + i * i) % 2003) as f32 / 97.0 - 10.0;
    let logits = (0..outputs * captured.width).map(value).collect();
    let (mut hidden, mut hidden_tokens) = (Vec::new(), 0);
    if let Some(form) = &captured.hidden_states {
        hidden_tokens = match (form.tokens, captured.outputs) {
            (HiddenTokens::First, _) => 1,
            (HiddenTokens::All, Outputs::Token) => outputs,
            (HiddenTokens::All, Outputs::Row) => 1 + n as usize % 3,
        };
        hidden = (0..form.layers.len() * hidden_tokens * form.width).map(|i| value(i + 17) / 3.0).collect();
    }
    Given { key: key(n), logits, hidden, outputs, hidden_tokens }
}

impl Given {
    pub(crate) fn row(&self) -> NewRow<'_> {
        NewRow { key: self.key, logits: (&self.logits).into(), hidden_states: &self.hidden }
    }
}

pub(crate) fn writer(dir: &Path, captured: &Captured) -> CacheWriter {
    writer_for(dir, &fingerprint(captured))
}

pub(crate) fn writer_for(dir: &Path, fingerprint: &Fingerprint) -> CacheWriter {
    CacheWriter::create_or_resume(dir, &new_cache(fingerprint)).unwrap()
}

pub(crate) fn new_cache(fingerprint: &Fingerprint) -> NewCache<'_> {
    NewCache { fingerprint, batch_tokens: 512, attachments: &[("tokenizer.json", TOKENIZER)] }
}

pub(crate) fn push(writer: &mut CacheWriter, rows: impl IntoIterator<Item = u64>) -> usize {
    let captured = writer.reader().captured().clone();
    let given: Vec<Given> = rows.into_iter().map(|n| given(n, &captured)).collect();
    let rows: Vec<NewRow<'_>> = given.iter().map(Given::row).collect();
    writer.push(&rows).unwrap()
}

/// A writer that has committed these rows as one shard.
pub(crate) fn fill(dir: &Path, captured: &Captured, rows: impl IntoIterator<Item = u64>) -> CacheWriter {
    let mut writer = writer(dir, captured);
    push(&mut writer, rows);
    writer.commit().unwrap();
    writer
}

pub(crate) fn open(dir: &Path) -> CacheReader {
    CacheReader::open(dir, None).unwrap()
}

/// A row's bytes, however they are stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bytes {
    outputs: usize,
    logits: Vec<u32>,
    indices: Vec<u32>,
    tails: Vec<u32>,
    hidden: Option<Vec<u32>>,
}

pub(crate) fn bytes(row: &StoredRow<'_>, hidden_tokens: usize) -> Bytes {
    Bytes {
        outputs: row.outputs(),
        logits: row.logits().map(f32::to_bits).collect(),
        indices: row.indices().collect(),
        tails: row.tails().map(f32::to_bits).collect(),
        hidden: row.hidden_states(hidden_tokens).map(|values| values.into_iter().map(f32::to_bits).collect()),
    }
}

/// All rows of a sound cache of [`given`] rows.
pub(crate) fn all(dir: &Path, rows: impl IntoIterator<Item = u64>) -> BTreeMap<u64, Bytes> {
    let reader = open(dir);
    let row = |n| {
        let given = given(n, reader.captured());
        (n, bytes(&reader.get(&given.key).unwrap().unwrap(), given.hidden_tokens))
    };
    rows.into_iter().map(row).collect()
}

pub(crate) fn keys(dir: &Path) -> Vec<Key> {
    let reader = open(dir);
    reader.rows().map(|entry| entry.unwrap().0).collect()
}

pub(crate) fn assert_sound(dir: &Path) {
    let found = verify(dir).unwrap();
    assert!(found.damage.is_empty(), "{:?}", found.damage);
    assert_eq!(found.rows as usize, keys(dir).len());
}

/// The files of a folder and their bytes.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn files(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// A folder with these files.
pub(crate) fn restore(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}
