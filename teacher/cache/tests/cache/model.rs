//! A cache against a map: any rows in any portions, with gc and ends in between, and many rows.

use std::collections::BTreeMap;

use cache::{CacheReader, Captured, Dtype, NewRow};
use proptest::prelude::*;

use crate::support::*;

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<(u64, [f32; 5])>),
    Commit,
    /// What waits is lost.
    Kill,
    Finish,
    /// Drops the rows whose number leaves this rest.
    Drop(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = prop::collection::vec((0_u64..60, prop::array::uniform5(-1e30_f32..1e30)), 0..20);
    let step = prop_oneof![
        4 => rows.prop_map(Step::Push),
        3 => Just(Step::Commit),
        1 => Just(Step::Kill),
        1 => Just(Step::Finish),
        1 => (0_u64..5).prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_in_any_portions_come_back(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let captured = dense(Dtype::F32);
        let mut cache = Some(writer(dir.path(), &captured));
        let (mut committed, mut waiting) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            let now = cache.as_mut().unwrap();
            match step {
                Step::Push(rows) => {
                    let new: Vec<NewRow<'_>> =
                        rows.iter().map(|(n, logits)| NewRow { key: key(*n), logits: logits.into(), hidden_states: &[] }).collect();
                    let before = waiting.len();
                    for (n, row) in &rows {
                        if !committed.contains_key(n) {
                            waiting.entry(*n).or_insert(*row);
                        }
                    }
                    prop_assert_eq!(now.push(&new).unwrap(), waiting.len() - before);
                }
                Step::Commit => now.commit().unwrap(),
                Step::Finish => now.finish().unwrap(),
                Step::Drop(rest) => {
                    let keep = |n: &u64| n % 5 != rest;
                    committed.append(&mut waiting);
                    committed.retain(|n, _| keep(n));
                    now.rewrite(|key| keep(&u64::from_be_bytes(*key.last_chunk().unwrap())), None).unwrap();
                }
                Step::Kill => {
                    waiting.clear();
                    drop(cache.take());
                    cache = Some(writer(dir.path(), &captured));
                }
            }
            if cache.as_ref().unwrap().pending() == 0 {
                committed.append(&mut waiting);
            }
            prop_assert_eq!(cache.as_ref().unwrap().rows(), committed.len());
            prop_assert_eq!(cache.as_ref().unwrap().pending(), waiting.len());
        }
        let reader = CacheReader::open(dir.path(), None).unwrap();
        for n in 0..60 {
            let row = reader.get(&key(n)).unwrap();
            prop_assert_eq!(row.map(|row| row.f32().unwrap().to_vec()), committed.get(&n).map(|row| row.to_vec()));
        }
        assert_sound(dir.path());
    }
}

#[test]
fn many_rows_take_their_payload_and_at_most_24_bytes_each() {
    const ROWS: u64 = 300_000;
    let dir = tempfile::tempdir().unwrap();
    let captured = Captured::dense(10, Dtype::F16);
    let mut writer = writer(dir.path(), &captured);
    for commit in 0..12 {
        push(&mut writer, commit * ROWS / 12..(commit + 1) * ROWS / 12);
        writer.commit().unwrap();
    }
    writer.finish().unwrap();
    let reader = open(dir.path());
    assert_eq!((reader.len() as u64, reader.shards()), (ROWS, 12));
    let sizes = |prefix: &str| -> u64 {
        files(dir.path()).iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, bytes)| bytes.len() as u64).sum()
    };
    let (payload, index, shards) = (ROWS * captured.output_bytes() as u64, sizes("index-"), sizes("shard-"));
    // Measured: 21 bytes a row of index, 1.0004 of the payload.
    assert!(index <= 24 * ROWS, "{index} bytes of index");
    assert!(shards as f64 <= 1.15 * payload as f64, "{shards} bytes of shards for {payload}");
    assert!(reader.bytes() <= 24 * ROWS + payload + payload * 15 / 100);
    for n in (0..ROWS).step_by(7) {
        let row = reader.get(&key(n)).unwrap().unwrap();
        let expected = given(n, &captured).logits;
        assert!(row.logits().zip(&expected).all(|(found, expected)| (found - expected).abs() < 0.01), "row {n}");
        assert!(!reader.contains(&key(ROWS + n)).unwrap());
    }
    assert_sound(dir.path());
}
