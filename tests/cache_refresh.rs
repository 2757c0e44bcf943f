//! `--refresh`: what is stale is captured anew, and nothing else.

use serde_json::{Value, json};

use crate::support::{CACHE, CLASSES, Finished, TRAIN, Workplace, rows};

/// Refreshes `cache` and returns `forwarded` and `skipped`.
fn refresh(place: &Workplace, flags: &str) -> [u64; 2] {
    counts(&place.json(&format!("{CACHE} --refresh {flags}")))
}

fn counts(report: &Value) -> [u64; 2] {
    ["forwarded", "skipped"].map(|key| report[key].as_u64().expect("a count"))
}

/// What a refresh says of what is stale.
fn said(place: &Workplace, flags: &str) -> String {
    let Finished { code, stderr, .. } = place.run(&format!("{CACHE} --refresh {flags}"));
    assert_eq!(code, Some(0), "{stderr}");
    stderr
}

/// After a refresh the cache is what a capture from nothing gives.
fn is_as_from_nothing(place: &Workplace, flags: &str) {
    place.assert_sound("cache");
    place.json(&format!("{CACHE} {flags}").replace("--output cache", "--output fresh"));
    assert_eq!(place.content("cache"), place.content("fresh"));
    let fingerprint = |cache: &str| place.read_json(&format!("{cache}/manifest.json"))["fingerprint"].clone();
    assert_eq!(fingerprint("cache"), fingerprint("fresh"));
    assert_eq!(place.names("cache").len(), place.names("fresh").len(), "files of the former cache are left");
}

#[test]
fn other_weights_make_every_row_stale() {
    for name in ["bert.encoder.layer.0.output.dense.weight", "classifier.weight"] {
        let place = Workplace::with_cache();
        place.edit_tensor(name, |bytes| bytes[0] ^= 1);
        assert_eq!(refresh(&place, ""), [600, 0], "{name}");
        is_as_from_nothing(&place, "");
    }
    let place = Workplace::with_cache();
    place.edit_tensor("classifier.weight", |bytes| bytes[0] ^= 1);
    let said = said(&place, "");
    assert!(said.contains("everything is captured anew: its head is "), "{said}");
}

#[test]
fn another_tokenizer_makes_every_row_stale_and_is_kept_from_then_on() {
    let place = Workplace::with_cache();
    place.edit_json("teacher/tokenizer_config.json", |config| config["do_lower_case"] = json!(false));
    assert_eq!(refresh(&place, ""), [600, 0]);
    is_as_from_nothing(&place, "");
    assert_eq!(place.json("cache inspect cache --data train.tsv")["data"]["cached"], 600);
}

#[test]
fn another_form_makes_every_row_stale() {
    let place = Workplace::with_cache();
    for flags in ["--dtype f16", "--top-k 2", "--sample 4", "--hidden-states 1", ""] {
        assert_eq!(refresh(&place, flags), [600, 0], "{flags}");
        assert_eq!(refresh(&place, flags), [0, 600], "{flags}");
        place.assert_sound("cache");
    }
    is_as_from_nothing(&place, "");
}

#[test]
fn another_length_makes_the_truncated_rows_stale() {
    let place = Workplace::with_cache();
    let short = place.json(&format!("{CACHE} --refresh --max-length 12"));
    let (truncated, unique) = (short["truncated"].as_u64(), short["unique"].as_u64());
    let [forwarded, skipped] = counts(&short);
    // Some are equal once they are cut, so that fewer are forwarded than were cut.
    assert!(0 < forwarded && Some(forwarded) <= truncated && Some(forwarded + skipped) == unique, "{short}");
    assert_eq!(Some(skipped), truncated.map(|truncated| 600 - truncated));
    assert_eq!(place.read_json("cache/manifest.json")["fingerprint"]["max_length"], 12);
    place.assert_sound("cache");

    // The rows of the first length are there still.
    assert_eq!(refresh(&place, ""), [0, 600]);
    assert_eq!(refresh(&place, "--max-length 12"), [0, forwarded + skipped]);
    place.json("cache gc cache --data train.tsv");
    let back = refresh(&place, "");
    assert_eq!((Some(back[0]), back[0] + back[1]), (truncated, 600));
    place.json(&format!("{TRAIN} --output student"));
}

/// Bakery and library change places in the teacher: its names, and the rows of its last linear map.
fn permute(place: &Workplace) {
    place.edit_json("teacher/config.json", |config| {
        config["id2label"] = json!({"0": "library", "1": "bakery", "2": "station", "3": "garden"});
        config["label2id"] = json!({"library": 0, "bakery": 1, "station": 2, "garden": 3});
    });
    for name in ["classifier.weight", "classifier.bias"] {
        place.edit_tensor(name, |bytes| {
            let row = bytes.len() / 4;
            let (first, rest) = bytes.split_at_mut(row);
            first.swap_with_slice(&mut rest[..row]);
        });
    }
}

#[test]
fn permuted_classes_make_nothing_stale() {
    let place = Workplace::with_cache();
    let accuracy = |place: &Workplace| place.json("cache inspect cache --data train.tsv")["data"]["accuracy"].clone();
    let (before, known) = (place.exported("cache"), accuracy(&place));
    permute(&place);
    place.refuses(CACHE, &["its labels is `bakery` as label 0", "--refresh"]);
    assert_eq!(refresh(&place, ""), [0, 600]);
    let after = place.exported("cache");
    assert_eq!(after.keys(), before.keys());
    for (now, then) in [1, 0, 2, 3].into_iter().enumerate() {
        assert_eq!(after.class(now), before.class(then), "class {now}");
    }
    assert_eq!(after.labels, json!(["library", "bakery", "station", "garden"]));
    assert_eq!(accuracy(&place), known);
    is_as_from_nothing(&place, "");
    place.json(&format!("{TRAIN} --output student"));
}

#[test]
fn permuted_classes_take_the_largest_logits_and_draws_along() {
    for form in ["--top-k 2", "--sample 6", "--dtype f16 --hidden-states 1"] {
        let place = Workplace::new();
        place.json(&format!("{CACHE} {form}"));
        let before = place.exported("cache");
        permute(&place);
        assert_eq!(refresh(&place, form), [0, 600], "{form}");
        let after = place.exported("cache");
        assert_eq!(after.keys(), before.keys());
        for (now, then) in after.rows.iter().zip(&before.rows) {
            let mut moved: Vec<usize> = then.indices.iter().map(|&index| [1, 0, 2, 3][index]).collect();
            if form.starts_with("--sample") {
                moved.sort_unstable();
            }
            assert_eq!((&now.indices, &now.tails), (&moved, &then.tails), "{form}");
        }
        place.assert_sound("cache");
        assert_eq!(refresh(&place, form), [0, 600], "{form}");
    }
}

#[test]
fn renamed_classes_make_nothing_stale() {
    let place = Workplace::with_cache();
    let before = place.exported("cache");
    let texts: String = rows(&place.read("train.tsv")).iter().map(|(text, _)| format!("{text}\n")).collect();
    place.write("texts.txt", texts);
    place.edit_json("teacher/config.json", |config| {
        config["id2label"] = json!({"0": "bread", "1": "books", "2": "trains", "3": "plants"});
        config["label2id"] = json!({"bread": 0, "books": 1, "trains": 2, "plants": 3});
    });
    let line = CACHE.replace("train.tsv", "texts.txt");
    place.refuses(&line, &["its labels is `bakery` as label 0, asked for is `bread`"]);
    assert_eq!(counts(&place.json(&format!("{line} --refresh"))), [0, 600]);
    let after = place.exported("cache");
    assert!(after.rows == before.rows);
    assert_eq!(after.labels, json!(["bread", "books", "trains", "plants"]));
    place.assert_sound("cache");
}

#[test]
fn a_refresh_says_what_is_stale() {
    let place = Workplace::new();
    // There was nothing to bring up to date.
    assert!(!said(&place, "").contains("up to date"));
    assert!(said(&place, "").contains("the cache is up to date with this teacher"));
    let length = said(&place, "--max-length 12");
    assert!(length.contains("another length: the texts that are cut elsewhere now are captured anew"), "{length}");
    permute(&place);
    let order = said(&place, "--max-length 12");
    assert!(order.contains("the same classes otherwise ordered or named"), "{order}");
    let form = said(&place, "--dtype f16");
    assert!(
        form.contains(
            "everything is captured anew: its captured.logits is {\"form\":\"dense\",\"dtype\":\"f32\"}, asked for"
        ),
        "{form}"
    );
}

#[test]
fn a_refresh_that_was_killed_goes_on() {
    let place = Workplace::new();
    place.many_rows(5);
    let line = format!("{} --output cache", crate::cache_tools::MANY);
    place.json(&line);
    place.edit_tensor("classifier.weight", |bytes| bytes[0] ^= 1);
    let shard = place.path("cache/shard-00001.safetensors");
    // The former cache has six shards, the new manifest is the first thing that is written.
    let began = || !shard.exists();
    place.start(&format!("{line} --refresh")).until(began).signal("KILL");
    place.json(&format!("{line} --refresh"));
    place.assert_sound("cache");
    place.json(&format!("{line} --overwrite").replace("--output cache", "--output fresh"));
    assert!(place.files("cache") == place.files("fresh"));
    assert_eq!(place.exported("cache").labels, json!(CLASSES));
}
