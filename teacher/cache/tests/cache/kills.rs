//! A writer that was killed between any two of its file operations: the folder then is a cache, with what was committed,
//! and the same command goes on to the same content.

use std::path::Path;

use cache::{CacheWriter, Captured, Dtype, Fingerprint, Stale, merge};

use crate::support::*;

/// Every state of a folder between `before` and `after`: files are added, the manifest replaced, files removed, and any
/// of them may have been half-written. With an attachment, the manifest is replaced twice: see `created`.
fn states(before: &Files, after: &Files) -> Vec<Files> {
    let mut now = before.clone();
    let mut states = vec![now.clone()];
    let added = after.iter().filter(|(name, bytes)| *name != "manifest.json" && before.get(*name) != Some(bytes));
    let shards_first = |(name, _): &(&String, &Vec<u8>)| name.starts_with("index");
    let mut added: Vec<_> = added.collect();
    added.sort_by_key(shards_first);
    for (name, bytes) in added.into_iter().chain(after.get_key_value("manifest.json")) {
        let mut half = now.clone();
        half.insert(".tmp-half".to_owned(), bytes[..bytes.len() / 2].to_vec());
        states.push(half);
        now.insert(name.clone(), bytes.clone());
        states.push(now.clone());
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        now.remove(name);
        states.push(now.clone());
    }
    assert_eq!(now, *after);
    states
}

/// From every state between a folder before and after `step`, the folder is a cache with the one content or the other,
/// and doing the step again leads to the content after it.
fn any_kill(before: &Path, step: impl Fn(&Path)) {
    let first = files(before);
    step(before);
    let last = files(before);
    let content = |dir: &Path| open(dir).content().unwrap();
    let (was, is) = (content(restore(&first).path()), content(before));
    let all = states(&first, &last);
    assert!(all.len() > 2);
    for (number, state) in all.into_iter().enumerate() {
        let dir = restore(&state);
        assert_sound(dir.path());
        let found = content(dir.path());
        assert!(found == was || found == is, "state {number}");
        step(dir.path());
        assert_sound(dir.path());
        assert_eq!(content(dir.path()), is, "state {number}");
        let left: Vec<String> = files(dir.path()).into_keys().filter(|name| name.starts_with(".tmp")).collect();
        assert!(left.is_empty(), "state {number}: {left:?}");
        assert_no_leftovers(dir.path());
    }
}

/// Every file is the manifest, the lock or named by the manifest.
fn assert_no_leftovers(dir: &Path) {
    let all = files(dir);
    let manifest = String::from_utf8(all["manifest.json"].clone()).unwrap();
    let known = |name: &String| [".lock", "manifest.json"].contains(&name.as_str()) || manifest.contains(name.as_str());
    assert!(all.keys().all(known), "{:?}", all.keys());
}

fn captured() -> Captured {
    of_tokens(top_k(Dtype::F16))
}

#[test]
fn a_commit() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &captured(), 0..100));
    any_kill(dir.path(), |dir| drop(fill(dir, &captured(), 90..110)));
}

#[test]
fn a_commit_that_merges_indexes() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &captured(), 0..100));
    drop(fill(dir.path(), &captured(), 100..110));
    assert!(files(dir.path()).contains_key("index-00001.safetensors"));
    any_kill(dir.path(), |dir| {
        drop(fill(dir, &captured(), 110..140));
    });
    assert_eq!(keys(dir.path()).len(), 140);
}

#[test]
fn a_commit_after_which_small_shards_are_joined() {
    let dir = tempfile::tempdir().unwrap();
    for commit in 0..31 {
        drop(fill(dir.path(), &captured(), commit * 3..commit * 3 + 3));
    }
    let shards = || files(dir.path()).into_keys().filter(|name| name.starts_with("shard")).count();
    assert_eq!(shards(), 31);
    any_kill(dir.path(), |dir| drop(fill(dir, &captured(), 93..96)));
    assert_eq!((shards(), keys(dir.path()).len()), (1, 96));
}

#[test]
fn the_end_of_a_capture() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &captured(), 0..100));
    drop(fill(dir.path(), &captured(), 100..110));
    any_kill(dir.path(), |dir| writer(dir, &captured()).finish().unwrap());
}

#[test]
fn dropping_rows() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &captured(), 0..100));
    drop(fill(dir.path(), &captured(), 100..110));
    any_kill(dir.path(), |dir| CacheWriter::resume(dir).unwrap().rewrite(|key| key[0] < 128, None).unwrap());
    assert!(keys(dir.path()).iter().all(|key| key[0] < 128));
}

fn other(change: impl Fn(&mut Fingerprint)) -> Fingerprint {
    let mut other = fingerprint(&captured());
    change(&mut other);
    other
}

#[test]
fn columns_in_another_order() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &captured(), 0..100));
    let turned = other(|other| other.head.reverse());
    any_kill(dir.path(), |dir| drop(CacheWriter::refresh(dir, &new_cache(&turned)).unwrap()));
    assert_eq!(open(dir.path()).fingerprint(), &turned);
}

#[test]
fn another_length() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &captured(), 0..100));
    let longer = other(|other| other.max_length = 256);
    let first = files(dir.path());
    drop(CacheWriter::refresh(dir.path(), &new_cache(&longer)).unwrap());
    for state in states(&first, &files(dir.path())) {
        let dir = restore(&state);
        assert_sound(dir.path());
        let (_, stale) = CacheWriter::refresh(dir.path(), &new_cache(&longer)).unwrap();
        assert!([Stale::Length, Stale::Nothing].contains(&stale));
        assert_eq!((open(dir.path()).fingerprint(), open(dir.path()).len()), (&longer, 100));
    }
}

#[test]
fn another_teacher() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &captured(), 0..100));
    let new = other(|other| other.tokenizer = "other".to_owned());
    let refresh = |dir: &Path| {
        let attachments: &[(&str, &[u8])] = &[("tokenizer.json", b"another")];
        let new = cache::NewCache { fingerprint: &new, batch_tokens: 64, attachments };
        let (mut writer, stale) = CacheWriter::refresh(dir, &new).unwrap();
        push(&mut writer, 0..50);
        writer.commit().unwrap();
        stale
    };
    let before = files(dir.path());
    assert!(matches!(refresh(dir.path()), Stale::Everything(difference) if difference.field == "tokenizer"));
    let (after, content) = (files(dir.path()), open(dir.path()).content().unwrap());
    // The manifest of the new cache without an attachment, the attachment, the manifest that names it, the old files.
    let bare = tempfile::tempdir().unwrap();
    let no_attachment = cache::NewCache { fingerprint: &new, batch_tokens: 64, attachments: &[] };
    drop(CacheWriter::create_or_resume(bare.path(), &no_attachment).unwrap());
    let mut state = before.clone();
    let mut states = vec![state.clone()];
    state.insert("manifest.json".to_owned(), files(bare.path())["manifest.json"].clone());
    states.push(state.clone());
    state.insert("tokenizer.json".to_owned(), b"another".to_vec());
    states.push(state.clone());
    state.remove("shard-00000.safetensors");
    states.push(state);
    for state in states {
        let dir = restore(&state);
        assert_sound(dir.path());
        refresh(dir.path());
        assert_sound(dir.path());
        assert_eq!(open(dir.path()).content().unwrap(), content);
        assert_eq!(files(dir.path()), after);
    }
}

#[test]
fn a_beginning() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &captured(), 0..5));
    let after = files(dir.path());
    let bare = tempfile::tempdir().unwrap();
    let new = fingerprint(&captured());
    let no_attachment = cache::NewCache { fingerprint: &new, batch_tokens: 512, attachments: &[] };
    drop(CacheWriter::create_or_resume(bare.path(), &no_attachment).unwrap());
    let mut states = vec![Files::new()];
    for (name, bytes) in [
        (".lock", vec![]),
        (".tmp-half", b"{".to_vec()),
        ("manifest.json", files(bare.path())["manifest.json"].clone()),
        ("tokenizer.json", TOKENIZER.to_vec()),
    ] {
        let mut state = states[states.len() - 1].clone();
        state.insert(name.to_owned(), bytes);
        states.push(state);
    }
    for state in states {
        let dir = restore(&state);
        drop(fill(dir.path(), &captured(), 0..5));
        assert_eq!(files(dir.path()), after);
        assert_eq!(open(dir.path()).attachment("tokenizer.json").unwrap().as_deref(), Some(TOKENIZER));
    }
}

#[test]
fn a_merge() {
    let [one, other, whole] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    drop(fill(one.path(), &captured(), 0..100));
    drop(fill(other.path(), &captured(), 50..150));
    let merged = merge(&[one.path(), other.path()], whole.path()).unwrap();
    assert_eq!((merged.rows, merged.shared, merged.differing), (150, 50, 0));
    let content = open(whole.path()).content().unwrap();
    // Stopped with some rows committed, in any order.
    for rows in [0..0, 0..1, 40..60, 0..150] {
        let stopped = tempfile::tempdir().unwrap();
        drop(fill(stopped.path(), &captured(), rows));
        let again = merge(&[one.path(), other.path()], stopped.path()).unwrap();
        assert_eq!(again, merged);
        assert_eq!(open(stopped.path()).content().unwrap(), content);
        assert_eq!(open(stopped.path()).recorded_error(), open(whole.path()).recorded_error());
        assert_sound(stopped.path());
    }
}

#[test]
fn rows_not_committed_are_all_that_a_kill_costs() {
    let dir = tempfile::tempdir().unwrap();
    let mut killed = fill(dir.path(), &captured(), 0..4);
    push(&mut killed, 4..5);
    drop(killed);
    let mut writer = writer(dir.path(), &captured());
    assert_eq!(writer.rows(), 4);
    assert!(writer.contains(&key(3)).unwrap() && !writer.contains(&key(4)).unwrap());
    assert_eq!(push(&mut writer, 3..5), 1);
    writer.commit().unwrap();
    assert_eq!(keys(dir.path()).len(), 5);
}

#[test]
fn a_capture_in_any_portions_has_the_same_content() {
    let [whole, resumed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    drop(fill(whole.path(), &captured(), 0..200));
    for start in (0..200).step_by(7) {
        // Each portion redoes some of the one before.
        drop(fill(resumed.path(), &captured(), start.max(5) - 5..(start + 7).min(200)));
    }
    assert_eq!(open(whole.path()).content().unwrap(), open(resumed.path()).content().unwrap());
    assert_sound(resumed.path());
}
