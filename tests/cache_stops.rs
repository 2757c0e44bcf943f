//! Captures that are killed, meet another writer or a reader, or run out of memory's bounds.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::cache_tools::MANY;
use crate::support::{CACHE, Finished, TRAIN, Workplace};

/// A capture of 3,000 rows in six windows, held once it has committed some of them.
fn held(place: &Workplace) -> crate::support::Running {
    place.many_rows(5);
    let committed = || fs::read_to_string(place.path("cache/manifest.json")).is_ok_and(|text| text.contains("shard-"));
    let capture = place.start(&format!("{MANY} --output cache --threads 1")).until(committed).paused();
    assert!(place.inspect("cache")["rows"].as_u64() < Some(3000), "held too late");
    capture
}

#[test]
fn a_capture_that_is_killed_again_and_again_ends_as_one_that_was_not() {
    let place = Workplace::new();
    place.many_rows(20);
    let whole = place.json(&format!("{MANY} --output undisturbed"));
    for kill in 0..8 {
        let shard = place.path(&format!("cache/shard-{kill:05}.safetensors"));
        let capture = place.start(&format!("{MANY} --output cache")).until(|| shard.exists());
        thread::sleep(Duration::from_millis(kill * 5 % 13));
        assert_eq!(capture.signal("KILL").code, None);
        place.assert_sound("cache");
    }
    let rest = place.json(&format!("{MANY} --output cache"));
    let counts = |key: &str| rest[key].as_u64().expect("a count");
    assert_eq!(Some(counts("skipped") + counts("forwarded")), whole["unique"].as_u64());
    assert!(counts("skipped") > 0 && counts("forwarded") > 0, "{rest}");
    let (ours, undisturbed) = (place.inspect("cache"), place.inspect("undisturbed"));
    for key in ["content", "rows", "shards", "unreachable_rows", "fingerprint", "recorded_error"] {
        assert_eq!(ours[key], undisturbed[key], "{key}");
    }
    place.assert_sound("cache");
}

#[test]
fn captures_that_start_at_once_do_not_harm_each_other() {
    let place = Workplace::new();
    place.many_rows(5);
    place.json(&format!("{MANY} --output undisturbed"));
    for round in 0..4 {
        let line = format!("{MANY} --output cache{round}");
        let started = [place.start(&line), place.start(&line), place.start(&line)];
        let ended = started.map(crate::support::Running::wait);
        assert!(ended.iter().any(|done| done.code == Some(0)), "{}", ended[0].stderr);
        for done in ended.iter().filter(|done| done.code != Some(0)) {
            assert!(done.failure().contains("another process is writing this cache; wait for it to end"));
        }
        place.assert_sound(&format!("cache{round}"));
        assert_eq!(place.content(&format!("cache{round}")), place.content("undisturbed"));
    }
}

#[test]
fn a_cache_that_is_being_written_takes_no_second_writer() {
    let place = Workplace::new();
    let capture = held(&place);
    let files = place.files("cache");
    for line in [CACHE, &format!("{CACHE} --refresh --dtype f16"), &format!("{CACHE} --overwrite"), "cache gc cache"] {
        place.refuses(line, &["cache: another process is writing this cache", "wait for it to end"]);
    }
    place.json("cache --teacher teacher --data train.tsv --output other");
    place.refuses("cache merge other --output cache", &["cache: "]);
    assert!(place.files("cache") == files);
    capture.signal("CONT").succeeded();
    assert_eq!(place.inspect("cache")["rows"], 3000);
    place.assert_sound("cache");
}

#[test]
fn a_cache_that_is_being_written_is_read_as_it_was_committed() {
    let place = Workplace::new();
    let capture = held(&place);
    place.assert_sound("cache");
    let rows = place.inspect("cache")["rows"].as_u64().expect("a count");
    let covered = place.json("cache inspect cache --data many.tsv")["data"].clone();
    assert_eq!(covered["cached"].as_u64(), Some(rows));
    assert_eq!(place.exported("cache").rows.len() as u64, rows);
    place
        .write("nine.tsv", place.read("many.tsv").lines().take(10).map(|line| format!("{line}\n")).collect::<String>());
    let line = format!("{TRAIN} --output student").replace("train.tsv", "many.tsv --validation test.tsv");
    let message = place.refusal(&line);
    assert!(message.contains(&format!("{} of 3000 training rows are not in the cache", 3000 - rows)), "{message}");
    // What is committed is enough for those whose rows it has.
    place.json(&line.replace("many.tsv", "nine.tsv"));
    capture.signal("CONT").succeeded();
    place.json(&format!("{line} --overwrite"));
}

/// `--overwrite` removes a cache first, and a kill in the middle must not leave what no command takes.
#[test]
fn an_overwriting_capture_that_is_killed_can_be_repeated() {
    let place = Workplace::new();
    place.many_rows(5);
    let line = format!("{MANY} --output cache --overwrite");
    place.json(&line);
    let whole = place.content("cache");
    let manifest = place.read_bytes("cache/manifest.json");
    for kill in 0..6 {
        let changed = || fs::read(place.path("cache/manifest.json")).ok().is_none_or(|now| now != manifest);
        let capture = place.start(&line).until(changed);
        thread::sleep(Duration::from_millis(kill));
        capture.signal("KILL");
        let Finished { code, stderr, .. } = place.run(&line);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(place.content("cache"), whole);
    }
}

/// The most memory that a capture of `data` took, in bytes.
#[cfg(target_os = "linux")]
fn peak(place: &Workplace, data: &str) -> u64 {
    let line = format!("cache --teacher teacher --data {data} --output {data}.cache --threads 1");
    let capture = place.start(&line);
    let status = format!("/proc/{}/status", capture.id());
    let mut peak = 0;
    // Once it has ended, and until it is waited for, there is a process without memory.
    while let Some(now) = fs::read_to_string(&status).ok().as_deref().and_then(high_water) {
        peak = now.max(peak);
        thread::sleep(Duration::from_millis(2));
    }
    capture.wait().succeeded();
    peak
}

#[cfg(target_os = "linux")]
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_data() {
    let place = Workplace::new();
    let rows = place.read("train.tsv").lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let write = |name: &str, times: usize| {
        let lines = (0..times).flat_map(|_| rows.iter()).map(|row| format!("{row}\n")).collect::<String>();
        place.write(name, format!("text\tlabel\n{lines}"));
    };
    write("one.tsv", 50);
    write("four.tsv", 200);
    let (one, four) = (peak(&place, "one.tsv"), peak(&place, "four.tsv"));
    // Measured: 0.2 MB more. 90,000 rows are 5 MB of text, and several times that as rows and tokens in memory.
    assert!(four < one + (4 << 20), "{one} bytes for 30,000 rows, {four} for 120,000");
}
