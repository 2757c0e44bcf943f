//! No room left, by a limit on file sizes and on a disk that is really full: a plain error, no half-written file, and
//! once there is room the work goes on.

use crate::cache_tools::MANY;
use crate::support::{CACHE, Finished, TRAIN, Workplace};

/// Runs `line` where no file may be larger than 12 to 25 kB (`sh` counts in blocks of 512 or of 1024 bytes): enough for
/// configurations and tokenizers, not for weights.
fn with_small_files(place: &Workplace, line: &str) -> Finished {
    place.shell(&format!("ulimit -f 24; exec $DISTILL {line} --json"))
}

fn no_room(done: &Finished, file: &str) {
    let message = done.failure();
    assert!(message.contains(file), "{message}");
    assert!(message.contains("room"), "no way out: {message}");
}

fn nothing_half_written(place: &Workplace, folder: &str, model: &str) {
    let names = place.names(folder);
    assert!(!names.iter().any(|name| name.ends_with(".partial") || name.starts_with(".tmp-")), "{names:?}");
    assert!(!names.contains(&model.to_owned()), "{names:?}");
}

#[test]
fn a_student_that_does_not_fit() {
    let place = Workplace::with_cache();
    let (teacher, cache) = (place.files("teacher"), place.files("cache"));
    let line = format!("{TRAIN} --output student");
    no_room(&with_small_files(&place, &line), "student/model.safetensors");
    nothing_half_written(&place, "student", "model.safetensors");
    assert!(!place.path("student/distill.json").exists());
    assert!(place.files("teacher") == teacher && place.files("cache") == cache);
    place.json(&format!("{line} --resume"));
    place.json(&format!("{TRAIN} --output undisturbed"));
    assert!(place.files("student") == place.files("undisturbed"));
}

#[test]
fn a_checkpoint_that_does_not_fit() {
    let place = Workplace::with_cache();
    let line = format!("{TRAIN} --output student").replace("--epochs 1", "--epochs 2");
    no_room(&with_small_files(&place, &line), "student/checkpoint.safetensors");
    nothing_half_written(&place, "student", "checkpoint.safetensors");
    place.json(&format!("{line} --resume"));
}

#[test]
fn a_cache_that_does_not_fit() {
    let place = Workplace::new();
    let mut many = place.read("train.tsv");
    many.extend(place.read("train.tsv").lines().skip(1).map(|line| format!("please {line}\n")));
    many.extend(place.read("train.tsv").lines().skip(1).map(|line| format!("sorry {line}\n")));
    place.write("train.tsv", many);
    no_room(&with_small_files(&place, CACHE), "cache/shard-00000.safetensors");
    nothing_half_written(&place, "cache", "shard-00000.safetensors");
    place.assert_sound("cache");
    assert_eq!(place.inspect("cache")["rows"], 0);
    place.json(CACHE);
    place.json(&CACHE.replace("--output cache", "--output undisturbed"));
    assert!(place.files("cache") == place.files("undisturbed"));
}

#[test]
fn a_teacher_that_does_not_fit() {
    let place = Workplace::new();
    let line = "finetune --model teacher --data test.tsv --epochs 1 --output tuned";
    no_room(&with_small_files(&place, line), "tuned/model.safetensors");
    nothing_half_written(&place, "tuned", "model.safetensors");
}

#[test]
fn a_disk_that_is_full() {
    let place = Workplace::with_cache();
    // In namespaces of its own, so that nothing stays mounted and nobody need be root.
    let on_small_disk = |script: &str| {
        let mount = "mkdir -p disk && mount -t tmpfs -o size=64k tmpfs disk";
        place.shell(&format!("unshare --user --map-root-user --mount sh -c '{mount} || exit 77; {script}'"))
    };
    if on_small_disk("true").code != Some(0) {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("left out: this system does not let a test mount a disk of its own");
        }
        return;
    }
    let done =
        on_small_disk(&format!("$DISTILL {TRAIN} --output disk/out --json; code=$?; ls -A disk/out >&2; exit $code"));
    let message = done.failure();
    assert!(message.contains("disk/out/model.safetensors: no space left on the disk"), "{message}");
    assert!(message.contains("config.json"), "the list of files is part of it: {message}");
    assert!(!message.contains(".partial"), "{message}");
    let done = on_small_disk(&format!("$DISTILL {} --json", CACHE.replace("--output cache", "--output disk/cache")));
    done.succeeded();
    // Windows are committed until there is no room for the next one: that is a cache of fewer rows.
    place.many_rows(5);
    let kept = "code=$?; cp -r disk/cache cut; $DISTILL cache verify disk/cache >&2; exit $code";
    let message = on_small_disk(&format!("$DISTILL {MANY} --output disk/cache --json; {kept}")).failure();
    assert!(message.contains("disk/cache/") && message.contains("are safe: once there is room"), "{message}");
    assert!(message.contains("\nsound: "), "{message}");
    assert!(place.names("cut").iter().all(|name| !name.starts_with(".tmp-")), "{:?}", place.names("cut"));
    let rows = place.inspect("cut")["rows"].as_u64().expect("a count");
    assert!(0 < rows && rows < 3000, "{rows}");
    assert_eq!(place.json(&format!("{MANY} --output cut"))["skipped"], rows);
    place.json(&format!("{MANY} --output undisturbed"));
    assert!(place.files("cut") == place.files("undisturbed"));
}
