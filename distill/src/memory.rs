//! Allocation of large buffers, and the peak memory of this process: on Linux, the high-water mark of its resident set.

use std::fs;
use std::path::Path;

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

/// Resident memory in bytes, pages of mapped files included. `None` if the system does not report it.
pub(crate) fn resident() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Memory in bytes that the process can still take: what the machine has, or the control group that it runs in, without
/// swapping. `None` if the system does not report it.
pub(crate) fn available() -> Option<u64> {
    let machine = parse(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    Some(of_control_groups().into_iter().fold(machine, u64::min))
}

/// What the limits of the process' control group and of those above it leave: version 2, as containers and Slurm have it.
fn of_control_groups() -> Vec<u64> {
    let Ok(text) = fs::read_to_string("/proc/self/cgroup") else { return Vec::new() };
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let folders =
        Path::new(own.trim_start_matches('/')).ancestors().map(|folder| Path::new("/sys/fs/cgroup").join(folder));
    folders.filter_map(|folder| left_in(&folder)).collect()
}

/// The limit of a control group less what it holds; pages of files that nobody maps are given back when they are needed.
fn left_in(folder: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let inactive = read("memory.stat")
        .and_then(|stat| stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok()));
    let held = number("memory.current")?.saturating_sub(inactive.unwrap_or(0));
    Some(number("memory.max")?.saturating_sub(held))
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
    fn a_control_group_leaves_its_limit_less_what_it_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("writes");
        assert_eq!(left_in(folder.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(left_in(folder.path()), None, "no limit");
        write("memory.max", "1000\n");
        assert_eq!(left_in(folder.path()), Some(300));
        write("memory.stat", "anon 500\ninactive_file 150\nactive_file 50\n");
        assert_eq!(left_in(folder.path()), Some(450));
        write("memory.current", "5000\n");
        assert_eq!(left_in(folder.path()), Some(0));
    }

    #[test]
    fn reads_the_high_water_mark() {
        let status = "Name:\tdistill\nVmPeak:\t  200 kB\nVmHWM:\t  100 kB\n";
        assert_eq!(parse(status, "VmHWM:"), Some(102_400));
        assert_eq!(parse(status, "RssAnon:"), None);
    }
}
