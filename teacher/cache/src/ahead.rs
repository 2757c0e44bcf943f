//! Prefetches memory that will be read soon.

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Cache lines to prefetch of a row: for longer rows the processor's own prefetcher takes over.
const FIRST_LINES: usize = 8;

/// Prefetches the start of `bytes`.
pub(crate) fn touch(bytes: &[u8]) {
    lines(bytes).take(FIRST_LINES).for_each(fetch_line);
}

/// Prefetches all values.
pub(crate) fn fetch(values: &[f32]) {
    lines(values).for_each(fetch_line);
}

fn lines<T>(values: &[T]) -> impl Iterator<Item = &T> {
    values.iter().step_by(LINE_BYTES / size_of::<T>())
}

fn fetch_line<T>(first: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, of an address that may be read; it needs SSE, which every processor of this kind has.
        #[expect(unsafe_code, reason = "a hint to the processor")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(first).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(first);
}
