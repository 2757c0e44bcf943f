//! Bytes that are not what they were: found by `verify` with their file, and never read as something else.

use std::fs;
use std::path::Path;

use cache::{CacheReader, CacheWriter, Captured, Dtype, Error, HiddenTokens, verify};

use crate::support::*;

/// Two shards, two indexes and an attachment.
fn small(dir: &Path, captured: &Captured) {
    let mut writer = fill(dir, captured, 0..8);
    push(&mut writer, 8..10);
    writer.commit().unwrap();
    assert_eq!(files(dir).keys().filter(|name| name.starts_with("index-")).count(), 2);
}

/// Flips every byte of every file with each pattern, or with a bit that moves along for 0.
fn every_flip(captured: &Captured, patterns: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path(), captured);
    let sound = all(dir.path(), 0..10);
    for (name, bytes) in files(dir.path()).into_iter().filter(|(name, _)| name != ".lock") {
        let path = dir.path().join(&name);
        for (position, pattern) in (0..bytes.len()).flat_map(|at| patterns.iter().map(move |pattern| (at, *pattern))) {
            let mut flipped = bytes.clone();
            flipped[position] ^= if pattern == 0 { 1 << (position % 8) } else { pattern };
            fs::write(&path, &flipped).unwrap();
            let place = format!("byte {position} of {name}, by {pattern}");
            check_flip(dir.path(), &path, &bytes, position, &place);
            let Ok(reader) = CacheReader::open(dir.path(), None) else { continue };
            assert_ne!(name, "manifest.json", "{place}");
            for (n, expected) in &sound {
                let given = given(*n, captured);
                match reader.get(&given.key) {
                    Ok(Some(row)) => assert_eq!(&crate::support::bytes(&row, given.hidden_tokens), expected, "{place}"),
                    Ok(None) => panic!("{place}: a row is gone"),
                    Err(error) => assert!(error.to_string().contains(&name), "{place}: {error}"),
                }
                if let Ok(found) = reader.contains(&given.key) {
                    assert!(found, "{place}: a key is gone");
                }
            }
            assert!(!matches!(reader.get(&key(99)), Ok(Some(_))), "{place}");
            if name == "tokenizer.json" {
                assert!(reader.attachment(&name).is_err(), "{place}");
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert_sound(dir.path());
}

/// `verify` names the file alone, and the block where it is in one.
fn check_flip(dir: &Path, path: &Path, sound: &[u8], position: usize, place: &str) {
    let damage = verify(dir).unwrap().damage;
    assert_eq!(damage.len(), 1, "{place}: {damage:?}");
    match &damage[0] {
        Error::Manifest { path: found, .. } | Error::SchemaVersion { path: found, .. } => {
            assert!(found == path && path.ends_with("manifest.json"), "{place}: {damage:?}");
        }
        Error::File { path: found, .. } => assert_eq!(found, path, "{place}"),
        Error::Block { path: found, block, blocks, start, last } => {
            assert_eq!(found, path, "{place}");
            let header = 8 + u64::from_le_bytes(*sound.first_chunk().unwrap()) as usize;
            assert_eq!(*block, (position - header) / 16_384, "{place}");
            assert!((*start..=*last).contains(&position) && block < blocks, "{place}: {damage:?}");
        }
        other => panic!("{place}: {other}"),
    }
}

#[test]
fn every_flip_of_dense_rows_is_found() {
    every_flip(&dense(Dtype::F32), &[0, 0x80, 0xff]);
}

#[test]
fn every_flip_of_short_rows_is_found() {
    every_flip(&of_tokens(dense(Dtype::F16)), &[0, 0x20]);
}

#[test]
fn every_flip_of_the_largest_logits_is_found() {
    every_flip(&of_tokens(top_k(Dtype::F16)), &[0, 0x01]);
}

#[test]
fn every_flip_of_samples_is_found() {
    every_flip(&of_tokens(sample()), &[0, 0x10]);
}

#[test]
fn every_flip_of_hidden_states_is_found() {
    every_flip(&with_hidden(dense(Dtype::Bf16), HiddenTokens::All), &[0, 0x7f]);
}

#[test]
fn the_block_that_is_damaged_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let captured = Captured::dense(50, Dtype::F32);
    drop(fill(dir.path(), &captured, 0..1000));
    for name in ["shard-00000.safetensors", "index-00000.safetensors"] {
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        for edge in (header..bytes.len()).step_by(16_384).skip(1).chain([header, bytes.len()]) {
            for position in [edge.saturating_sub(1), edge] {
                if (header..bytes.len()).contains(&position) {
                    let mut flipped = bytes.clone();
                    flipped[position] ^= 4;
                    fs::write(&path, &flipped).unwrap();
                    check_flip(dir.path(), &path, &bytes, position, &format!("byte {position} of {name}"));
                }
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn rows_in_sound_blocks_are_served_beside_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let captured = Captured::dense(50, Dtype::F32);
    drop(fill(dir.path(), &captured, 0..1000));
    let path = dir.path().join("shard-00000.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let reader = open(dir.path());
    let refused = (0..1000).filter(|n| match reader.get(&key(*n)) {
        Ok(row) => {
            assert_eq!(row.unwrap().f32().unwrap(), given(*n, &captured).logits);
            false
        }
        Err(error) => matches!(error, Error::Block { .. }) || panic!("{error}"),
    });
    // A block holds 82 rows of 200 bytes, and two more in part.
    assert!((82..=84).contains(&refused.count()));
}

#[cfg(unix)]
#[test]
fn a_flip_after_opening_is_found_on_first_touch() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    small(dir.path(), &dense(Dtype::F32));
    let reader = open(dir.path());
    for name in ["index-00000.safetensors", "shard-00000.safetensors"] {
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_at(&[bytes[header] ^ 1], header as u64).unwrap();
        let error = reader.get(&key(0)).unwrap_err();
        assert!(matches!(&error, Error::Block { path: found, block: 0, .. } if *found == path), "{error}");
        file.write_at(&[bytes[header]], header as u64).unwrap();
        assert!(reader.contains(&key(0)).unwrap());
    }
    assert!(reader.get(&key(0)).unwrap().is_some());
}

/// The errors of a reader, of a writer and of `verify` on a small cache of which a file was damaged.
fn with_file(name: &str, damage: impl Fn(&Path)) -> [String; 3] {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    small(dir.path(), &captured);
    damage(&dir.path().join(name));
    let of_all = |reader: &CacheReader| (0..10).try_for_each(|n| reader.get(&key(n)).map(|row| assert!(row.is_some())));
    let reader = CacheReader::open(dir.path(), None).and_then(|reader| of_all(&reader)).unwrap_err();
    let writer = CacheWriter::create_or_resume(dir.path(), &new_cache(&fingerprint(&captured)));
    let writer = writer.and_then(|writer| of_all(writer.reader())).unwrap_err();
    let damage = verify(dir.path()).unwrap().damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    [reader.to_string(), writer.to_string(), damage[0].to_string()]
}

const FILES: [&str; 4] =
    ["shard-00000.safetensors", "shard-00001.safetensors", "index-00000.safetensors", "index-00001.safetensors"];

#[test]
fn a_missing_file_is_named() {
    for name in FILES {
        for error in with_file(name, |path| fs::remove_file(path).unwrap()) {
            assert!(error.contains(&format!("{name}: missing")), "{error}");
        }
    }
}

#[test]
fn a_truncated_or_longer_file_is_named() {
    for name in FILES {
        for length in [0, 1, 7, 8, 100] {
            let errors = with_file(name, |path| {
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..bytes.len() - 1 - length.min(bytes.len() - 1)]).unwrap();
            });
            for error in errors {
                assert!(error.contains(&format!("{name}: ")) && error.contains("bytes, the manifest says"), "{error}");
            }
        }
        for error in with_file(name, |path| fs::write(path, b"").unwrap()) {
            assert!(error.contains(&format!("{name}: 0 bytes, the manifest says")), "{error}");
        }
        for error in with_file(name, |path| fs::write(path, [fs::read(path).unwrap(), vec![0]].concat()).unwrap()) {
            assert!(error.contains(&format!("{name}: ")) && error.contains("bytes, the manifest says"), "{error}");
        }
        for error in with_file(name, |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }) {
            assert!(error.contains(&format!("{name}: ")), "{error}");
        }
    }
}

#[test]
fn a_file_of_another_teacher_s_cache_is_refused() {
    // The same keys, the same sizes, other logits.
    let other = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    let mut writer = writer(other.path(), &captured);
    for range in [0..8, 8..10] {
        for n in range {
            let given = given(n + 50, &captured);
            let row = cache::NewRow { key: key(n + 20), logits: (&given.logits).into(), hidden_states: &[] };
            writer.push(&[row]).unwrap();
        }
        writer.commit().unwrap();
    }
    for name in FILES {
        let errors = with_file(name, |path| {
            fs::copy(other.path().join(name), path).unwrap();
        });
        for error in errors {
            assert!(error.contains(&format!("{name}: its checksum is ")), "{error}");
            assert!(error.contains("the manifest says"), "{error}");
        }
    }
    // A shard of the same cache under the name of another one.
    for error in with_file("shard-00001.safetensors", |path| {
        fs::copy(path.with_file_name("shard-00000.safetensors"), path).unwrap();
    }) {
        assert!(error.contains("shard-00001.safetensors: "), "{error}");
    }
}

#[test]
fn a_damaged_attachment_is_refused_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path(), &dense(Dtype::F32));
    let reader = open(dir.path());
    assert_eq!(reader.attachment("tokenizer.json").unwrap().as_deref(), Some(TOKENIZER));
    assert_eq!(reader.attachment("other.json").unwrap(), None);
    let path = dir.path().join("tokenizer.json");
    fs::write(&path, b"{}").unwrap();
    let error = reader.attachment("tokenizer.json").unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: its checksum is "), "{error}");
    fs::remove_file(&path).unwrap();
    let error = reader.attachment("tokenizer.json").unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: missing"), "{error}");
    assert_eq!(verify(dir.path()).unwrap().damage.len(), 1);
}

#[test]
fn several_damaged_files_are_each_found() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path(), &dense(Dtype::F32));
    for name in FILES {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let found = verify(dir.path()).unwrap();
    assert_eq!((found.damage.len(), found.files, found.rows), (4, 6, 10));
}

#[cfg(unix)]
#[test]
fn a_push_that_meets_a_damaged_index_takes_none_of_its_rows() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    // Enough keys for several blocks: some are looked up without the damaged one.
    drop(fill(dir.path(), &captured, 0..5000));
    let mut writer = writer(dir.path(), &captured);
    let path = dir.path().join("index-00000.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_at(&[bytes[40_000] ^ 1], 40_000).unwrap();
    let given: Vec<Given> = (5000..5200).map(|n| given(n, &captured)).collect();
    let rows: Vec<_> = given.iter().map(Given::row).collect();
    let error = writer.push(&rows).unwrap_err();
    assert!(matches!(error, Error::Block { .. }), "{error}");
    assert_eq!(writer.pending(), 0);
    file.write_at(&[bytes[40_000]], 40_000).unwrap();
    push(&mut writer, (5000..5200).rev());
    writer.commit().unwrap();
    let reader = open(dir.path());
    for given in given {
        assert_eq!(reader.get(&given.key).unwrap().unwrap().f32().unwrap(), given.logits);
    }
}
