//! Kernels with a thread of the machine for each of theirs, under ThreadSanitizer (`student/nn/cuda/emulation/races`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use super::library::{build_once, compiler};
use super::{library, root};

#[test]
fn planted_races_are_found_and_nothing_else() {
    for (kernel, has_race) in [
        ("planted_exchange", true),
        ("clean_exchange", false),
        ("planted_copy", true),
        ("clean_copy", false),
        ("planted_early_copy", true),
        ("planted_between_blocks", true),
    ] {
        let Some(output) = replay(&["--planted", kernel]) else { return };
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if has_race { 66 } else { 0 }), "{kernel}: {log}");
        assert_eq!(log.contains("data race"), has_race, "{kernel}: {log}");
    }
}

/// Runs recorded launches, in which no race may be found.
pub(super) fn find_none_in(recording: &Path) {
    let recording = recording.to_str().expect("a path of ours");
    let Some(output) = replay(&["--blocks", "2", recording]) else { return };
    let [found, log] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}: {found}\n{log}", output.status);
    let launches = found.split(' ').next().and_then(|number| number.parse::<usize>().ok());
    assert!(launches.is_some_and(|launches| launches > 50), "{found}");
}

/// Runs the tool; `None`, with a word why, where there is no C++ compiler that has ThreadSanitizer.
fn replay(arguments: &[&str]) -> Option<Output> {
    let fixed_addresses = sanitizer()?;
    let folder = library()?.with_extension("races");
    std::fs::create_dir_all(&folder).expect("a folder for the tool");
    // Made last.
    build_once(&folder.join("replay"), &root().join("cuda/emulation/races/build.sh"), &[&folder]);
    let libraries = ["kernels.so", "kernels-copy.so"].map(|name| folder.join(name));
    let command = command(&folder.join("replay"), fixed_addresses).args(arguments).args(libraries).output();
    Some(command.expect("starts"))
}

/// Older ThreadSanitizers end where a program's addresses are too random.
fn command(program: &Path, fixed_addresses: bool) -> Command {
    if !fixed_addresses {
        return Command::new(program);
    }
    let mut command = Command::new("setarch");
    command.args(["--addr-no-randomize"]).arg(program);
    command
}

/// Whether a program with ThreadSanitizer needs addresses that are not random; `None` if none runs.
#[expect(clippy::print_stderr, reason = "says why a test does nothing")]
fn sanitizer() -> Option<bool> {
    static FOUND: OnceLock<Option<bool>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        library()?;
        let trial = std::env::temp_dir().join(format!("distill-sanitizer-{}", std::process::id()));
        let built = compile(&trial);
        let runs = |&fixed: &bool| command(&trial, fixed).output().is_ok_and(|output| output.status.success());
        let found = if built { [false, true].into_iter().find(runs) } else { None };
        let _ = std::fs::remove_file(&trial);
        if found.is_none() {
            eprintln!("skipped: {} has no ThreadSanitizer that runs here, which looks for races", compiler());
        }
        found
    })
}

/// Compiles a program that does nothing.
fn compile(to: &PathBuf) -> bool {
    let child = Command::new(compiler())
        .args(["-fsanitize=thread", "-x", "c++", "-", "-o"])
        .arg(to)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let written = child.stdin.take().is_some_and(|mut source| source.write_all(b"int main() {}").is_ok());
    child.wait().is_ok_and(|status| written && status.success())
}
