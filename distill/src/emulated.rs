//! The emulated GPU, for tests: the kernels' sources, compiled as C++.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nn::cuda::Device;

/// None without a compiler.
pub(crate) fn emulated_gpu() -> Option<Device> {
    Some(Device::emulated(&emulated_library()?).expect("the library that was just built"))
}

/// The library is made once for the same sources, whichever test asks first. None without a compiler.
#[expect(clippy::print_stderr, reason = "says why a test does nothing")]
pub(crate) fn emulated_library() -> Option<PathBuf> {
    if Command::new("g++").arg("--version").output().is_err() {
        eprintln!("skipped: g++ compiles the emulated GPU, and is not installed");
        return None;
    }
    let nn = Path::new(env!("CARGO_MANIFEST_DIR")).join("../student/nn");
    let (mut folders, mut paths) = (vec![nn.join("cuda"), nn.join("src/cuda/op")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the sources") {
            let path = entry.expect("a file").path();
            if path.is_dir() { folders.push(path) } else { paths.push(path) }
        }
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending != "rs"));
    paths.sort();
    let mut hash = blake3::Hasher::new();
    paths.iter().for_each(|path| {
        hash.update(&fs::read(path).expect("a source"));
    });
    let folder = std::env::temp_dir().join("distill-emulated-gpu");
    fs::create_dir_all(&folder).expect("a folder for the library");
    let library = folder.join(format!("learner-{}.so", &hash.finalize().to_hex()[..16]));
    let lock = fs::File::create(library.with_extension("lock")).expect("a lock beside the library");
    lock.lock().expect("locks of files");
    if !library.exists() {
        let status = Command::new(nn.join("cuda/emulation/build.sh")).arg(&library).status();
        assert!(status.is_ok_and(|status| status.success()), "student/nn/cuda/emulation/build.sh failed");
    }
    Some(library)
}
