//! Allocation of large buffers, and the peak memory of this process: on Linux, the high-water mark of its resident set.

use std::fs;

/// Returns buffers of a megabyte and more to the system when they are freed. By default glibc raises this threshold
/// with the sizes it sees, up to 32 MB, and would keep the buffers that a model's tensors were read into.
pub(crate) fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it sets a number in the allocator, before there are threads.
        #[expect(unsafe_code, reason = "glibc's setting of its allocator")]
        let accepted = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20) };
        // Where it is not accepted, more memory is kept, and that is all.
        let _ = accepted;
    }
}

/// Peak resident memory in bytes since the process started, or since [`reset_peak`]; includes pages of mapped files.
/// `None` if the system does not report it.
pub(crate) fn peak() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Resident memory in bytes that belongs to no file. `None` if the system does not report it.
pub(crate) fn anonymous() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// Resets the high-water mark to the current resident memory. False if the system does not allow it.
///
/// This also resets what `getrusage` and `/usr/bin/time` report for this process.
pub(crate) fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn parse(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_high_water_mark() {
        let status = "Name:\tdistill\nVmPeak:\t  200 kB\nVmHWM:\t  100 kB\n";
        assert_eq!(parse(status, "VmHWM:"), Some(102_400));
        assert_eq!(parse(status, "RssAnon:"), None);
    }
}
