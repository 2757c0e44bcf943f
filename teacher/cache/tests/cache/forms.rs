//! Every form of storage: rows come back as it says, and the recorded error is what anybody computes from them.

use cache::{CacheReader, Captured, Dtype, Key, LogitForm, StoredRow};
use half::{bf16, f16};

use crate::support::*;

#[test]
fn rows_come_back_as_their_form_says() {
    for (name, captured) in forms() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = fill(dir.path(), &captured, 0..9);
        push(&mut writer, 9..150);
        assert_eq!((writer.rows(), writer.pending()), (9, 141));
        writer.commit().unwrap();
        assert_eq!((writer.rows(), writer.pending()), (150, 0));
        let reader = CacheReader::open(dir.path(), Some(&fingerprint(&captured))).unwrap();
        assert_eq!((reader.len(), reader.shards(), reader.bytes()), (150, 2, writer.bytes()));
        assert_eq!((reader.captured(), reader.batch_tokens(), reader.unreachable_rows()), (&captured, 512, 0));
        for n in 0..150 {
            let given = given(n, &captured);
            check_row(name, &captured, &given, &reader.get(&given.key).unwrap().unwrap());
        }
        assert!(reader.get(&key(150)).unwrap().is_none());
        assert_sound(dir.path());
    }
}

#[test]
fn many_rows_are_found_as_one_is() {
    for (name, captured) in forms() {
        let dir = tempfile::tempdir().unwrap();
        // An index of several runs.
        let mut writer = fill(dir.path(), &captured, 0..60);
        push(&mut writer, 60..70);
        writer.commit().unwrap();
        let reader = open(dir.path());
        // More than are looked up at a time, some of them unknown, one twice.
        let wanted: Vec<Key> = (0..75).rev().chain([3]).map(key).collect();
        let mut met = Vec::new();
        reader
            .get_many(&wanted, |key, row| {
                let one = reader.get(key).unwrap();
                assert_eq!(row.map(|row| bytes(&row, 1)), one.map(|row| bytes(&row, 1)), "{name}");
                if let Some(row) = row {
                    let mut logits = vec![f32::MAX];
                    row.append_logits(&mut logits);
                    assert_eq!(logits[1..], row.logits().collect::<Vec<f32>>(), "{name}");
                }
                met.push((*key, row.is_some()));
            })
            .unwrap();
        let expected: Vec<(Key, bool)> = (0..75).rev().chain([3]).map(|n| (key(n), n < 70)).collect();
        assert_eq!(met, expected, "{name}");
    }
}

/// The number that is stored for a logit.
fn rounded(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::F32 => value,
        Dtype::F16 => f16::from_f32(value).to_f32(),
        Dtype::Bf16 => bf16::from_f32(value).to_f32(),
    }
}

fn check_row(name: &str, captured: &Captured, given: &Given, row: &StoredRow<'_>) {
    assert_eq!(row.outputs(), given.outputs, "{name}");
    let logits: Vec<f32> = row.logits().collect();
    let indices: Vec<usize> = row.indices().map(|index| index as usize).collect();
    let in_place = [
        row.f32().map(<[f32]>::to_vec),
        row.f16().map(|values| values.iter().map(|value| value.to_f32()).collect()),
        row.bf16().map(|values| values.iter().map(|value| value.to_f32()).collect()),
    ];
    let outputs = given.logits.chunks(captured.width);
    match &captured.logits {
        LogitForm::Dense { dtype } => {
            let expected: Vec<f32> = given.logits.iter().map(|value| rounded(*dtype, *value)).collect();
            assert_eq!(logits, expected, "{name}");
            let place = [Dtype::F32, Dtype::F16, Dtype::Bf16].iter().position(|one| one == dtype).unwrap();
            for (at, in_place) in in_place.into_iter().enumerate() {
                assert_eq!(in_place, (at == place).then(|| expected.clone()), "{name}");
            }
            assert!(indices.is_empty() && row.tails().next().is_none());
        }
        LogitForm::TopK { k, dtype, temperatures } => {
            assert!(in_place.iter().all(Option::is_none));
            let tails: Vec<f32> = row.tails().collect();
            for (output, values) in outputs.enumerate() {
                let order = falling(values);
                assert_eq!(indices[output * k..][..*k], order[..*k], "{name}");
                let kept: Vec<f32> = order[..*k].iter().map(|&index| rounded(*dtype, values[index])).collect();
                assert_eq!(logits[output * k..][..*k], kept, "{name}");
                for (at, temperature) in temperatures.iter().enumerate() {
                    let terms = order[*k..].iter().map(|&index| (f64::from(values[index]) / temperature).exp());
                    let found = f64::from(tails[output * temperatures.len() + at]);
                    // Measured: at most 5e-7, the rounding to f32.
                    assert!((found - terms.sum::<f64>().ln()).abs() < 1.5e-6, "{name}: {found}");
                }
            }
            assert_eq!((indices.len(), tails.len()), (given.outputs * k, given.outputs * temperatures.len()));
        }
        LogitForm::Sample { draws, .. } => {
            assert!(in_place.iter().all(Option::is_none) && logits.is_empty());
            assert_eq!(indices.len(), given.outputs * draws);
            assert!(indices.chunks(*draws).all(|draws| draws.is_sorted() && draws[draws.len() - 1] < captured.width));
        }
    }
    let hidden: Vec<f32> = given.hidden.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
    assert_eq!(row.hidden_states(given.hidden_tokens), captured.hidden_states.as_ref().map(|_| hidden), "{name}");
    if matches!(&captured.hidden_states, Some(form) if form.tokens == cache::HiddenTokens::All) {
        assert_eq!(row.hidden_states(given.hidden_tokens + 1), None, "{name}: a row of other tokens");
    }
}

/// The places of values, the largest first, of equal ones the first.
fn falling(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}

#[test]
fn the_recorded_error_is_what_anybody_computes() {
    for (name, captured) in forms() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = fill(dir.path(), &captured, 0..70);
        push(&mut writer, 70..100);
        writer.finish().unwrap();
        let reader = open(dir.path());
        let recorded = reader.recorded_error().clone();
        let temperatures: Vec<f64> = match &captured.logits {
            LogitForm::Dense { dtype: Dtype::F32 } | LogitForm::Sample { .. } => vec![],
            LogitForm::Dense { .. } => vec![1.0, 2.0, 4.0],
            LogitForm::TopK { temperatures, .. } => temperatures.clone(),
        };
        let (mut outputs, mut largest, mut missed) = (0, 0.0_f64, 0.0);
        let (mut sums, mut most) = (vec![0.0; temperatures.len()], vec![0.0_f64; temperatures.len()]);
        let (mut hidden_largest, mut squares) = (0.0_f64, [0.0; 2]);
        for n in 0..100 {
            let given = given(n, &captured);
            let row = reader.get(&given.key).unwrap().unwrap();
            let stored: Vec<f32> = row.logits().collect();
            let indices: Vec<usize> = row.indices().map(|index| index as usize).collect();
            let tails: Vec<f32> = row.tails().collect();
            for (output, logits) in given.logits.chunks(captured.width).enumerate() {
                outputs += 1;
                // The logits that the stored row stands for, at each temperature.
                let stood_for = |at: usize, temperature: f64| -> Vec<f64> {
                    match &captured.logits {
                        LogitForm::Dense { .. } => {
                            stored[output * logits.len()..][..logits.len()].iter().map(|z| f64::from(*z)).collect()
                        }
                        LogitForm::TopK { k, .. } => {
                            let others = (logits.len() - k) as f64;
                            let tail = f64::from(tails[output * temperatures.len() + at]);
                            let mut all = vec![(tail - others.ln()) * temperature; logits.len()];
                            for place in output * k..(output + 1) * k {
                                all[indices[place]] = f64::from(stored[place]);
                            }
                            all
                        }
                        LogitForm::Sample { .. } => vec![],
                    }
                };
                for (at, &temperature) in temperatures.iter().enumerate() {
                    let p = softmax(logits.iter().map(|z| f64::from(*z)), temperature);
                    let q = softmax(stood_for(at, temperature), temperature);
                    let lost: f64 = p.iter().zip(&q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum();
                    sums[at] += lost;
                    most[at] = most[at].max(lost);
                }
                match &captured.logits {
                    LogitForm::Dense { .. } => {
                        for (a, b) in logits.iter().zip(&stored[output * logits.len()..]) {
                            largest = largest.max((f64::from(*a) - f64::from(*b)).abs());
                        }
                    }
                    LogitForm::TopK { k, .. } => {
                        for place in output * k..(output + 1) * k {
                            let difference = f64::from(logits[indices[place]]) - f64::from(stored[place]);
                            largest = largest.max(difference.abs());
                        }
                    }
                    LogitForm::Sample { draws, temperature, .. } => {
                        let p = softmax(logits.iter().map(|z| f64::from(*z)), *temperature);
                        let drawn = &indices[output * draws..(output + 1) * draws];
                        missed += (0..p.len()).filter(|word| !drawn.contains(word)).map(|word| p[word]).sum::<f64>();
                    }
                }
            }
            for (value, stored) in given.hidden.iter().zip(row.hidden_states(given.hidden_tokens).unwrap_or_default()) {
                let difference = f64::from(*value) - f64::from(stored);
                hidden_largest = hidden_largest.max(difference.abs());
                squares[0] += difference * difference;
                squares[1] += f64::from(*value) * f64::from(*value);
            }
        }
        assert_eq!(recorded.outputs, outputs, "{name}");
        assert_eq!((recorded.largest_logit_error, recorded.largest_hidden_error), (largest, hidden_largest), "{name}");
        let near = |found: f64, expected: f64, tolerance: f64| {
            assert!((found - expected).abs() <= tolerance * (1.0 + expected.abs()), "{name}: {found} {expected}");
        };
        near(recorded.missed_mass, missed, 1e-9);
        near(recorded.hidden_squares[0], squares[0], 1e-9);
        near(recorded.hidden_squares[1], squares[1], 1e-9);
        assert_eq!(recorded.divergences.len(), temperatures.len());
        for (at, found) in recorded.divergences.iter().enumerate() {
            assert_eq!(found.temperature, temperatures[at]);
            // The sums of the rest are taken in f32, and its tail is rounded to one.
            near(found.sum, sums[at], 1e-5);
            near(found.largest, most[at], 1e-5);
        }
        for ((temperature, mean), at) in recorded.mean_divergences().zip(&recorded.divergences) {
            assert_eq!((temperature, mean), (at.temperature, at.sum / outputs as f64));
        }
    }
}

#[test]
fn the_largest_alone_are_stored_as_all_logits_would_be() {
    for (name, captured) in forms() {
        let LogitForm::TopK { k, temperatures, .. } = &captured.logits else { continue };
        let [all, alone] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        drop(fill(all.path(), &captured, 0..50));
        let mut writer = writer(alone.path(), &captured);
        for n in 0..50 {
            let given = given(n, &captured);
            let (mut values, mut columns, mut rest) = (Vec::new(), Vec::new(), Vec::new());
            for logits in given.logits.chunks(captured.width) {
                let order = falling(logits);
                values.extend(order[..*k].iter().map(|&place| logits[place]));
                columns.extend(order[..*k].iter().map(|&place| place as u32));
                let top = logits[order[*k]];
                rest.push(top);
                for temperature in temperatures {
                    let scaled = || order[*k..].iter().map(|&place| f64::from(logits[place] - top) / temperature);
                    rest.push(scaled().map(f64::exp).sum::<f64>() as f32);
                    rest.push(scaled().map(|x| x.exp() * x).sum::<f64>() as f32);
                }
            }
            let top = cache::TopLogits { values: &values, columns: &columns, rest: &rest };
            let row = cache::NewRow { logits: cache::NewLogits::Top(top), ..given.row() };
            assert_eq!(writer.push(&[row]).unwrap(), 1);
        }
        writer.finish().unwrap();
        assert_sound(alone.path());
        let [all, alone] = [&all, &alone].map(|dir| open(dir.path()));
        for n in 0..50 {
            let [all, alone] = [&all, &alone].map(|reader| reader.get(&key(n)).unwrap().unwrap());
            assert!(all.indices().eq(alone.indices()) && all.logits().eq(alone.logits()), "{name}");
            let tokens = given(n, &captured).hidden_tokens;
            assert_eq!(all.hidden_states(tokens), alone.hidden_states(tokens), "{name}");
            for (all, alone) in all.tails().zip(alone.tails()) {
                // Measured: at most 1.9e-6, a unit in the last place of a tail beyond 16.
                assert!((all - alone).abs() < 5.7e-6, "{name}: {all} {alone}");
            }
        }
        let [all, alone] = [&all, &alone].map(|reader| reader.recorded_error());
        assert_eq!((all.outputs, all.largest_logit_error), (alone.outputs, alone.largest_logit_error), "{name}");
        for (all, alone) in all.divergences.iter().zip(&alone.divergences) {
            // Measured: at most 1.4e-6, of 50 rows.
            assert!((all.sum - alone.sum).abs() < 4.2e-6, "{name}: {all:?} {alone:?}");
        }
    }
}

fn softmax(logits: impl IntoIterator<Item = f64>, temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = logits.into_iter().map(|z| z / temperature).collect();
    let top = scaled.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = scaled.iter().map(|z| (z - top).exp()).sum();
    scaled.iter().map(|z| (z - top).exp() / sum).collect()
}

#[test]
fn logits_beyond_sixteen_bits_are_stored_as_the_largest_and_recorded() {
    for (dtype, most) in [(Dtype::F16, 65_504.0), (Dtype::Bf16, bf16::MAX.to_f32())] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), &Captured::dense(3, dtype));
        let row = |key, logits: &'static [f32]| cache::NewRow { key, logits: logits.into(), hidden_states: &[] };
        writer.push(&[row(key(0), &[f32::MAX, f32::MIN, 0.0])]).unwrap();
        writer.commit().unwrap();
        // What is recorded is no infinity: JSON has none, and the manifest could not be read again.
        let reader = open(dir.path());
        let stored: Vec<f32> = reader.get(&key(0)).unwrap().unwrap().logits().collect();
        assert_eq!(stored, [most, -most, 0.0]);
        assert_eq!(reader.recorded_error().largest_logit_error, f64::from(f32::MAX) - f64::from(most));
    }
}

#[test]
fn extreme_logits_leave_a_manifest_that_can_be_read() {
    let rows: [&[f32]; 4] = [
        &[f32::MAX, f32::MIN, f32::MIN, f32::MIN, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        &[f32::MIN; 11],
        &[f32::MAX; 11],
        &[1e-45, -1e-45, -0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -3e38],
    ];
    for captured in [top_k(Dtype::F32), top_k(Dtype::F16), top_k(Dtype::Bf16), sample()] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), &captured);
        for (n, logits) in rows.into_iter().enumerate() {
            writer.push(&[cache::NewRow { key: key(n as u64), logits: logits.into(), hidden_states: &[] }]).unwrap();
        }
        writer.commit().unwrap();
        assert_eq!(open(dir.path()).len(), 4);
        assert_sound(dir.path());
    }
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    for (name, captured) in forms() {
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        drop(fill(one.path(), &captured, 0..200));
        drop(fill(other.path(), &captured, 0..200));
        assert_eq!(files(one.path()), files(other.path()), "{name}");
    }
}

#[test]
fn content_is_equal_exactly_where_rows_are() {
    let mut contents = std::collections::HashSet::new();
    for (name, captured) in forms() {
        let [forwards, backwards, less] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        drop(fill(forwards.path(), &captured, 0..20));
        let mut writer = fill(backwards.path(), &captured, (10..20).rev());
        push(&mut writer, (0..10).rev());
        writer.commit().unwrap();
        drop(fill(less.path(), &captured, 0..19));
        let content = |dir: &tempfile::TempDir| open(dir.path()).content().unwrap();
        assert_eq!(content(&forwards), content(&backwards), "{name}");
        writer.finish().unwrap();
        assert_eq!(content(&forwards), content(&backwards), "{name}");
        assert!(contents.insert(content(&forwards)) && contents.insert(content(&less)), "{name}");
    }
    // One value of one row.
    let contents = [0.0_f32, f32::from_bits(1)].map(|value| {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = fill(dir.path(), &dense(Dtype::F32), 0..20);
        writer
            .push(&[cache::NewRow { key: key(20), logits: (&[0.0, 0.0, value, 0.0, 0.0]).into(), hidden_states: &[] }])
            .unwrap();
        writer.commit().unwrap();
        open(dir.path()).content().unwrap()
    });
    assert_ne!(contents[0], contents[1]);
}

#[test]
fn a_sample_is_unbiased_at_its_temperature() {
    let captured =
        Captured { width: 4, logits: LogitForm::Sample { draws: 50, temperature: 2.0, seed: 3 }, ..sample() };
    let logits = [1.0_f32, -2.0, 3.0, 0.0];
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path(), &captured);
    let rows: Vec<_> =
        (0..1000).map(|n| cache::NewRow { key: key(n), logits: (&logits).into(), hidden_states: &[] }).collect();
    writer.push(&rows).unwrap();
    writer.commit().unwrap();
    let reader = open(dir.path());
    let mut counts = [0.0; 4];
    for entry in reader.rows() {
        entry.unwrap().1.indices().for_each(|word| counts[word as usize] += 1.0 / 50_000.0);
    }
    let expected = softmax(logits.map(f64::from), 2.0);
    for (share, expected) in counts.into_iter().zip(expected) {
        // Four standard deviations of 50,000 draws are at most 0.009.
        assert!((share - expected).abs() < 0.009, "{share} {expected}");
    }
}
