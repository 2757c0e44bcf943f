//! The emulated GPU, for tests: the kernels' sources, compiled as C++.

use std::path::Path;

use nn::cuda::Device;

#[path = "../../student/nn/src/cuda/emulation/library.rs"]
mod library;

/// None without a compiler.
pub(crate) fn emulated_gpu() -> Option<Device> {
    let library = library::library(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../student/nn"))?;
    Some(Device::emulated(&library).expect("the library that was just built"))
}
