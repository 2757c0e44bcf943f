//! What is not taken: other folders, other writers, rows of another form, a full disk.

use std::fs;
use std::path::Path;

use cache::{
    CacheReader, CacheWriter, Captured, Dtype, Error, HiddenStates, HiddenTokens, LogitForm, NewRow, Outputs, remove,
};

use crate::support::*;

fn create(dir: &Path) -> Result<CacheWriter, Error> {
    CacheWriter::create_or_resume(dir, &new_cache(&fingerprint(&dense(Dtype::F32))))
}

#[test]
fn a_second_writer_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    let mut first = writer(dir.path(), &captured);
    push(&mut first, 0..1);
    assert!(matches!(create(dir.path()).err().unwrap(), Error::Busy { .. }));
    assert!(matches!(CacheWriter::resume(dir.path()).err().unwrap(), Error::Busy { .. }));
    let fingerprint = fingerprint(&captured);
    assert!(matches!(CacheWriter::refresh(dir.path(), &new_cache(&fingerprint)).err().unwrap(), Error::Busy { .. }));
    let error = remove(dir.path(), &[]).err().unwrap();
    assert!(matches!(error, Error::Busy { .. }) && error.to_string().contains("another process is writing"));
    first.commit().unwrap();
    drop(first);
    assert_eq!(writer(dir.path(), &captured).rows(), 1);
}

#[test]
fn two_writers_that_begin_at_once_do_not_harm_each_other() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let one = |range: std::ops::Range<u64>| {
            for n in range {
                let mut writer = loop {
                    match create(dir.path()) {
                        Ok(writer) => break writer,
                        Err(Error::Busy { .. }) => std::thread::yield_now(),
                        Err(other) => panic!("{other}"),
                    }
                };
                push(&mut writer, [n]);
                writer.commit().unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| one(0..6));
            scope.spawn(|| one(4..10));
        });
        assert_eq!(keys(dir.path()).len(), 10);
        assert_sound(dir.path());
    }
}

#[test]
fn what_is_no_number_is_refused_with_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let captured = with_hidden(dense(Dtype::F32), HiddenTokens::First);
    let mut writer = writer(dir.path(), &captured);
    let good = given(1, &captured);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (what, logit, hidden) in [("logit 3", value, 0.0), ("hidden value 3", 0.0, value)] {
            let (mut logits, mut hidden_states) = (vec![0.0; 5], vec![0.0; 8]);
            (logits[3], hidden_states[3]) = (logit, hidden);
            let key = 258_u128.to_be_bytes();
            let bad = NewRow { key, logits: (&logits).into(), hidden_states: &hidden_states };
            // In one push with good rows: none of them is taken, and none is lost to the next push.
            let error = writer.push(&[good.row(), bad]).unwrap_err();
            assert!(matches!(error, Error::NotFinite { position: 3, .. }));
            let message = error.to_string();
            assert!(message.contains("00000000000000000000000000000102") && message.starts_with(what), "{message}");
            assert!(!writer.contains(&key).unwrap() && writer.pending() == 0);
        }
    }
    assert_eq!(push(&mut writer, 0..3), 3);
    writer.commit().unwrap();
    assert_sound(dir.path());
}

#[test]
fn the_largest_logits_alone_are_refused_where_they_are_not_what_is_stored() {
    let refused = |captured: &Captured, values: &[f32], columns: &[u32], rest: &[f32]| {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), captured);
        let logits = cache::NewLogits::Top(cache::TopLogits { values, columns, rest });
        let error = writer.push(&[NewRow { key: key(0), logits, hidden_states: &[] }]).err();
        assert_eq!(writer.pending(), usize::from(error.is_none()));
        error.map(|error| error.to_string()).unwrap_or_default()
    };
    let (good, columns, rest) = ([3.0, 2.0, 1.0], [4, 0, 9], [0.5, 1.0, 0.0, 1.5, -0.5, 2.0, -1.0]);
    let captured = top_k(Dtype::F32);
    assert_eq!(refused(&captured, &good, &columns, &rest), "");
    for (error, expected) in [
        (refused(&captured, &good[..2], &columns, &rest), "has 2 logits, this cache holds 3 an output"),
        (refused(&captured, &good, &columns[..2], &rest), "2 columns and 7 sums for 1 outputs of 3 logits"),
        (refused(&captured, &good, &columns, &rest[..5]), "3 columns and 5 sums for 1 outputs of 3 logits"),
        (refused(&captured, &good, &[4, 11, 9], &rest), "column 11 of 11 logits"),
        (refused(&captured, &[f32::NAN, 2.0, 1.0], &columns, &rest), "logit 4 of the row with key"),
        (refused(&captured, &good, &columns, &[f32::INFINITY; 7]), "sum over logits 0 of the row with key"),
        (refused(&dense(Dtype::F32), &good, &columns, &rest), "the largest logits alone, where others are stored"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_row_of_another_length_is_refused() {
    let refused = |captured: &Captured, logits: usize, hidden: usize| {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), captured);
        let (logits, hidden_states) = (vec![0.0; logits], vec![0.0; hidden]);
        let error =
            writer.push(&[NewRow { key: key(0), logits: (&logits).into(), hidden_states: &hidden_states }]).err();
        assert_eq!(writer.pending(), usize::from(error.is_none()));
        writer.commit().unwrap();
        assert_sound(dir.path());
        error.map(|error| error.to_string())
    };
    for (_, captured) in forms().into_iter().filter(|(_, captured)| captured.hidden_states.is_none()) {
        let width = captured.width;
        for logits in [0, 1, width - 1, width + 1] {
            let error = refused(&captured, logits, 0).unwrap();
            assert!(error.contains(&format!("has {logits} logits, this cache holds {width} an output")), "{error}");
        }
        // One row of two outputs is none of a cache of one each.
        assert_eq!(refused(&captured, 2 * width, 0).is_some(), captured.outputs == Outputs::Row);
    }
    for (tokens, hidden, fits) in [
        (HiddenTokens::First, 8, true),
        (HiddenTokens::First, 16, false),
        (HiddenTokens::All, 16, true),
        (HiddenTokens::All, 12, false),
        (HiddenTokens::All, 0, false),
        (HiddenTokens::First, 0, false),
    ] {
        let error = refused(&with_hidden(dense(Dtype::F16), tokens), 5, hidden);
        assert_eq!(error.is_none(), fits, "{error:?}");
        if let Some(error) = error {
            assert!(
                error.contains(&format!("{hidden} values of hidden states, this cache holds 8 a token")),
                "{error}"
            );
        }
    }
}

#[test]
fn a_form_that_cannot_be_is_refused_with_the_reason() {
    let top_k = |width, k, temperatures: &[f64]| Captured {
        width,
        outputs: Outputs::Row,
        logits: LogitForm::TopK { k, dtype: Dtype::F16, temperatures: temperatures.to_vec() },
        hidden_states: None,
    };
    let sample = |draws, temperature| Captured {
        width: 5,
        outputs: Outputs::Row,
        logits: LogitForm::Sample { draws, temperature, seed: 0 },
        hidden_states: None,
    };
    let hidden = |layers: &[usize], width| Captured {
        hidden_states: Some(HiddenStates { layers: layers.to_vec(), tokens: HiddenTokens::First, width }),
        ..dense(Dtype::F16)
    };
    for (captured, reason) in [
        (Captured::dense(0, Dtype::F16), "0 logits an output"),
        (Captured::dense(usize::MAX, Dtype::F16), "logits an output"),
        (top_k(5, 0, &[1.0]), "the 0 largest of 5 logits: give a number from 1 to 4"),
        (top_k(5, 5, &[1.0]), "the 5 largest of 5 logits"),
        (top_k(0, 1, &[1.0]), "0 logits an output"),
        (top_k(1, 1, &[1.0]), "store it dense"),
        (top_k(5, 2, &[]), "no temperature"),
        (top_k(5, 2, &[1.0, 0.0]), "temperature 0"),
        (top_k(5, 2, &[f64::NAN]), "temperature NaN"),
        (top_k(5, 2, &[f64::INFINITY]), "temperature inf"),
        (sample(0, 1.0), "a sample of 0 draws"),
        (sample(3, -1.0), "temperature -1"),
        (hidden(&[], 4), "hidden states of layers []"),
        (hidden(&[2, 1], 4), "hidden states of layers [2, 1]"),
        (hidden(&[1, 1], 4), "hidden states of layers [1, 1]"),
        (hidden(&[1], 0), "hidden states of 0 values"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let error = CacheWriter::create_or_resume(dir.path(), &new_cache(&fingerprint(&captured))).err().unwrap();
        assert!(matches!(&error, Error::Captured { finding } if finding.contains(reason)), "{error}");
        assert!(files(dir.path()).is_empty());
    }
}

#[test]
fn an_attachment_has_a_name_of_its_own() {
    for name in ["manifest.json", ".lock", "a/b", "", "shard-00000.safetensors", "index-00007.safetensors"] {
        let dir = tempfile::tempdir().unwrap();
        let fingerprint = fingerprint(&dense(Dtype::F32));
        let new = cache::NewCache { attachments: &[(name, b"x")], ..new_cache(&fingerprint) };
        let error = CacheWriter::create_or_resume(dir.path(), &new).err().unwrap();
        assert!(matches!(&error, Error::Captured { finding } if finding.contains(name)), "{error}");
    }
}

#[test]
fn a_folder_of_other_things_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), b"precious").unwrap();
    for error in [CacheReader::open(dir.path(), None).err().unwrap(), create(dir.path()).err().unwrap()] {
        assert!(matches!(&error, Error::NotACache { found, .. } if found == "`thesis.txt`"), "{error}");
    }
    remove(dir.path(), &[]).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_is_not_there_or_no_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    for path in [dir.path().join("nothing"), file.clone()] {
        for error in
            [CacheReader::open(&path, None).err(), CacheWriter::resume(&path).err(), cache::verify(&path).err()]
        {
            assert!(matches!(error, Some(Error::NoFolder { .. })), "{error:?}");
        }
    }
    let error = create(&file).err().unwrap();
    assert!(matches!(&error, Error::Write { path, .. } if *path == file), "{error}");
}

#[test]
fn shards_without_a_manifest_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &dense(Dtype::F32), 0..2));
    fs::remove_file(dir.path().join("manifest.json")).unwrap();
    for error in [CacheReader::open(dir.path(), None).err().unwrap(), create(dir.path()).err().unwrap()] {
        assert!(matches!(error, Error::NoManifest { shards: 1, .. }), "{error}");
    }
    assert!(files(dir.path()).contains_key("shard-00000.safetensors"));
}

#[test]
fn leftovers_are_ignored_by_readers_and_removed_by_the_next_writer() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    drop(fill(dir.path(), &captured, 0..4));
    for name in ["shard-00001.safetensors", "index-00001.safetensors", ".tmp-abc123"] {
        fs::copy(dir.path().join("shard-00000.safetensors"), dir.path().join(name)).unwrap();
    }
    assert_eq!(open(dir.path()).len(), 4);
    assert_sound(dir.path());
    drop(writer(dir.path(), &captured));
    let expected = [".lock", "index-00000.safetensors", "manifest.json", "shard-00000.safetensors", "tokenizer.json"];
    assert!(files(dir.path()).into_keys().eq(expected));
}

#[test]
fn a_full_disk_costs_nothing_that_was_committed() {
    let captured = dense(Dtype::F32);
    for (name, manifest_too) in [("shard-00001.safetensors", false), ("index-00001.safetensors", true)] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = fill(dir.path(), &captured, 0..20);
        push(&mut writer, 20..21);
        // A folder in the place of the next file stands for whatever keeps it from being written.
        let in_the_way = dir.path().join(name);
        fs::create_dir(&in_the_way).unwrap();
        let error = writer.commit().unwrap_err();
        assert!(matches!(&error, Error::Write { path, committed: 20, .. } if *path == in_the_way), "{error}");
        assert!(error.to_string().contains("the 20 rows committed before are safe"), "{error}");
        assert_eq!((writer.rows(), writer.pending(), open(dir.path()).len()), (20, 1, 20));
        assert_sound(dir.path());
        fs::remove_dir(&in_the_way).unwrap();
        if manifest_too {
            push(&mut writer, 21..22);
        }
        writer.commit().unwrap();
        assert_eq!(open(dir.path()).len(), if manifest_too { 22 } else { 21 });
        assert_sound(dir.path());
    }
}

#[test]
fn a_rewrite_that_fails_leaves_writer_and_cache_as_they_were() {
    let captured = dense(Dtype::F32);
    let dir = tempfile::tempdir().unwrap();
    let mut writer = fill(dir.path(), &captured, 0..20);
    let content = open(dir.path()).content().unwrap();
    for name in ["shard-00001.safetensors", "index-00001.safetensors"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        let error = writer.rewrite(|key| key[0] < 128, None).unwrap_err();
        assert!(matches!(&error, Error::Write { committed: 20, .. }), "{error}");
        assert_eq!(writer.reader().content().unwrap(), content);
        assert_eq!(open(dir.path()).content().unwrap(), content);
        fs::remove_dir(dir.path().join(name)).unwrap();
    }
    push(&mut writer, 20..30);
    writer.commit().unwrap();
    assert_eq!(keys(dir.path()).len(), 30);
    assert_sound(dir.path());
}

#[cfg(unix)]
#[test]
fn a_folder_without_leave_to_write_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    drop(fill(dir.path(), &captured, 0..4));
    let set = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    fs::set_permissions(dir.path().join(".lock"), fs::Permissions::from_mode(0o444)).unwrap();
    set(0o555);
    assert_eq!(keys(dir.path()).len(), 4);
    assert_sound(dir.path());
    // The superuser may write anywhere.
    if fs::write(dir.path().join(".tmp-probe"), b"").is_err() {
        let error = create(dir.path()).err().unwrap();
        assert!(matches!(&error, Error::Write { path, .. } if path.ends_with(".lock")), "{error}");
    }
    set(0o755);
}
