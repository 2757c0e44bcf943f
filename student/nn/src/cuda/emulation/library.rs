//! Builds the emulated GPU's library from the kernels' sources, once for the same sources. Needs nothing but the standard
//! library, so that the tests of `distill` take this very file in.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The C++ compiler that build scripts use.
pub(crate) fn compiler() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "g++".to_string())
}

/// The library, for the crate `nn` in this folder; other processes of the same test run find it where the first one put
/// it. `None`, with a word why, where there is no compiler.
#[expect(clippy::print_stderr, reason = "says why a test does nothing")]
pub(crate) fn library(nn: &Path) -> Option<PathBuf> {
    let compiler = compiler();
    if !Command::new(&compiler).arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {compiler} compiles the emulated GPU, and is not installed");
        return None;
    }
    let mut hash = DefaultHasher::new();
    for file in sources(nn, &["cu", "cuh", "cpp", "h", "sh"]) {
        file.hash(&mut hash);
        fs::read(nn.join(&file)).expect("a source").hash(&mut hash);
    }
    let folder = std::env::temp_dir().join("distill-emulated-gpu");
    fs::create_dir_all(&folder).expect("a folder for the library");
    let library = folder.join(format!("{:016x}.so", hash.finish()));
    build_once(&library, &nn.join("cuda/emulation/build.sh"), &[&library]);
    Some(library)
}

/// Has a script make a file that is not there. One process builds, the others wait for it.
pub(crate) fn build_once(file: &Path, script: &Path, arguments: &[&Path]) {
    let lock = File::create(file.with_extension("lock")).expect("a lock beside what is built");
    lock.lock().expect("locks of files");
    if !file.exists() {
        let status = Command::new(script).args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "{} failed", script.display());
    }
}

/// The kernels' sources with one of these endings: their paths within the crate `nn`, sorted.
pub(crate) fn sources(nn: &Path, endings: &[&str]) -> Vec<String> {
    let mut folders = vec![nn.join("cuda"), nn.join("src/cuda/op")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| endings.iter().any(|e| ending == *e)) {
                files.push(path.strip_prefix(nn).expect("within the crate").to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    files
}
