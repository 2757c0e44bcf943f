//! Which versions of kernels run where there are two, until one of them has been measured to be the better one.

use std::sync::OnceLock;

/// Whether `DISTILL_CUDA_VARIANT`, a list with commas, has this name in it.
pub(super) fn variant(name: &str) -> bool {
    static NAMES: OnceLock<String> = OnceLock::new();
    let names = NAMES.get_or_init(|| std::env::var("DISTILL_CUDA_VARIANT").unwrap_or_default());
    names.split(',').any(|listed| listed == name)
}
