//! The emulated device of the tests, built from the kernels' sources when the first test asks for it; `driver` has it
//! behind the driver's own interface, `races` runs kernels with real threads.

mod driver;
mod races;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::Device;

/// An emulated device; `None`, with a word why, where there is no C++ compiler.
pub(crate) fn device() -> Option<Device> {
    Some(Device::emulated(library()?).expect("the library that was just built"))
}

fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIBRARY.get_or_init(build).as_deref()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compiler() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "g++".to_string())
}

/// A library of these very sources; other processes of the same test run find it there.
#[expect(clippy::print_stderr, reason = "says why a test does nothing")]
fn build() -> Option<PathBuf> {
    let compiler = compiler();
    if !Command::new(&compiler).arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {compiler} compiles the emulated GPU, and is not installed");
        return None;
    }
    let folder = std::env::temp_dir().join("distill-emulated-gpu");
    std::fs::create_dir_all(&folder).expect("a folder for the library");
    let library =
        folder.join(format!("{}.so", &hash(&["cuda", "src/cuda/op"], &["cu", "cuh", "cpp", "h", "sh"])[..16]));
    build_once(&library, "cuda/emulation/build.sh", &[&library]);
    Some(library)
}

/// Has a script make a file that is not there. One process builds, the others wait for it.
fn build_once(file: &Path, script: &str, arguments: &[&Path]) {
    let lock = std::fs::File::create(file.with_extension("lock")).expect("a lock beside what is built");
    lock.lock().expect("locks of files");
    if !file.exists() {
        let status = Command::new(root().join(script)).args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "student/nn/{script} failed");
    }
}

/// Paths and contents of the files in these folders that have one of these endings.
fn hash(folders: &[&str], endings: &[&str]) -> String {
    use sha2::Digest;
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| endings.iter().any(|e| ending == *e)) {
                files.push(path.strip_prefix(root()).expect("within the crate").to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    let mut hash = sha2::Sha256::new();
    for file in files {
        hash.update(format!("{file}\n"));
        hash.update(std::fs::read(root().join(&file)).expect("a source"));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn committed_kernels_are_compiled_from_these_sources() {
    let hash = hash(&["cuda", "src/cuda/op"], &["cu", "cuh"]);
    let committed =
        std::fs::read_to_string(root().join("cuda/kernels.sha256")).expect("the hash beside kernels.ptx.gz");
    assert_eq!(
        hash,
        committed.trim(),
        "kernels.ptx.gz is of other sources; run student/nn/cuda/build.sh and commit it"
    );
}
