//! A cache from outside: what was put in comes out, after any kill, and whatever is wrong is refused by name.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cache::{CacheReader, CacheWriter, Error, Fingerprint, Key, Push};
use proptest::prelude::*;

const WIDTH: usize = 3;

#[test]
fn rows_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    for n in 0..100 {
        assert_eq!(writer.push(key(n), &row(n)).unwrap(), Push::Added);
    }
    assert_eq!((writer.rows(), writer.pending()), (0, 100));
    writer.commit().unwrap();
    assert_eq!((writer.rows(), writer.pending()), (100, 0));
    let reader = CacheReader::open(dir.path(), Some(&fingerprint())).unwrap();
    assert_eq!((reader.len(), reader.width(), reader.bytes()), (100, WIDTH, writer.bytes()));
    assert_eq!(reader.fingerprint(), &fingerprint());
    for n in 0..100 {
        assert_eq!(reader.get(&key(n)), Some(&row(n)[..]));
    }
    assert_eq!(reader.get(&key(100)), None);
}

#[test]
fn an_empty_cache_is_a_cache() {
    let dir = tempfile::tempdir().unwrap();
    writer(dir.path()).commit().unwrap();
    assert!(CacheReader::open(dir.path(), Some(&fingerprint())).unwrap().is_empty());
}

#[test]
fn a_cache_in_a_folder_to_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/b");
    fill(&dir, 0..3);
    assert_eq!(CacheReader::open(&dir, None).unwrap().len(), 3);
}

#[test]
fn the_first_row_of_a_key_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    writer.push(key(1), &row(1)).unwrap();
    assert_eq!(writer.push(key(1), &row(2)).unwrap(), Push::Known);
    writer.commit().unwrap();
    assert_eq!(writer.push(key(1), &row(2)).unwrap(), Push::Known);
    writer.commit().unwrap();
    let reader = CacheReader::open(dir.path(), None).unwrap();
    assert_eq!((reader.len(), reader.get(&key(1))), (1, Some(&row(1)[..])));
}

#[test]
fn many_threads_share_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..1000);
    let reader = CacheReader::open(dir.path(), None).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let reader = &reader;
            scope
                .spawn(move || (thread * 250..(thread + 1) * 250).for_each(|n| assert!(reader.get(&key(n)).is_some())));
        }
    });
}

#[test]
fn a_reader_keeps_to_the_manifest_it_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = fill(dir.path(), 0..2);
    let reader = CacheReader::open(dir.path(), None).unwrap();
    writer.push(key(5), &row(5)).unwrap();
    writer.commit().unwrap();
    assert_eq!(reader.get(&key(5)), None);
    assert_eq!(CacheReader::open(dir.path(), None).unwrap().get(&key(5)), Some(&row(5)[..]));
}

// What a kill leaves behind.

#[test]
fn rows_not_committed_are_all_that_a_kill_costs() {
    let dir = tempfile::tempdir().unwrap();
    let mut killed = fill(dir.path(), 0..4);
    killed.push(key(4), &row(4)).unwrap();
    drop(killed);
    let mut writer = writer(dir.path());
    assert_eq!(writer.rows(), 4);
    assert!(writer.contains(&key(3)) && !writer.contains(&key(4)));
    writer.push(key(4), &row(4)).unwrap();
    writer.commit().unwrap();
    assert_eq!(CacheReader::open(dir.path(), None).unwrap().len(), 5);
}

#[test]
fn leftovers_are_ignored_by_readers_and_removed_by_the_next_writer() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), 0..4));
    let half_written = dir.path().join(".tmp-abc123");
    fs::write(&half_written, b"half").unwrap();
    let uncounted = dir.path().join("shard-00001.safetensors");
    fs::copy(shard(dir.path(), 0), &uncounted).unwrap();
    assert_eq!(CacheReader::open(dir.path(), None).unwrap().len(), 4);
    drop(fill(dir.path(), 4..5));
    assert!(!half_written.exists());
    assert_eq!(CacheReader::open(dir.path(), None).unwrap().len(), 5);
}

#[test]
fn a_kill_before_the_first_manifest_leaves_a_folder_to_start_in() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".tmp-abc123"), b"{").unwrap();
    fs::write(dir.path().join(".lock"), b"").unwrap();
    assert_eq!(fill(dir.path(), 0..2).rows(), 2);
}

// Refusals.

#[test]
fn every_field_of_the_fingerprint_is_held() {
    type Change = fn(&mut Fingerprint);
    let changes: [(&str, Change); 8] = [
        ("teacher", |f| f.teacher = "other".to_owned()),
        ("config", |f| f.config = "other".to_owned()),
        ("tokenizer", |f| f.tokenizer = "other".to_owned()),
        ("labels", |f| f.labels.swap(0, 2)),
        ("max_length", |f| f.max_length = 64),
        ("preprocessing", |f| f.preprocessing = "other".to_owned()),
        ("task", |f| f.task = "other".to_owned()),
        ("captured", |f| f.captured = "other".to_owned()),
    ];
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), 0..2));
    for (field, change) in changes {
        let mut other = fingerprint();
        change(&mut other);
        assert_eq!(fingerprint().difference(&other).unwrap().field, field);
        for error in [
            CacheReader::open(dir.path(), Some(&other)).err().unwrap(),
            CacheWriter::create_or_resume(dir.path(), &other, WIDTH).err().unwrap(),
        ] {
            assert!(matches!(&error, Error::Fingerprint { difference, .. } if difference.field == field), "{error}");
        }
    }
    assert_eq!(fingerprint().difference(&fingerprint()), None);
    assert_eq!(CacheReader::open(dir.path(), Some(&fingerprint())).unwrap().len(), 2);
}

#[test]
fn the_label_that_differs_is_named() {
    let mut other = fingerprint();
    other.labels[1] = "cancel".to_owned();
    let difference = fingerprint().difference(&other).unwrap();
    assert_eq!(difference.to_string(), "its labels is `refund` as label 1, asked for is `cancel` as label 1");
    other.labels.pop();
    let difference = fingerprint().difference(&other).unwrap();
    assert_eq!((difference.found.as_str(), difference.expected.as_str()), ("3 labels", "2 labels"));
}

#[test]
fn another_width_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), 0..2));
    let error = CacheWriter::create_or_resume(dir.path(), &fingerprint(), WIDTH + 1).err().unwrap();
    assert!(matches!(&error, Error::Fingerprint { difference, .. } if difference.field == "width"), "{error}");
}

#[test]
fn a_second_writer_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = writer(dir.path());
    first.push(key(0), &row(0)).unwrap();
    let second = CacheWriter::create_or_resume(dir.path(), &fingerprint(), WIDTH);
    assert!(matches!(second.err().unwrap(), Error::Busy { .. }));
    first.commit().unwrap();
    drop(first);
    assert_eq!(writer(dir.path()).rows(), 1);
}

#[test]
fn a_logit_that_is_no_number_is_refused_with_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = writer.push(key(258), &[0.0, value, 0.0]).unwrap_err();
        assert!(matches!(error, Error::NotFinite { position: 1, .. }));
        assert!(error.to_string().contains("00000000000000000000000000000102"), "{error}");
    }
    assert!(!writer.contains(&key(258)));
}

#[test]
fn a_row_of_another_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = writer(dir.path()).push(key(0), &[1.0]).unwrap_err();
    assert!(matches!(error, Error::Width { found: 1, expected: WIDTH, .. }), "{error}");
}

#[test]
fn a_folder_of_other_things_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), b"precious").unwrap();
    for error in [
        CacheReader::open(dir.path(), None).err().unwrap(),
        CacheWriter::create_or_resume(dir.path(), &fingerprint(), WIDTH).err().unwrap(),
    ] {
        assert!(matches!(&error, Error::NotACache { found, .. } if found == "`thesis.txt`"), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_is_not_there_or_no_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    for path in [dir.path().join("nothing"), file.clone()] {
        let error = CacheReader::open(&path, None).err().unwrap();
        assert!(matches!(&error, Error::NoFolder { .. }), "{error}");
    }
    let error = CacheWriter::create_or_resume(&file, &fingerprint(), WIDTH).err().unwrap();
    assert!(matches!(&error, Error::Write { path, .. } if *path == file), "{error}");
}

#[test]
fn shards_without_a_manifest_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), 0..2));
    fs::remove_file(manifest(dir.path())).unwrap();
    for error in [
        CacheReader::open(dir.path(), None).err().unwrap(),
        CacheWriter::create_or_resume(dir.path(), &fingerprint(), WIDTH).err().unwrap(),
    ] {
        assert!(matches!(error, Error::NoManifest { shards: 1, .. }), "{error}");
    }
    assert!(shard(dir.path(), 0).exists());
}

#[test]
fn a_manifest_of_a_later_version_is_refused() {
    let error = with_manifest(|text| text.replace("\"schema_version\": 1", "\"schema_version\": 2, \"news\": []"));
    assert!(matches!(&error, Error::SchemaVersion { found, newest: 1, .. } if found == "2"), "{error}");
}

#[test]
fn broken_json_is_refused_with_its_place() {
    let error = with_manifest(|text| text.replace("\"width\": 3", "\"width\": 3,,"));
    assert!(matches!(&error, Error::Manifest { finding, .. } if finding.contains("line")), "{error}");
}

#[test]
fn a_manifest_edited_by_hand_is_refused() {
    let edits: [(&str, &str, &str); 8] = [
        ("\"width\": 3", "\"width\": 4", "tensor `logits`"),
        ("\"rows\": 2", "\"rows\": 3", "tensor `keys`"),
        ("\"rows\": 2", "\"rows\": 18446744073709551615", "tensor `keys`"),
        ("\"bytes\": ", "\"bytes\": 1", "bytes, the manifest says"),
        ("\"checksum\": \"", "\"checksum\": \"0", "checksum"),
        ("\"dtype\": \"f32\"", "\"dtype\": \"f16\"", "`dtype` is `f16`"),
        ("shard-00000.safetensors", "../shard-00000.safetensors", "no shard's name"),
        ("\"dtype\": \"f32\"", "\"dtype\": \"f32\", \"colour\": 1", "colour"),
    ];
    for (from, to, named) in edits {
        let error = with_manifest(|text| text.replace(from, to)).to_string();
        assert!(error.contains(named), "{to}: {error}");
    }
}

#[test]
fn a_missing_shard_is_named() {
    let error = with_shard(|path| fs::remove_file(path).unwrap());
    assert!(error.contains("shard-00000.safetensors: missing"), "{error}");
}

#[test]
fn a_truncated_shard_is_named() {
    let error = with_shard(|path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    });
    assert!(error.contains("shard-00000.safetensors: ") && error.contains("bytes, the manifest says"), "{error}");
}

#[test]
fn a_shard_of_another_cache_is_refused() {
    let other = tempfile::tempdir().unwrap();
    drop(fill(other.path(), 7..9));
    let error = with_shard(|path| {
        fs::copy(shard(other.path(), 0), path).unwrap();
    });
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn every_flipped_byte_of_a_shard_is_found() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), 0..4));
    let path = shard(dir.path(), 0);
    let sound = fs::read(&path).unwrap();
    for position in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[position] ^= 1 << (position % 8);
        fs::write(&path, &flipped).unwrap();
        let error = CacheReader::open(dir.path(), None).err().unwrap();
        assert!(matches!(&error, Error::Shard { .. }), "byte {position}: {error}");
    }
    fs::write(&path, &sound).unwrap();
    assert_eq!(CacheReader::open(dir.path(), None).unwrap().len(), 4);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_nothing_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = fill(dir.path(), 0..2);
    writer.push(key(2), &row(2)).unwrap();
    // A folder in the place of the next shard stands for whatever keeps it from being written.
    let in_the_way = dir.path().join("shard-00001.safetensors");
    fs::create_dir(&in_the_way).unwrap();
    let error = writer.commit().unwrap_err();
    assert!(matches!(&error, Error::Write { path, committed: 2, .. } if *path == in_the_way), "{error}");
    assert_eq!(CacheReader::open(dir.path(), None).unwrap().len(), 2);
    fs::remove_dir(&in_the_way).unwrap();
    writer.commit().unwrap();
    assert_eq!(CacheReader::open(dir.path(), None).unwrap().len(), 3);
}

// Bytes.

#[test]
fn the_order_of_pushes_does_not_show() {
    let [forwards, backwards] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    drop(fill(forwards.path(), 0..20));
    drop(fill(backwards.path(), (0..20).rev()));
    for file in ["manifest.json", "shard-00000.safetensors"] {
        assert_eq!(fs::read(forwards.path().join(file)).unwrap(), fs::read(backwards.path().join(file)).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_in_any_portions_come_back(
        portions in prop::collection::vec(prop::collection::vec((0_u64..50, prop::array::uniform3(-1e30_f32..1e30)), 0..20), 0..6)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut expected: BTreeMap<u64, [f32; WIDTH]> = BTreeMap::new();
        for portion in portions {
            // A writer of its own for each portion: every portion is a resumed capture.
            let mut writer = writer(dir.path());
            for (n, row) in portion {
                let known = expected.contains_key(&n);
                let push = writer.push(key(n), &row).unwrap();
                prop_assert_eq!(push, if known { Push::Known } else { Push::Added });
                expected.entry(n).or_insert(row);
            }
            writer.commit().unwrap();
        }
        if let Ok(reader) = CacheReader::open(dir.path(), None) {
            prop_assert_eq!(reader.len(), expected.len());
            for (n, row) in &expected {
                prop_assert_eq!(reader.get(&key(*n)), Some(&row[..]));
            }
        } else {
            prop_assert!(expected.is_empty());
        }
    }
}

// Helpers.

fn fingerprint() -> Fingerprint {
    Fingerprint {
        teacher: "weights".to_owned(),
        config: "config".to_owned(),
        tokenizer: "tokenizer".to_owned(),
        labels: ["greet", "refund", "close"].map(str::to_owned).to_vec(),
        max_length: 128,
        preprocessing: "none".to_owned(),
        task: "single_label".to_owned(),
        captured: "logits f32".to_owned(),
    }
}

fn writer(dir: &Path) -> CacheWriter {
    CacheWriter::create_or_resume(dir, &fingerprint(), WIDTH).unwrap()
}

/// A writer that has committed these rows as one shard.
fn fill(dir: &Path, rows: impl IntoIterator<Item = u64>) -> CacheWriter {
    let mut writer = writer(dir);
    for n in rows {
        writer.push(key(n), &row(n)).unwrap();
    }
    writer.commit().unwrap();
    writer
}

fn key(n: u64) -> Key {
    u128::from(n).to_be_bytes()
}

fn row(n: u64) -> [f32; WIDTH] {
    let n = n as f32;
    [n, -n, n / 7.0]
}

fn manifest(dir: &Path) -> PathBuf {
    dir.join("manifest.json")
}

fn shard(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("shard-{number:05}.safetensors"))
}

/// The error on opening a cache of two rows whose manifest was edited.
fn with_manifest(edit: impl Fn(String) -> String) -> Error {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), 0..2));
    let text = fs::read_to_string(manifest(dir.path())).unwrap();
    let edited = edit(text.clone());
    assert_ne!(text, edited);
    fs::write(manifest(dir.path()), edited).unwrap();
    CacheReader::open(dir.path(), None).err().unwrap()
}

/// The error on opening a cache of two rows whose shard was damaged; a writer meets the same one.
fn with_shard(damage: impl Fn(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), 0..2));
    damage(&shard(dir.path(), 0));
    let of_writer = CacheWriter::create_or_resume(dir.path(), &fingerprint(), WIDTH).err().unwrap().to_string();
    let of_reader = CacheReader::open(dir.path(), None).err().unwrap().to_string();
    assert_eq!(of_writer, of_reader);
    of_reader
}
