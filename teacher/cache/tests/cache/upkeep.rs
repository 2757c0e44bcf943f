//! What happens to a cache beside capture: indexes are merged, rows dropped, columns moved, readers keep what they have.

use std::fs;

use cache::{CacheReader, CacheWriter, Captured, Dtype, Error, HiddenTokens, Stale, remove};

use crate::support::*;

#[test]
fn an_empty_cache_is_a_cache() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    let mut writer = writer(dir.path(), &captured);
    writer.commit().unwrap();
    writer.finish().unwrap();
    writer.rewrite(|_| true, None).unwrap();
    let reader = CacheReader::open(dir.path(), Some(&fingerprint(&captured))).unwrap();
    assert!(reader.is_empty() && reader.get(&key(0)).unwrap().is_none() && reader.rows().next().is_none());
    assert_sound(dir.path());
}

#[test]
fn a_cache_in_a_folder_to_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/b");
    drop(fill(&dir, &dense(Dtype::F32), 0..3));
    assert_eq!(open(&dir).len(), 3);
}

#[test]
fn the_first_row_of_a_key_stays() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    let mut writer = writer(dir.path(), &captured);
    let (first, second) = (given(1, &captured), given(2, &captured));
    let again = cache::NewRow { key: first.key, ..second.row() };
    assert_eq!(writer.push(&[first.row(), again]).unwrap(), 1);
    assert_eq!(writer.push(&[again]).unwrap(), 0);
    writer.commit().unwrap();
    assert_eq!(writer.push(&[again]).unwrap(), 0);
    writer.commit().unwrap();
    let reader = open(dir.path());
    assert_eq!((reader.len(), reader.get(&first.key).unwrap().unwrap().f32().unwrap()), (1, &first.logits[..]));
}

#[test]
fn many_threads_share_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let captured = Captured::dense(20, Dtype::F32);
    drop(fill(dir.path(), &captured, 0..4000));
    let reader = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (reader, captured) = (&reader, &captured);
            scope.spawn(move || {
                for n in (0..4000).map(|n| (n + thread * 1000) % 4000) {
                    assert_eq!(reader.get(&key(n)).unwrap().unwrap().f32().unwrap(), given(n, captured).logits);
                }
            });
        }
    });
}

#[test]
fn a_reader_keeps_to_the_manifest_it_opened() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    let mut writer = fill(dir.path(), &captured, 0..50);
    let (sound, reader) = (all(dir.path(), 0..50), open(dir.path()));
    push(&mut writer, 50..60);
    writer.commit().unwrap();
    assert!(reader.get(&key(55)).unwrap().is_none() && open(dir.path()).get(&key(55)).unwrap().is_some());
    // Nothing of what it has opened lies in the folder any more.
    writer.rewrite(|_| false, None).unwrap();
    drop(writer);
    remove(dir.path(), &[]).unwrap();
    for (n, expected) in sound {
        assert_eq!(bytes(&reader.get(&key(n)).unwrap().unwrap(), 0), expected);
    }
    assert_eq!(reader.rows().count(), 50);
}

#[test]
fn hundreds_of_commits_leave_few_files_with_all_keys() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F16);
    let mut writer = writer(dir.path(), &captured);
    let indexes = || files(dir.path()).into_keys().filter(|name| name.starts_with("index-")).count();
    let shards = || files(dir.path()).into_keys().filter(|name| name.starts_with("shard-")).count();
    let (mut most, mut most_shards) = (0, 0);
    for commit in 0..400_u64 {
        push(&mut writer, commit * 3..commit * 3 + 1 + commit % 3);
        writer.commit().unwrap();
        most = most.max(indexes());
        most_shards = most_shards.max(shards());
    }
    // Each is four times as large as all smaller ones: no more than the logarithm of 800 to the base four.
    assert!((2..=5).contains(&most), "{most} indexes");
    assert_eq!(most_shards, 31, "small shards are joined");
    let expected: Vec<u64> = (0..400).flat_map(|commit| commit * 3..commit * 3 + 1 + commit % 3).collect();
    let check = || {
        let reader = open(dir.path());
        assert_eq!(reader.len(), expected.len());
        assert!(expected.iter().all(|n| reader.contains(&key(*n)).unwrap()));
        assert!((0..1200).filter(|n| reader.contains(&key(*n)).unwrap()).count() == expected.len());
        assert!(reader.rows().map(|row| row.unwrap().0).is_sorted());
        assert_sound(dir.path());
    };
    check();
    let before = open(dir.path()).content().unwrap();
    writer.finish().unwrap();
    assert_eq!((indexes(), open(dir.path()).content().unwrap()), (1, before));
    check();
    // Merging one index with nothing is not worth a file.
    let same = files(dir.path());
    writer.finish().unwrap();
    assert_eq!(files(dir.path()), same);
}

#[test]
fn dropping_rows_keeps_the_others_as_they_are() {
    for (name, captured) in forms() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = fill(dir.path(), &captured, 0..40);
        push(&mut writer, 40..60);
        writer.commit().unwrap();
        let sound = all(dir.path(), 0..60);
        let kept: Vec<u64> = (0..60).filter(|n| key(*n)[0] >= 100).collect();
        // What waits is kept or dropped like the rest.
        push(&mut writer, 60..61);
        writer.rewrite(|key| key[0] >= 100 && *key != crate::support::key(60), None).unwrap();
        assert_eq!((writer.rows(), writer.pending(), writer.reader().unreachable_rows()), (kept.len(), 0, 0), "{name}");
        let now = all(dir.path(), kept.iter().copied());
        assert!(now.iter().all(|(n, row)| *row == sound[n]), "{name}");
        assert_eq!(files(dir.path()).len(), 5, "{name}");
        // And the writer goes on.
        push(&mut writer, 0..60);
        writer.commit().unwrap();
        assert_eq!(all(dir.path(), 0..60), sound, "{name}");
        writer.rewrite(|_| false, None).unwrap();
        assert!(open(dir.path()).is_empty());
        push(&mut writer, 0..60);
        writer.commit().unwrap();
        assert_eq!(all(dir.path(), 0..60), sound, "{name}");
        assert_sound(dir.path());
    }
}

#[test]
fn columns_follow_the_rows_of_the_last_map() {
    for (name, captured) in forms().into_iter().filter(|(_, captured)| captured.width <= 20) {
        let dir = tempfile::tempdir().unwrap();
        drop(fill(dir.path(), &captured, 0..30));
        let before = all(dir.path(), 0..30);
        let own = fingerprint(&captured);
        // The new logit i is the old order[i].
        let order: Vec<u32> = (0..captured.width as u32).map(|i| (i * 3 + 2) % captured.width as u32).collect();
        let mut moved = own.clone();
        moved.head = order.iter().map(|&old| own.head[old as usize].clone()).collect();
        moved.labels = order.iter().map(|&old| own.labels[old as usize].clone()).collect();
        let (writer, stale) = CacheWriter::refresh(dir.path(), &new_cache(&moved)).unwrap();
        assert_eq!((stale, writer.rows()), (Stale::Order(order.clone()), 30), "{name}");
        drop(writer);
        assert_sound(dir.path());
        let reader = CacheReader::open(dir.path(), Some(&moved)).unwrap();
        let old = restore(&files(dir.path()));
        for n in 0..30 {
            let given = given(n, &captured);
            let row = reader.get(&given.key).unwrap().unwrap();
            match &captured.logits {
                cache::LogitForm::Dense { .. } => {
                    for (output, logits) in row.logits().collect::<Vec<_>>().chunks(captured.width).enumerate() {
                        for (logit, &from) in logits.iter().zip(&order) {
                            let expected = given.logits[output * captured.width + from as usize];
                            assert!((logit - expected).abs() <= expected.abs() / 200.0, "{name}: {logit} {expected}");
                        }
                    }
                }
                form => {
                    let mut back: Vec<u32> = row.indices().map(|new| order[new as usize]).collect();
                    if let cache::LogitForm::Sample { draws, .. } = form {
                        // Draws ascend, whatever the order of the classes.
                        assert!(row.indices().collect::<Vec<_>>().chunks(*draws).all(<[u32]>::is_sorted), "{name}");
                        back.chunks_mut(*draws).for_each(<[u32]>::sort_unstable);
                    }
                    drop(CacheWriter::refresh(old.path(), &new_cache(&own)).unwrap());
                    let restored = open(old.path());
                    let was: Vec<u32> = restored.get(&given.key).unwrap().unwrap().indices().collect();
                    assert_eq!(back, was, "{name}");
                }
            }
        }
        // And back again.
        drop(CacheWriter::refresh(dir.path(), &new_cache(&own)).unwrap());
        assert_eq!(all(dir.path(), 0..30), before, "{name}");
    }
}

#[test]
fn a_refresh_says_what_is_stale_and_keeps_the_rest() {
    let captured = with_hidden(dense(Dtype::F16), HiddenTokens::All);
    let own = fingerprint(&captured);
    let identity: Vec<u32> = (0..5).collect();
    type Change = fn(&mut cache::Fingerprint);
    let cases: [(Change, Option<Stale>, usize); 12] = [
        (|_| {}, Some(Stale::Nothing), 20),
        (|f| f.max_length = 64, Some(Stale::Length), 20),
        (|f| f.labels.reverse(), Some(Stale::Order(identity.clone())), 20),
        (|f| f.labels[0] = "other".to_owned(), Some(Stale::Order(identity.clone())), 20),
        (|f| f.head.swap(0, 4), Some(Stale::Order(vec![4, 1, 2, 3, 0])), 20),
        (
            |f| {
                f.head.swap(0, 4);
                f.max_length = 64;
            },
            Some(Stale::Order(vec![4, 1, 2, 3, 0])),
            20,
        ),
        (|f| f.head[2] = "other".to_owned(), None, 0),
        (|f| f.head.truncate(4), None, 0),
        (|f| f.teacher = "other".to_owned(), None, 0),
        (|f| f.precision = "bf16".to_owned(), None, 0),
        (|f| f.captured.hidden_states = None, None, 0),
        (|f| f.captured.width = 6, None, 0),
    ];
    for (change, expected, rows) in cases {
        let dir = tempfile::tempdir().unwrap();
        drop(fill(dir.path(), &captured, 0..20));
        let mut wanted = own.clone();
        change(&mut wanted);
        let (mut writer, stale) = CacheWriter::refresh(dir.path(), &new_cache(&wanted)).unwrap();
        match expected {
            Some(expected) => assert_eq!(stale, expected),
            None => assert!(matches!(stale, Stale::Everything(_)), "{stale:?}"),
        }
        assert_eq!(writer.rows(), rows);
        push(&mut writer, 20..25);
        writer.commit().unwrap();
        drop(writer);
        let reader = CacheReader::open(dir.path(), Some(&wanted)).unwrap();
        assert_eq!(
            (reader.len(), reader.attachment("tokenizer.json").unwrap().as_deref()),
            (rows + 5, Some(TOKENIZER))
        );
        assert_sound(dir.path());
        let (_, stale) = CacheWriter::refresh(dir.path(), &new_cache(&wanted)).unwrap();
        assert_eq!(stale, Stale::Nothing);
    }
}

#[test]
fn rows_of_the_last_map_that_are_equal_keep_their_places() {
    let mut own = fingerprint(&dense(Dtype::F32));
    own.head = ["a", "a", "b", "b", "c"].map(str::to_owned).to_vec();
    let mut wanted = own.clone();
    wanted.head = ["b", "a", "c", "a", "b"].map(str::to_owned).to_vec();
    assert_eq!(own.stale_for(&wanted), Stale::Order(vec![2, 0, 4, 1, 3]));
}

#[test]
fn an_order_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let captured = top_k(Dtype::F16);
    let mut writer = fill(dir.path(), &captured, 0..20);
    for order in [vec![], vec![0, 1], vec![0; 11], (1..12).collect()] {
        let error = writer.rewrite(|_| true, Some((&order, &fingerprint(&captured)))).unwrap_err();
        assert!(matches!(&error, Error::Captured { finding } if finding.contains("11 logits")), "{error}");
    }
    assert_eq!((writer.rows(), open(dir.path()).len()), (20, 20));
}

#[test]
fn readers_that_open_while_a_writer_rewrites_find_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    let mut writer = fill(dir.path(), &captured, 0..50);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let reader = open(dir.path());
                    for n in 0..50 {
                        let row = reader.get(&key(n)).unwrap().unwrap();
                        assert_eq!(row.f32().unwrap(), given(n, &captured).logits);
                    }
                    let damage = cache::verify(dir.path()).unwrap().damage;
                    assert!(damage.is_empty(), "{damage:?}");
                }
            });
        }
        for n in 50..150 {
            push(&mut writer, [n]);
            writer.commit().unwrap();
            if n % 10 == 0 {
                writer.rewrite(|key| *key <= crate::support::key(n) || key[15] < 50, None).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_cache_is_removed_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F32);
    remove(dir.path(), &[]).unwrap();
    drop(fill(dir.path(), &captured, 0..4));
    let foreign = dir.path().join("thesis.txt");
    fs::write(&foreign, b"precious").unwrap();
    fs::write(dir.path().join(".tmp-half"), b"{").unwrap();
    let error = remove(dir.path(), &[]).err().unwrap();
    assert!(matches!(&error, Error::Foreign { found, .. } if found == "thesis.txt"), "{error}");
    assert_eq!(open(dir.path()).len(), 4);
    fs::remove_file(&foreign).unwrap();
    remove(dir.path(), &[]).unwrap();
    assert!(files(dir.path()).into_keys().eq([".lock"]));
    drop(fill(dir.path(), &captured, 0..4));
    // One whose manifest cannot be read, so that it names no attachment.
    fs::write(dir.path().join("manifest.json"), b"{").unwrap();
    assert!(remove(dir.path(), &[]).is_err());
    remove(dir.path(), &["tokenizer.json"]).unwrap();
    assert!(files(dir.path()).into_keys().eq([".lock"]));
}

#[test]
fn a_cache_keeps_its_own_batches_and_takes_an_attachment_that_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let fingerprint = fingerprint(&dense(Dtype::F32));
    let without = cache::NewCache { batch_tokens: 64, attachments: &[], ..new_cache(&fingerprint) };
    drop(CacheWriter::create_or_resume(dir.path(), &without).unwrap());
    assert_eq!(open(dir.path()).attachment("tokenizer.json").unwrap(), None);
    drop(CacheWriter::create_or_resume(dir.path(), &new_cache(&fingerprint)).unwrap());
    let reader = open(dir.path());
    assert_eq!((reader.batch_tokens(), reader.attachment("tokenizer.json").unwrap().as_deref()), (64, Some(TOKENIZER)));
    assert_eq!(CacheWriter::resume(dir.path()).unwrap().rows(), 0);
}
