//! A cache that is not as it was written: every command says which file, and touches nothing.

use std::fs;

use serde_json::Value;

use crate::support::{CACHE, Finished, TRAIN, Workplace};

const SHARD: &str = "cache/shard-00000.safetensors";
const INDEX: &str = "cache/index-00000.safetensors";
const MANIFEST: &str = "cache/manifest.json";

/// A cache that `spoil` changed is refused by whatever reads or writes it, with all of `expected`, and nothing is changed.
fn refused_by_all(spoil: impl FnOnce(&Workplace), expected: &[&str]) {
    let place = Workplace::with_cache();
    spoil(&place);
    let files = place.files("cache");
    place.refuses(&format!("{TRAIN} --output student"), expected);
    place.refuses(CACHE, expected);
    place.refuses("cache inspect cache", expected);
    place.refuses("cache gc cache", expected);
    place.refuses("cache export cache --output rows.parquet", expected);
    let damage = place.damage("cache").join("\n");
    for expected in expected {
        assert!(damage.contains(expected), "no `{expected}` in: {damage}");
    }
    assert!(!place.path("student").exists() && !place.path("rows.parquet").exists());
    assert!(place.files("cache") == files);
}

fn truncate(place: &Workplace, file: &str, bytes: usize) {
    let content = place.read_bytes(file);
    place.write(file, &content[..content.len() - bytes]);
}

#[test]
fn a_truncated_shard() {
    refused_by_all(|place| truncate(place, SHARD, 1), &[SHARD, "9747 bytes, the manifest says 9748"]);
    refused_by_all(|place| truncate(place, SHARD, 9748), &[SHARD, "0 bytes, the manifest says 9748"]);
}

#[test]
fn a_truncated_index() {
    refused_by_all(|place| truncate(place, INDEX, 100), &[INDEX, "bytes"]);
}

#[test]
fn a_missing_file() {
    for file in [SHARD, INDEX] {
        refused_by_all(|place| fs::remove_file(place.path(file)).expect("is there"), &[file, "missing"]);
    }
}

/// Keys are made of it where there is no teacher.
#[test]
fn a_missing_tokenizer() {
    let place = Workplace::with_cache();
    fs::remove_file(place.path("cache/tokenizer.json")).expect("is there");
    assert!(place.damage("cache")[0].starts_with("cache/tokenizer.json: missing"));
    place.refuses("cache inspect cache --data train.tsv", &["cache/tokenizer.json: missing"]);
    place.json(&format!("{TRAIN} --output student"));
}

#[test]
fn a_manifest_of_a_newer_version() {
    let newer = |place: &Workplace| place.edit_json(MANIFEST, |manifest| manifest["schema_version"] = 3.into());
    refused_by_all(newer, &[MANIFEST, "schema_version is 3", "this build reads 2"]);
}

/// The first format, as an earlier version of the program left it.
#[test]
fn a_manifest_of_the_first_version() {
    let older =
        |place: &Workplace| place.write(MANIFEST, "{\"schema_version\": 1, \"fingerprint\": {}, \"shards\": []}");
    refused_by_all(older, &[MANIFEST, "schema_version is 1", "capture again"]);
}

#[test]
fn a_manifest_that_was_edited() {
    let edited = |edit: fn(&mut Value), field: &str| {
        let field = format!("field `{field}` is not what it was when it was written");
        refused_by_all(|place| place.edit_json(MANIFEST, edit), &[MANIFEST, &field]);
    };
    edited(|manifest| manifest["rows"] = 599.into(), "rows");
    edited(|manifest| manifest["batch_tokens"] = 2048.into(), "batch_tokens");
    edited(|manifest| manifest["fingerprint"]["max_length"] = 32.into(), "fingerprint.max_length");
    edited(|manifest| manifest["fingerprint"]["labels"][0] = "bread".into(), "fingerprint.labels");
    edited(|manifest| manifest["fingerprint"]["teacher"] = "0".into(), "fingerprint.teacher");
    edited(|manifest| manifest["shards"][0]["rows"] = 601.into(), "shards");
}

#[test]
fn a_manifest_that_is_cut_off() {
    refused_by_all(|place| truncate(place, MANIFEST, 100), &[MANIFEST]);
}

#[test]
fn another_teacher_s_shard() {
    let copied = |place: &Workplace| {
        place.copy("cache", "sound");
        place.edit_tensor("classifier.weight", |bytes| bytes[0] ^= 1);
        place.json(&CACHE.replace("--output cache", "--output other"));
        place.copy("other", "cache");
        // All but the shard is put back.
        for file in ["manifest.json", "index-00000.safetensors"] {
            place.write(&format!("cache/{file}"), place.read_bytes(&format!("sound/{file}")));
        }
        place.edit_tensor("classifier.weight", |bytes| bytes[0] ^= 1);
    };
    refused_by_all(copied, &[SHARD, "its checksum is ", "the manifest says"]);
}

#[test]
fn a_cache_that_cannot_be_read_can_be_overwritten() {
    let place = Workplace::with_cache();
    let files = place.files("cache");
    let spoils: [fn(&Workplace); 4] = [
        |place| place.write(MANIFEST, "{\"schema_version\": 1, \"fingerprint\": {}, \"shards\": []}"),
        |place| place.edit_json(MANIFEST, |manifest| manifest["rows"] = 1.into()),
        |place| truncate(place, MANIFEST, 10),
        |place| fs::remove_file(place.path(SHARD)).expect("is there"),
    ];
    for spoil in spoils {
        spoil(&place);
        place.json(&format!("{CACHE} --overwrite"));
        assert!(place.files("cache") == files);
    }
}

/// A copy of the same teacher's rows under a number of its own belongs to no manifest.
#[test]
fn a_shard_that_no_manifest_names_is_left_out() {
    let place = Workplace::with_cache();
    let shard = place.read_bytes(SHARD);
    place.write("cache/shard-00007.safetensors", shard);
    place.assert_sound("cache");
    assert_eq!(place.inspect("cache")["rows"], 600);
    assert_eq!(place.json(CACHE)["forwarded"], 0);
    assert!(!place.path("cache/shard-00007.safetensors").exists());
}

/// A flip among the texts' own keys must not look like a row that is not there.
#[test]
fn a_flipped_key_is_damage_and_no_miss() {
    for position in [1000, 5000, 11_999] {
        refused_by_all(|place| place.flip(INDEX, position), &[INDEX, "block 0 of 1"]);
    }
}

/// Runs a line where the cache cannot be written, or nothing where this system does not let a test arrange that.
fn read_only(place: &Workplace, line: &str) -> Option<Finished> {
    let mount = "mount --bind cache cache && mount -o remount,bind,ro cache";
    let in_namespace =
        |line: &str| place.shell(&format!("unshare --user --map-root-user --mount sh -c '{mount} || exit 77; {line}'"));
    if in_namespace("true").code != Some(0) {
        #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
        {
            eprintln!("left out: this system does not let a test mount a folder read-only");
        }
        return None;
    }
    Some(in_namespace(&format!("exec $DISTILL {line} --json")))
}

#[test]
fn a_folder_without_leave_to_write() {
    let place = Workplace::with_cache();
    let files = place.files("cache");
    for line in [&format!("{TRAIN} --output student"), "cache verify cache", "cache inspect cache --data train.tsv"] {
        let Some(done) = read_only(&place, line) else { return };
        done.succeeded();
    }
    for line in [CACHE, &format!("{CACHE} --refresh --dtype f16"), &format!("{CACHE} --overwrite"), "cache gc cache"] {
        let Some(done) = read_only(&place, line) else { return };
        let message = done.failure();
        assert!(message.contains("cache/.lock: cannot be written: Read-only file system"), "{line}: {message}");
        assert!(message.contains("leave to write"), "no way out: {message}");
    }
    assert!(place.files("cache") == files);
}
