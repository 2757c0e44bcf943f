//! Which of two versions of a kernel runs, while they are measured against each other in one program: names, some with a
//! number, in `DISTILL_CUDA_VARIANT`, as in `old-norm,norm-blocks=6`. Goes once a version has won.

use std::sync::OnceLock;

/// Whether this name was given.
pub(super) fn given(name: &str) -> bool {
    words().iter().any(|word| word == name)
}

/// The number that was given with this name.
pub(super) fn number(name: &str) -> Option<usize> {
    words().iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn words() -> &'static [String] {
    static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let given = std::env::var("DISTILL_CUDA_VARIANT").unwrap_or_default();
        given.split(',').map(|word| word.trim().to_string()).collect()
    })
}
