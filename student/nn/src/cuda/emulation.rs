//! The emulated device of the tests, built from the kernels' sources when the first test asks for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::Device;

/// An emulated device; `None`, with a word why, where there is no C++ compiler.
pub(crate) fn device() -> Option<Device> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let library = LIBRARY.get_or_init(build).as_ref()?;
    Some(Device::emulated(library).expect("the library that was just built"))
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda")
}

/// A library of these very sources; other processes of the same test run find it there.
#[expect(clippy::print_stderr, reason = "says why a test does nothing")]
fn build() -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_string());
    if !Command::new(&compiler).arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {compiler} compiles the emulated GPU, and is not installed");
        return None;
    }
    let folder = std::env::temp_dir().join("distill-emulated-gpu");
    std::fs::create_dir_all(&folder).expect("a folder for the library");
    let library = folder.join(format!("{}.so", &source_hash(&["cu", "cuh", "cpp", "h", "sh"])[..16]));
    // One process builds, the others wait for it.
    let lock = std::fs::File::create(library.with_extension("lock")).expect("a lock beside the library");
    lock.lock().expect("locks of files");
    if !library.exists() {
        let status = Command::new(sources().join("emulation/build.sh")).arg(&library).status();
        assert!(status.is_ok_and(|status| status.success()), "student/nn/cuda/emulation/build.sh failed");
    }
    Some(library)
}

/// Names and contents of the sources with these endings.
fn source_hash(endings: &[&str]) -> String {
    let mut files = Vec::new();
    for folder in [sources(), sources().join("emulation")] {
        for entry in std::fs::read_dir(folder).expect("the sources' folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|ending| endings.iter().any(|e| ending == *e)) {
                files.push(path);
            }
        }
    }
    hash(files)
}

fn hash(mut files: Vec<PathBuf>) -> String {
    use sha2::Digest;
    files.sort();
    let mut hash = sha2::Sha256::new();
    for file in files {
        let name = file.file_name().expect("a file's name").to_string_lossy().into_owned();
        hash.update(name + "\n");
        hash.update(std::fs::read(&file).expect("a source"));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn committed_kernels_are_compiled_from_these_sources() {
    let files = std::fs::read_dir(sources()).expect("the sources' folder").map(|entry| entry.expect("an entry").path());
    let hash = hash(files.filter(|path| path.extension().is_some_and(|e| e == "cu" || e == "cuh")).collect());
    let committed = std::fs::read_to_string(sources().join("kernels.sha256")).expect("the hash beside kernels.ptx.gz");
    assert_eq!(
        hash,
        committed.trim(),
        "kernels.ptx.gz is of other sources; run student/nn/cuda/build.sh and commit it"
    );
}
