//! Counters of a device: peak memory and, on request, the time of each launch. `timing.rs` has the device's methods for
//! them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::driver::EventHandle;

/// Counts what a device has given out, and times what it is asked to do.
#[derive(Default)]
pub(super) struct Meter {
    pub(super) taken: AtomicUsize,
    pub(super) most: AtomicUsize,
    /// Bytes.
    pub(super) downloaded: AtomicUsize,
    pub(super) timing: AtomicBool,
    pub(super) launches: Mutex<Vec<(String, [Mark; 2])>>,
}

/// A moment in the device's work.
pub(super) enum Mark {
    Event(EventHandle),
    /// The emulated device does everything at once.
    Host(Instant),
}

/// The time of a kernel, or of matrix products of one shape, on the device.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LaunchTime {
    /// The kernel, or the product with its shape.
    pub name: String,
    /// Number of launches.
    pub launches: usize,
    /// Total time of all launches. Each is timed separately, which adds a few microseconds to short ones.
    pub microseconds: f64,
}

impl Meter {
    pub(super) fn take(&self, bytes: usize) {
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most.fetch_max(taken, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn download(&self, bytes: usize) {
        self.downloaded.fetch_add(bytes, Ordering::Relaxed);
    }
}
