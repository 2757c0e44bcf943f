//! Files whose checksums are right and whose content is not: errors that name the file, no panic and no wrong row.

use std::fs;
use std::path::Path;

use cache::{CacheReader, CacheWriter, Captured, Dtype, HiddenTokens, verify};
use safetensors::Dtype as TensorType;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::*;

type Tensor<'a> = (&'a str, TensorType, Vec<usize>, Vec<u8>);
type Entry = (cache::Key, u32);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Edits the manifest and seals it anew.
fn reseal(dir: &Path, edit: impl Fn(&mut Value)) {
    let path = dir.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    let fields = manifest.as_object_mut().unwrap();
    fields.shift_remove("seals");
    let mut seals = serde_json::Map::new();
    for (name, value) in &*fields {
        let inner = value.as_object().filter(|_| name == "fingerprint");
        let parts = inner.map(|inner| inner.iter().map(|(part, value)| (format!("{name}.{part}"), value)).collect());
        for (name, value) in parts.unwrap_or_else(|| vec![(name.clone(), value)]) {
            seals.insert(name, hex(&Sha256::digest(value.to_string()))[..16].into());
        }
    }
    fields.insert("seals".to_owned(), seals.into());
    fs::write(&path, serde_json::to_string_pretty(&manifest).unwrap() + "\n").unwrap();
}

/// Writes a container and lists it in the manifest in the place of the one of that name.
fn put(dir: &Path, list: &str, position: usize, rows: Option<u32>, tensors: &[Tensor<'_>]) {
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.3.clone()).collect();
    let checksums: Vec<u8> = data.chunks(16_384).flat_map(|block| crc32fast::hash(block).to_le_bytes()).collect();
    let blocks = ("checksums", TensorType::U32, vec![checksums.len() / 4], checksums.clone());
    put_raw(dir, list, position, rows, &[tensors, &[blocks]].concat(), &checksums);
}

fn put_raw(dir: &Path, list: &str, position: usize, rows: Option<u32>, tensors: &[Tensor<'_>], checksums: &[u8]) {
    let mut header = serde_json::Map::new();
    let mut start = 0;
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [start, start + bytes.len()];
        header.insert((*name).to_owned(), json!({"dtype": dtype.to_string(), "shape": shape, "data_offsets": offsets}));
        start += bytes.len();
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let header = [(header.len() as u64).to_le_bytes().to_vec(), header].concat();
    let mut bytes = header.clone();
    tensors.iter().for_each(|tensor| bytes.extend(&tensor.3));
    let checksum = hex(&Sha256::digest([header.as_slice(), checksums].concat()));
    reseal(dir, |manifest| {
        let entry = &mut manifest[list][position];
        (entry["checksum"], entry["bytes"]) = (checksum.clone().into(), bytes.len().into());
        if let Some(rows) = rows {
            entry["rows"] = rows.into();
        }
        fs::write(dir.join(entry["file"].as_str().unwrap()), &bytes).unwrap();
    });
}

/// Opening, reading every row and checking end in an error with these words, and not in a panic or a wrong row.
fn refused(dir: &Path, words: &str) {
    let read = CacheReader::open(dir, None).and_then(|reader| {
        for n in 0..4 {
            reader.get(&key(n))?;
        }
        reader.rows().try_for_each(|row| row.map(drop))
    });
    if let Err(error) = read {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    let damage = verify(dir).unwrap().damage;
    assert!(!damage.is_empty() && damage[0].to_string().contains(words), "{words}: {damage:?}");
}

fn cache_of(captured: &Captured) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), captured, 0..4));
    dir
}

fn u64s(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(count: usize) -> Vec<u8> {
    vec![0; 4 * count]
}

#[test]
fn a_container_made_here_is_read() {
    let dir = cache_of(&dense(Dtype::F32));
    let logits: Vec<u8> = (0..20).flat_map(|n| (n as f32).to_le_bytes()).collect();
    put(dir.path(), "shards", 0, None, &[("logits", TensorType::F32, vec![4, 5], logits)]);
    assert_sound(dir.path());
    assert_eq!(open(dir.path()).get(&key(1)).unwrap().unwrap().f32().unwrap(), [5.0, 6.0, 7.0, 8.0, 9.0]);
}

#[test]
fn shards_of_other_shapes() {
    let shapes: [(&str, TensorType, Vec<usize>, Vec<u8>); 6] = [
        ("logits", TensorType::F32, vec![], floats(1)),
        ("logits", TensorType::F32, vec![20], floats(20)),
        ("logits", TensorType::F32, vec![5, 4], floats(20)),
        ("logits", TensorType::F32, vec![4, 5, 1], floats(20)),
        ("logits", TensorType::F16, vec![4, 5], vec![0; 40]),
        ("answers", TensorType::F32, vec![4, 5], floats(20)),
    ];
    for tensor in shapes {
        let dir = cache_of(&dense(Dtype::F32));
        put(dir.path(), "shards", 0, None, &[tensor]);
        refused(dir.path(), "shard-00000.safetensors: ");
    }
    let dir = cache_of(&dense(Dtype::F32));
    put(dir.path(), "shards", 0, None, &[]);
    refused(dir.path(), "no tensor `logits`");
}

#[test]
fn starts_that_lead_astray() {
    for starts in [[0, 1, 2, 3, 5], [0, 3, 2, 3, 4], [u64::MAX, 1, 2, 3, 4], [0, 1, 2, 3, u64::MAX], [4, 3, 2, 1, 0]] {
        let dir = cache_of(&of_tokens(dense(Dtype::F32)));
        let tensors =
            [("starts", TensorType::U64, vec![5], u64s(&starts)), ("logits", TensorType::F32, vec![4, 5], floats(20))];
        put(dir.path(), "shards", 0, None, &tensors);
        refused(dir.path(), "shard-00000.safetensors: row ");
    }
}

#[test]
fn hidden_states_that_are_none() {
    let captured = with_hidden(dense(Dtype::F32), HiddenTokens::First);
    let parts = |starts: &[u64], shape: Vec<usize>, frames: usize| {
        [
            ("hidden_starts", TensorType::U64, vec![5], u64s(starts)),
            ("logits", TensorType::F32, vec![4, 5], floats(20)),
            ("hidden_states", TensorType::U8, shape, vec![0; frames]),
        ]
    };
    for tensors in [
        parts(&[0, 1, 2, 3, 4], vec![2, 2], 4),
        parts(&[0, 1, 2, 3, 4], vec![], 1),
        parts(&[0, 1, 2, 3, 9], vec![4], 4),
        parts(&[0, 9, 2, 3, 4], vec![4], 4),
    ] {
        let dir = cache_of(&captured);
        put(dir.path(), "shards", 0, None, &tensors);
        refused(dir.path(), "shard-00000.safetensors: ");
    }
    // Bytes that are no frame: no values, and no panic.
    let dir = cache_of(&captured);
    put(dir.path(), "shards", 0, None, &parts(&[0, 1, 2, 3, 4], vec![4], 4));
    let reader = open(dir.path());
    assert_eq!(reader.get(&key(0)).unwrap().unwrap().hidden_states(1), None);
    assert_eq!(reader.get(&key(0)).unwrap().unwrap().hidden_states(usize::MAX / 8), None);
}

/// An index of these entries.
fn index(dir: &Path, entries: &[Entry], buckets: &[u32]) {
    let bytes: Vec<u8> = entries.iter().flat_map(|(key, row)| [&key[..], &row.to_le_bytes()].concat()).collect();
    let buckets: Vec<u8> = buckets.iter().flat_map(|start| start.to_le_bytes()).collect();
    let tensors = [
        ("entries", TensorType::U8, vec![entries.len(), 20], bytes),
        ("buckets", TensorType::U32, vec![buckets.len() / 4], buckets),
    ];
    put(dir, "indexes", 0, None, &tensors);
}

fn sorted() -> Vec<Entry> {
    let mut entries: Vec<_> = (0..4).map(|n| (key(n), n as u32)).collect();
    entries.sort_unstable();
    entries
}

#[test]
fn indexes_that_lead_astray() {
    type Edit = fn(&mut Vec<Entry>);
    let cases: [(&str, Edit, &[u32]); 8] = [
        ("leads to row 4, which no shard holds", |entries| entries[3].1 = 4, &[0, 4]),
        ("leads to row 4294967295, which no shard holds", |entries| entries[0].1 = u32::MAX, &[0, 4]),
        ("two keys lead to row", |entries| entries[0].1 = entries[1].1, &[0, 4]),
        ("key 2 is not above the key before it", |entries| entries.swap(1, 2), &[0, 4]),
        ("key 1 is not above the key before it", |entries| entries[1].0 = entries[0].0, &[0, 4]),
        ("its buckets do not hold its keys", |_| {}, &[0, 3]),
        ("its buckets do not hold its keys", |_| {}, &[5, 4]),
        ("its buckets do not hold its keys", |_| {}, &[0, 5]),
    ];
    for (words, edit, buckets) in cases {
        let dir = cache_of(&dense(Dtype::F32));
        let mut entries = sorted();
        edit(&mut entries);
        index(dir.path(), &entries, buckets);
        let damage = verify(dir.path()).unwrap().damage;
        let message = damage[0].to_string();
        assert!(message.contains("index-00000.safetensors: "), "{words}: {message}");
        assert!(message.contains(words), "{words}: {message}");
        // Whatever is found, it is no panic.
        let reader = open(dir.path());
        (0..5).for_each(|n| drop(reader.get(&key(n)).map(|row| row.map(|row| row.outputs()))));
    }
    for (entries, buckets) in [(3, 2), (4, 3)] {
        let dir = cache_of(&dense(Dtype::F32));
        index(dir.path(), &sorted()[..entries], &vec![0; buckets]);
        refused(dir.path(), "index-00000.safetensors: tensor ");
    }
}

#[test]
fn a_key_in_two_indexes_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = fill(dir.path(), &dense(Dtype::F32), 0..8);
    push(&mut writer, 8..10);
    writer.commit().unwrap();
    drop(writer);
    let mut entries = [(key(3), 8), (key(9), 9)];
    entries.sort_unstable();
    let bytes: Vec<u8> =
        entries.iter().flat_map(|(key, row): &(_, u32)| [&key[..], &row.to_le_bytes()].concat()).collect();
    let buckets = [0_u32, 2].iter().flat_map(|start| start.to_le_bytes()).collect();
    let tensors = [("entries", TensorType::U8, vec![2, 20], bytes), ("buckets", TensorType::U32, vec![2], buckets)];
    put(dir.path(), "indexes", 1, None, &tensors);
    let damage = verify(dir.path()).unwrap().damage;
    assert!(damage[0].to_string().contains(&cache::key_hex(&key(3))), "{damage:?}");
    assert!(damage[0].to_string().contains("index-00001.safetensors"), "{damage:?}");
}

#[test]
fn containers_without_their_checksums() {
    let logits = || ("logits", TensorType::F32, vec![4, 5], floats(20));
    let crc = crc32fast::hash(&floats(20)).to_le_bytes().to_vec();
    let checksums = |dtype, shape: &[usize], bytes: &[u8]| ("checksums", dtype, shape.to_vec(), bytes.to_vec());
    for (tensors, hashed) in [
        (vec![logits()], vec![]),
        (vec![checksums(TensorType::U32, &[1], &crc), logits()], crc.clone()),
        (vec![logits(), checksums(TensorType::F32, &[1], &crc)], crc.clone()),
        (vec![logits(), checksums(TensorType::U32, &[2], &[crc.clone(), crc.clone()].concat())], crc.repeat(2)),
        (vec![logits(), checksums(TensorType::U32, &[0], &[])], vec![]),
    ] {
        let dir = cache_of(&dense(Dtype::F32));
        put_raw(dir.path(), "shards", 0, None, &tensors, &hashed);
        refused(dir.path(), "shard-00000.safetensors: no last tensor `checksums`");
    }
}

#[test]
fn manifests_that_do_not_add_up() {
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit); 12] = [
        ("`rows` is 5", |manifest| manifest["rows"] = 5.into()),
        ("`rows` is 4, field `indexes` has 3 keys", |manifest| manifest["indexes"][0]["rows"] = 3.into()),
        ("`shards` has 3 rows", |manifest| manifest["shards"][0]["rows"] = 3.into()),
        ("`shards`", |manifest| {
            let mut more = manifest["shards"][0].clone();
            (more["file"], more["rows"]) = ("shard-00001.safetensors".into(), u32::MAX.into());
            manifest["shards"].as_array_mut().unwrap().push(more);
        }),
        ("`shards` names `../shard-00000.safetensors`", |manifest| {
            manifest["shards"][0]["file"] = "../shard-00000.safetensors".into();
        }),
        ("`shards` names `shard-4294967295.safetensors`", |manifest| {
            manifest["shards"][0]["file"] = "shard-4294967295.safetensors".into();
        }),
        ("`indexes` names `shard-00000.safetensors`", |manifest| {
            manifest["indexes"][0]["file"] = "shard-00000.safetensors".into();
        }),
        ("`attachments` names `manifest.json`", |manifest| manifest["attachments"][0]["file"] = "manifest.json".into()),
        ("`attachments` names `tokenizer.json` twice", |manifest| {
            let entry = manifest["attachments"][0].clone();
            manifest["attachments"].as_array_mut().unwrap().push(entry);
        }),
        ("`fingerprint.captured` says 0 logits", |manifest| manifest["fingerprint"]["captured"]["width"] = 0.into()),
        ("colour", |manifest| manifest["colour"] = 1.into()),
        ("invalid type", |manifest| manifest["rows"] = "four".into()),
    ];
    for (words, edit) in cases {
        let dir = cache_of(&dense(Dtype::F32));
        reseal(dir.path(), edit);
        refused(dir.path(), words);
        assert!(CacheReader::open(dir.path(), None).is_err(), "{words}");
    }
    let dir = cache_of(&dense(Dtype::F32));
    reseal(dir.path(), |_| {});
    assert_sound(dir.path());
}

#[test]
fn an_index_beyond_the_logits_is_refused_when_columns_move() {
    let dir = cache_of(&sample());
    let indices: Vec<u8> = (0..24_u16).flat_map(|index| index.to_le_bytes()).collect();
    put(dir.path(), "shards", 0, None, &[("indices", TensorType::U16, vec![4, 6], indices)]);
    let mut turned = fingerprint(&sample());
    turned.head.reverse();
    let error = CacheWriter::refresh(dir.path(), &new_cache(&turned)).err().unwrap();
    assert!(error.to_string().contains(" of 11 logits"), "{error}");
}
