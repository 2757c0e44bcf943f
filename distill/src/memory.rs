//! How large buffers are allocated, and how much memory this process took at its worst, as Linux counts it: the resident
//! set's high-water mark.

use std::fs;

/// Has buffers of a megabyte and more given back to the system when they are freed. glibc raises that size with the
/// buffers that it sees, up to 32 MB, and would keep what a model's tensors were read into.
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

/// The most bytes that were resident at once since the process started, or since [`reset_peak`]. Includes what files are
/// mapped from and read of. None where the system does not say.
pub(crate) fn peak() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The bytes that are resident now and belong to no file. None where the system does not say.
pub(crate) fn anonymous() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// Starts the high-water mark anew from what is resident now. False where the system does not let us.
///
/// What `getrusage` and `/usr/bin/time` say of this process afterwards starts anew too.
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
