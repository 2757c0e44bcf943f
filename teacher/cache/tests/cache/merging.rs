//! Caches of several machines as one.

use std::path::Path;

use cache::{Captured, Dtype, Error, Merge, NewRow, merge};

use crate::support::*;

fn content(dir: &Path) -> String {
    open(dir).content().unwrap()
}

#[test]
fn caches_of_any_form_are_merged_in_any_order() {
    for (name, captured) in forms() {
        let [one, other, third, whole] = [(); 4].map(|()| tempfile::tempdir().unwrap());
        drop(fill(one.path(), &captured, 0..40));
        drop(fill(other.path(), &captured, 30..60));
        drop(fill(other.path(), &captured, 60..62));
        drop(fill(third.path(), &captured, 62..70));
        drop(fill(whole.path(), &captured, 0..70));
        let dirs = [one.path(), other.path(), third.path()];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let merged = tempfile::tempdir().unwrap();
            let inputs = order.map(|at| dirs[at]);
            let found = merge(&inputs, merged.path()).unwrap();
            assert_eq!(found, Merge { rows: 70, shared: 10, differing: 0, largest_difference: 0.0 }, "{name}");
            assert_eq!(content(merged.path()), content(whole.path()), "{name}");
            assert_eq!(all(merged.path(), 0..70), all(whole.path(), 0..70), "{name}");
            let reader = open(merged.path());
            assert_eq!(reader.attachment("tokenizer.json").unwrap().as_deref(), Some(TOKENIZER));
            assert_eq!((reader.batch_tokens(), reader.fingerprint()), (512, open(one.path()).fingerprint()));
            // What was measured on rows that two had counts twice.
            let outputs: u64 = dirs.iter().map(|dir| open(dir).recorded_error().outputs).sum();
            assert_eq!(reader.recorded_error().outputs, outputs);
            assert_sound(merged.path());
            let again = files(merged.path());
            assert_eq!(merge(&inputs, merged.path()).unwrap(), found, "{name}");
            assert_eq!(files(merged.path()), again, "{name}");
        }
    }
}

#[test]
fn rows_that_differ_are_counted_and_the_first_one_s_taken() {
    let captured = dense(Dtype::F32);
    let [one, other, merged] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    drop(fill(one.path(), &captured, 0..10));
    let mut writer = writer(other.path(), &captured);
    for n in 5..15 {
        let mut row = given(n, &captured);
        row.logits[2] += if n < 8 { 0.25 * (n - 4) as f32 } else { 0.0 };
        writer.push(&[NewRow { key: row.key, logits: (&row.logits).into(), hidden_states: &[] }]).unwrap();
    }
    writer.commit().unwrap();
    let found = merge(&[one.path(), other.path()], merged.path()).unwrap();
    assert_eq!(found, Merge { rows: 15, shared: 5, differing: 3, largest_difference: 0.75 });
    let reader = open(merged.path());
    assert_eq!(reader.get(&key(7)).unwrap().unwrap().f32().unwrap(), given(7, &captured).logits);
    let [same] = [(); 1].map(|()| tempfile::tempdir().unwrap());
    assert_eq!(merge(&[one.path(), one.path()], same.path()).unwrap().shared, 10);
    assert_eq!(content(same.path()), content(one.path()));
}

#[test]
fn caches_of_two_teachers_are_refused_with_the_field() {
    let [one, other, merged] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    drop(fill(one.path(), &dense(Dtype::F32), 0..10));
    for (field, captured, change) in [
        ("teacher", dense(Dtype::F32), "weights 2"),
        ("captured.logits", dense(Dtype::F16), "weights"),
        ("captured.width", Captured::dense(6, Dtype::F32), "weights"),
    ] {
        let other = other.path().join(field);
        let mut fingerprint = fingerprint(&captured);
        fingerprint.teacher = change.to_owned();
        if field == "captured.width" {
            fingerprint.head.truncate(5);
            fingerprint.labels.truncate(5);
        }
        let mut writer = writer_for(&other, &fingerprint);
        push(&mut writer, 0..5);
        writer.commit().unwrap();
        let error = merge(&[one.path(), &other], merged.path()).unwrap_err();
        assert!(
            matches!(&error, Error::Fingerprint { difference, dir } if difference.field == field && *dir == other),
            "{error}"
        );
        assert!(files(merged.path()).is_empty());
    }
    assert_eq!(merge(&[], merged.path()).unwrap(), Merge::default());
}

#[test]
fn a_damaged_input_ends_a_merge_and_a_sound_one_goes_on() {
    let captured = dense(Dtype::F32);
    let [one, other, merged] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    drop(fill(one.path(), &captured, 0..10));
    drop(fill(other.path(), &captured, 10..20));
    let path = other.path().join("shard-00000.safetensors");
    let sound = std::fs::read(&path).unwrap();
    let mut flipped = sound.clone();
    let last = flipped.len() - 8;
    flipped[last] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    let error = merge(&[one.path(), other.path()], merged.path()).unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    std::fs::write(&path, &sound).unwrap();
    assert_eq!(merge(&[one.path(), other.path()], merged.path()).unwrap().rows, 20);
    assert_sound(merged.path());
}

/// Its recorded error would be of some of its rows alone.
#[test]
fn an_output_with_rows_of_a_third_cache_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F16);
    let place = |name: &str| dir.path().join(name);
    drop(fill(&place("a"), &captured, 0..10));
    drop(fill(&place("b"), &captured, 10..20));
    drop(fill(&place("out"), &captured, 30..40));
    let before = files(&place("out"));
    let (a, b) = (place("a"), place("b"));
    let error = merge(&[&a, &b], &place("out")).unwrap_err().to_string();
    assert!(error.contains("out: holds rows of none of these caches"), "{error}");
    assert_eq!(files(&place("out")), before);
    drop(fill(&place("part"), &captured, 5..15));
    merge(&[&a, &b], &place("part")).unwrap();
    assert_eq!(open(&place("part")).recorded_error().outputs, 20);
}
