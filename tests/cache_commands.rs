//! What can be done with a cache that is there: inspect, verify, estimate, merge, export, gc.

use std::path::Path;

use serde_json::{Value, json};

use crate::cache_tools::{Exported, MANY};
use crate::support::{CACHE, CLASSES, TRAIN, Workplace, keys, repository, rows, tsv};

/// The fixture's rows from `first` up to `end`, captured into a cache of their own.
fn capture_part(place: &Workplace, first: usize, end: usize, cache: &str, flags: &str) {
    place.write("part.tsv", tsv(&rows(&place.read("train.tsv"))[first..end]));
    place.json(&format!("cache --teacher teacher --data part.tsv --output {cache} --force {flags}"));
}

#[test]
fn inspect_says_what_a_cache_holds() {
    let place = Workplace::with_cache();
    let report = place.inspect("cache");
    assert_eq!((&report["rows"], &report["shards"], &report["outputs"]), (&json!(600), &json!(1), &json!(600)));
    assert_eq!((&report["unreachable_rows"], &report["batch_tokens"]), (&json!(0), &json!(4096)));
    let files = place.files("cache");
    let bytes: usize = files.iter().filter(|(name, _)| *name != "manifest.json").map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(report["bytes"], bytes);
    assert_eq!(report["bytes_per_row"], bytes as f64 / 600.0);
    assert_eq!(report["fingerprint"], place.read_json("cache/manifest.json")["fingerprint"]);
    assert_eq!(report["content"].as_str().map(str::len), Some(64));
    assert_eq!(report["data"], Value::Null);
    assert_eq!(place.files("cache"), files);

    let entropy = |logits: &[f32]| {
        let mass: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        logits.iter().map(|&z| f64::from(z).exp() / mass).map(|p| -p * p.ln()).sum::<f64>()
    };
    let mean = place.exported("cache").rows.iter().map(|row| entropy(&row.logits)).sum::<f64>() / 600.0;
    let said = report["entropy"].as_f64().expect("a number");
    assert!((said - mean).abs() < 1e-9, "{said} is not {mean}");
}

#[test]
fn inspect_says_how_much_of_data_is_cached() {
    let place = Workplace::new();
    let captured = place.json(CACHE);
    let of = |data: &str| place.json(&format!("cache inspect cache --data {data}"))["data"].clone();
    assert_eq!(
        of("train.tsv"),
        json!({
            "rows": 600, "cached": 600, "labels": [150, 150, 150, 150], "labelled": 600, "accuracy": captured["accuracy"]
        })
    );
    let (train, test) = (rows(&place.read("train.tsv")), rows(&place.read("test.tsv")));
    let only = |rows: &[(String, String)]| {
        rows.iter().filter(|(_, label)| label == "bakery").take(7).cloned().collect::<Vec<_>>()
    };
    place.write("some.tsv", tsv(&[only(&train), test].concat()));
    let some = of("some.tsv");
    assert_eq!((&some["rows"], &some["cached"], &some["labels"]), (&json!(207), &json!(7), &json!([7, 0, 0, 0])));
    place.write("texts.txt", "a text without a label\n");
    assert_eq!(
        of("texts.txt"),
        json!({"rows": 1, "cached": 0, "labels": [0, 0, 0, 0], "labelled": 0, "accuracy": null})
    );
    place.refuses("cache inspect cache --data nowhere.tsv", &["nowhere.tsv"]);
    place.refuses("cache inspect cache --data some.tsv --max-length 8", &["cache: ", "length 64", "--max-length"]);
}

#[test]
fn inspect_prints_a_table() {
    let place = Workplace::with_cache();
    let done = place.run("cache inspect cache --data train.tsv");
    done.succeeded();
    for line in [
        "rows           600",
        "stored         4 logits in f32",
        "task           single_label",
        "max length     64",
        "all 600 rows of the data are cached",
        "the teacher's accuracy on the 600 labelled ones is 0.9933",
        "garden    150",
    ] {
        assert!(done.stdout.contains(line), "no `{line}` in\n{}", done.stdout);
    }
    place.json("cache --teacher teacher --data train.tsv --output drawn --sample 4 --hidden-states 0,4");
    let done = place.run("cache inspect drawn --data train.tsv");
    done.succeeded();
    let stored = "4 draws of 4 classes at T = 1; hidden states of layers 0, 4, first tokens";
    assert!(done.stdout.contains(stored) && done.stdout.contains("garden    150"), "{}", done.stdout);
}

#[test]
fn verify_finds_nothing_wrong_with_a_cache() {
    let place = Workplace::with_cache();
    let report = place.json("cache verify cache");
    assert_eq!(keys(&report), ["schema_version", "sound", "files", "bytes", "rows", "damage"]);
    assert_eq!((&report["sound"], &report["files"], &report["rows"]), (&json!(true), &json!(4), &json!(600)));
    let done = place.run("cache verify cache");
    done.succeeded();
    assert_eq!(done.stdout, "sound: 4 files, 27.9 kB, 600 rows\n");
    assert_eq!(done.stderr, "");
    place.refuses("cache verify nowhere", &["nowhere: no such folder"]);
    place.refuses("cache verify teacher", &["teacher: no cache"]);
}

#[test]
fn verify_names_file_and_block() {
    let place = Workplace::with_cache();
    place.copy("cache", "sound");
    let shard = place.read_bytes("cache/shard-00000.safetensors").len();
    let cases = [
        ("shard-00000.safetensors", 20, "its header"),
        ("shard-00000.safetensors", shard / 2, "block 0 of 1 (bytes 144 to 9743) is damaged"),
        ("shard-00000.safetensors", shard - 1, "its checksum is"),
        ("index-00000.safetensors", 10_000, "block 0 of 1"),
        ("tokenizer.json", 100, "its checksum is"),
        ("manifest.json", 1, ""),
    ];
    for (file, position, finding) in cases {
        let file = format!("cache/{file}");
        place.flip(&file, position);
        let damage = place.damage("cache");
        assert!(damage.len() == 1 && damage[0].starts_with(&format!("{file}: {finding}")), "{damage:?}");
        place.copy("sound", "cache");
    }
    place.flip("cache/shard-00000.safetensors", 1000);
    place.flip("cache/tokenizer.json", 1000);
    assert_eq!(place.damage("cache").len(), 2);
    let done = place.run("cache verify cache");
    assert_eq!((done.code, done.stdout.lines().count()), (Some(1), 3), "{}", done.stdout);
    assert_eq!(done.stderr, "error: cache: 2 of 4 files damaged\n");
}

#[test]
fn an_estimate_is_what_a_capture_then_takes() {
    let place = Workplace::new();
    place.many_rows(5);
    let line = "--teacher teacher --data many.tsv";
    for (name, flags) in [
        ("a", ""),
        ("b", "--dtype f16"),
        ("c", "--top-k 2"),
        ("d", "--sample 8"),
        ("e", "--hidden-states 0,4"),
        ("f", "--hidden-states 2 --all-tokens"),
    ] {
        let estimate = place.json(&format!("cache estimate {line} {flags} --probe-seconds 0.01"));
        assert!(!place.path(name).exists(), "an estimate writes nothing");
        let capture = place.json(&format!("cache {line} {flags} --output {name}"));
        assert_eq!((&estimate["rows"], &estimate["unique"]), (&capture["rows"], &capture["unique"]));
        let [said, took] = [&estimate, &capture].map(|report| report["bytes"].as_f64().expect("a number"));
        assert!((said / took - 1.0).abs() < 0.05, "{flags}: {said} bytes were {took}");
        assert!(estimate["seconds"].as_f64() > Some(0.0), "{estimate}");
        // What an epoch reads of hidden states, or takes beside the student.
        let hidden = flags.contains("hidden");
        let read = estimate["read_bytes_per_epoch"].as_f64();
        assert_eq!(read.is_some(), hidden, "{estimate}");
        if let Some(read) = read {
            let live = estimate["live_seconds_per_epoch"].as_f64();
            assert!(live > Some(0.0) && read < said * estimate["rows"].as_f64().expect("a count"), "{estimate}");
            let per_row = if flags.contains("all") { 2.0 * 32.0 } else { 2.0 * 2.0 * 32.0 };
            assert!(read >= per_row * estimate["rows"].as_f64().expect("a count"), "{estimate}");
        }
    }
    let done = place.run(&format!("cache estimate {line} --hidden-states 2"));
    done.succeeded();
    assert!(done.stdout.contains("read an epoch") && done.stdout.contains("or live, an epoch"), "{}", done.stdout);
    let done = place.run(&format!("cache estimate {line}"));
    done.succeeded();
    assert!(!done.stdout.contains("live"), "{}", done.stdout);
    assert!(done.stdout.contains("a capture of this") && done.stdout.contains("3,000"), "{}", done.stdout);
}

#[test]
fn halves_that_are_merged_are_the_whole() {
    let place = Workplace::with_cache();
    capture_part(&place, 0, 300, "one", "");
    capture_part(&place, 300, 600, "two", "");
    let report = place.json("cache merge one two --output both");
    assert_eq!(keys(&report)[1..], ["caches", "rows", "shared", "differing", "largest_difference", "output"]);
    assert_eq!((&report["caches"], &report["rows"], &report["shared"]), (&json!(2), &json!(600), &json!(0)));
    place.assert_sound("both");
    // Batches that are put together otherwise may round otherwise.
    let apart = place.exported("both").largest_difference(&place.exported("cache"));
    assert!(apart < 1e-5, "{apart}");
    assert_eq!(place.json(&CACHE.replace("--output cache", "--output both"))["forwarded"], 0);
    place.json("cache merge two one --output turned");
    assert_eq!(place.content("turned"), place.content("both"));
    place.json(&format!("{TRAIN} --output student").replace("--cache cache", "--cache both"));
}

#[test]
fn rows_that_several_caches_have_are_taken_once() {
    let place = Workplace::new();
    capture_part(&place, 0, 400, "one", "");
    capture_part(&place, 250, 600, "two", "");
    let report = place.json("cache merge one two one --output both");
    assert_eq!((&report["rows"], &report["shared"]), (&json!(600), &json!(400)));
    assert!(report["largest_difference"].as_f64() < Some(1e-5), "{report}");
}

#[test]
fn a_merge_refuses_caches_that_were_made_otherwise() {
    let place = Workplace::new();
    capture_part(&place, 0, 100, "one", "");
    capture_part(&place, 100, 200, "short", "--max-length 32");
    capture_part(&place, 100, 200, "half", "--dtype f16");
    place.edit_tensor("classifier.weight", |bytes| bytes[0] ^= 1);
    capture_part(&place, 100, 200, "other", "");
    for (cache, field) in [("short", "max_length"), ("half", "captured.logits"), ("other", "head")] {
        place.refuses(&format!("cache merge one {cache} --output both"), &[cache, &format!("its {field} is ")]);
    }
    place.refuses("cache merge one nowhere --output both", &["nowhere: no such folder"]);
    assert!(!place.path("both").exists());
    place.copy("other", "both");
    place.refuses("cache merge one one --output both", &["both", "its head is "]);
    assert!(place.files("both") == place.files("other"));
}

#[test]
fn a_merge_does_not_write_into_what_it_reads() {
    let place = Workplace::new();
    capture_part(&place, 0, 100, "one", "");
    capture_part(&place, 100, 200, "two", "");
    let files = place.files("two");
    for output in ["two", "./two", "one/../two"] {
        place.refuses(&format!("cache merge one two --output {output}"), &[output, "would replace what it is made of"]);
    }
    assert!(place.files("two") == files);
}

#[test]
fn a_merge_that_was_stopped_goes_on() {
    let place = Workplace::new();
    capture_part(&place, 0, 300, "one", "--dtype f16");
    capture_part(&place, 300, 600, "two", "--dtype f16");
    place.json("cache merge one two --output whole");
    for _ in 0..5 {
        place.start("cache merge one two --output both").signal("KILL");
    }
    place.json("cache merge one --output both");
    place.json("cache merge one two --output both");
    place.assert_sound("both");
    assert_eq!(place.content("both"), place.content("whole"));
    let error = |cache: &str| place.inspect(cache)["recorded_error"].clone();
    assert_eq!(error("both"), error("whole"));
    assert_eq!(error("both")["outputs"], 600);
}

#[test]
fn an_export_has_every_row_in_the_order_of_keys() {
    let place = Workplace::with_cache();
    let report = place.json("cache export cache --output rows.parquet");
    assert_eq!(keys(&report)[1..], ["rows", "bytes", "output"]);
    assert_eq!((&report["rows"], &report["output"]), (&json!(600), &json!("rows.parquet")));
    assert_eq!(report["bytes"], place.read_bytes("rows.parquet").len());
    let exported = place.exported("cache");
    assert_eq!(exported.rows.len(), 600);
    assert!(exported.keys().is_sorted());
    assert_eq!(exported.labels, json!(CLASSES));
    assert_eq!(exported.fingerprint, place.read_json("cache/manifest.json")["fingerprint"]);
    assert!(exported.rows.iter().all(|row| row.logits.len() == 4 && row.indices.is_empty() && row.tails.is_empty()));
}

/// An export, and the file as Python reads the cache itself.
#[test]
fn an_export_says_what_another_reader_reads() {
    let place = Workplace::with_cache();
    let script = repository().join("tests/scripts/read_cache.py");
    let done = place.shell(&format!("python3 {} cache || exit 77", script.display()));
    if done.stderr.contains("not found") {
        #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
        {
            eprintln!("left out: there is no python3");
        }
        return;
    }
    done.succeeded();
    let exported = place.exported("cache");
    assert_eq!(done.stdout.lines().count(), exported.rows.len());
    for (line, row) in done.stdout.lines().zip(&exported.rows) {
        let read: Value = serde_json::from_str(line).expect("JSON");
        let hex: String = row.key.iter().map(|byte| format!("{byte:02x}")).collect();
        let logits: Vec<f64> = row.logits.iter().map(|&logit| logit.into()).collect();
        assert_eq!((&read["key"], &read["logits"][0]), (&json!(hex), &json!(logits)));
    }
}

#[test]
fn equal_caches_give_equal_exports() {
    let place = Workplace::new();
    place.many_rows(3);
    for form in ["", "--dtype bf16", "--top-k 2", "--sample 5"] {
        place.json(&format!("{MANY} {form} --output once --overwrite"));
        // The same rows in two folders, which are put together, and in one shard.
        let line = "cache --teacher teacher --batch-tokens 32";
        place.json(&format!("{MANY} {form} --output twice --overwrite"));
        place.json("cache gc twice");
        assert!(place.files("once") != place.files("twice"));
        let file = |cache: &str| {
            place.json(&format!("cache export {cache} --output {cache}.parquet --overwrite"));
            place.read_bytes(&format!("{cache}.parquet"))
        };
        assert!(file("once") == file("twice"), "{form}");
        place.json(&format!("{line} --data train.tsv {form} --output twice"));
        assert!(file("once") != file("twice"), "{form}");
    }
}

#[test]
fn an_export_replaces_nothing_by_accident() {
    let place = Workplace::with_cache();
    place.write("rows.parquet", "mine");
    place.refuses("cache export cache --output rows.parquet", &["rows.parquet: is there already", "--overwrite"]);
    assert_eq!(place.read("rows.parquet"), "mine");
    let files = place.files("cache");
    for file in ["cache/manifest.json", "cache/rows.parquet", "./cache/../cache/rows.parquet"] {
        place.refuses(
            &format!("cache export cache --output {file} --overwrite"),
            &[file, "within the cache's own folder"],
        );
    }
    assert!(place.files("cache") == files);
    place.json("cache export cache --output rows.parquet --overwrite");
    place.refuses("cache export cache --output nowhere/rows.parquet", &["nowhere/rows.parquet"]);
}

#[test]
fn an_export_of_a_damaged_cache_fails_and_leaves_no_file() {
    let place = Workplace::with_cache();
    place.flip("cache/shard-00000.safetensors", 1000);
    place.refuses("cache export cache --output rows.parquet", &["cache/shard-00000.safetensors: block 0 of 1"]);
    assert!(!place.path("rows.parquet").exists());
}

/// The rows of one export by their keys, of those that another has, too.
fn common(one: &Exported, other: &Exported) -> usize {
    let found = one.rows.iter().filter(|row| match other.rows.binary_search_by(|other| other.key.cmp(&row.key)) {
        Ok(place) => {
            assert_eq!(other.rows[place], **row, "a row has changed");
            true
        }
        Err(_) => false,
    });
    found.count()
}

#[test]
fn gc_drops_the_rows_of_a_former_length() {
    let place = Workplace::with_cache();
    let refreshed = place.json(&format!("{CACHE} --refresh --max-length 8"));
    let (unique, forwarded) = (refreshed["unique"].as_u64(), refreshed["forwarded"].as_u64());
    let before = place.exported("cache");
    assert_eq!(Some(before.rows.len() as u64), forwarded.map(|forwarded| 600 + forwarded));
    let report = place.json("cache gc cache --data train.tsv");
    assert_eq!(keys(&report)[1..], ["rows_before", "rows", "bytes_before", "bytes"]);
    assert_eq!((report["rows_before"].as_u64(), report["rows"].as_u64()), (Some(before.rows.len() as u64), unique));
    assert!(report["bytes"].as_u64() < report["bytes_before"].as_u64(), "{report}");
    place.assert_sound("cache");
    let after = place.exported("cache");
    assert_eq!(common(&after, &before), after.rows.len());
    assert_eq!(place.json(&format!("{CACHE} --max-length 8"))["forwarded"], 0);
}

#[test]
fn gc_keeps_the_rows_of_the_data_alone() {
    let place = Workplace::with_cache();
    place.json(&CACHE.replace("train.tsv", "test.tsv"));
    let before = place.exported("cache");
    place.write("some.tsv", tsv(&rows(&place.read("train.tsv"))[..50]));
    let report = place.json("cache gc cache --data some.tsv --data test.tsv");
    assert_eq!((&report["rows_before"], &report["rows"]), (&json!(800), &json!(250)));
    let after = place.exported("cache");
    assert_eq!((after.rows.len(), common(&after, &before)), (250, 250));
    let counts = place.json(CACHE);
    assert_eq!((&counts["forwarded"], &counts["skipped"]), (&json!(550), &json!(50)));
}

/// A wrong file would cost the whole cache.
#[test]
fn gc_refuses_data_of_which_nothing_is_cached() {
    let place = Workplace::with_cache();
    let files = place.files("cache");
    place
        .refuses("cache gc cache --data test.tsv", &["cache: ", "no row of the data is cached", "nothing was dropped"]);
    place.refuses("cache gc cache --data nowhere.tsv", &["nowhere.tsv"]);
    assert!(place.files("cache") == files);
}

#[test]
fn gc_makes_one_shard_of_many() {
    let place = Workplace::new();
    place.many_rows(5);
    place.json(&format!("{MANY} --output cache"));
    let before = place.inspect("cache");
    assert_eq!(before["shards"], 16);
    place.json("cache gc cache");
    let after = place.inspect("cache");
    assert_eq!((&after["shards"], &after["rows"]), (&json!(1), &json!(3000)));
    assert_eq!((&after["content"], &after["recorded_error"]), (&before["content"], &before["recorded_error"]));
    assert!(place.names("cache").iter().filter(|name| name.ends_with(".safetensors")).count() == 2);
    assert_eq!(place.json(&format!("{MANY} --output cache"))["forwarded"], 0);
    let done = place.run("cache gc cache");
    done.succeeded();
    assert!(done.stdout.contains("before") && done.stdout.contains("3,000"), "{}", done.stdout);
}

#[test]
fn a_damaged_cache_is_not_rewritten() {
    let place = Workplace::with_cache();
    place.flip("cache/shard-00000.safetensors", 1000);
    let files = place.files("cache");
    for line in ["gc cache", "gc cache --data train.tsv", "merge cache --output merged", "inspect cache"] {
        place.refuses(&format!("cache {line}"), &["cache/shard-00000.safetensors: block 0 of 1"]);
    }
    assert!(place.files("cache") == files);
    assert!(Path::new(&place.path("merged")).exists(), "what a merge began is gone on with");
}

#[cfg(unix)]
#[test]
fn data_from_a_pipe_is_refused_since_it_is_read_twice() {
    let place = Workplace::new();
    place.shell("mkfifo pipe.tsv").succeeded();
    place.refuses(&CACHE.replace("train.tsv", "pipe.tsv"), &["pipe.tsv: a pipe", "write it to a file first"]);
    assert!(!place.path("cache").exists());
}

#[test]
fn a_student_that_learned_from_other_answers_is_not_gone_on_with() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output student"));
    place.json(&CACHE.replace("--output cache", "--output cache --overwrite --top-k 2"));
    place.refuses(&format!("{TRAIN} --output student --resume"), &["another `teacher_logits", "or replace it"]);
}

#[test]
fn flags_that_would_change_nothing_are_refused() {
    let place = Workplace::new();
    place.refuses(&format!("{CACHE} --mask-probability 0.5"), &["--mask-probability goes with --task masked-lm"]);
    place.refuses(&format!("{CACHE} --top-k 2 --temperatures 1,1"), &["give each once"]);
    assert_eq!(place.run(&format!("{CACHE} --sample 2 --dtype f16")).code, Some(2));
    assert!(!place.path("cache").exists());
}

#[test]
fn a_capture_of_what_is_cached_can_be_interrupted() {
    let place = Workplace::with_cache();
    let rows = place.read("train.tsv");
    let (header, rows) = rows.split_once('\n').expect("a header");
    place.write("train.tsv", format!("{header}\n{}", rows.repeat(2000)));
    let running = place.start(CACHE);
    std::thread::sleep(std::time::Duration::from_millis(700));
    let done = running.signal("INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
}
