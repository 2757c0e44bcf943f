//! The emulated device of the tests, built from the kernels' sources when the first test asks for it; `driver` has it
//! behind the driver's own interface, `races` runs kernels with real threads.

mod driver;
mod library;
mod races;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Device;

/// An emulated device; `None`, with a word why, where there is no C++ compiler.
pub(crate) fn device() -> Option<Device> {
    Some(Device::emulated(library()?).expect("the library that was just built"))
}

fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIBRARY.get_or_init(|| library::library(root())).as_deref()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A hash of the paths and contents of the kernels' sources.
fn hash_of_kernels() -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    for file in library::sources(root(), &["cu", "cuh"]) {
        hash.update(format!("{file}\n"));
        hash.update(std::fs::read(root().join(&file)).expect("a source"));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn committed_kernels_are_compiled_from_these_sources() {
    let hash = hash_of_kernels();
    let committed =
        std::fs::read_to_string(root().join("cuda/kernels.sha256")).expect("the hash beside kernels.ptx.gz");
    assert_eq!(
        hash,
        committed.trim(),
        "kernels.ptx.gz is of other sources; run student/nn/cuda/build.sh and commit it"
    );
}
