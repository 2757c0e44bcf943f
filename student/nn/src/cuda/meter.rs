//! What is counted of a device: the memory taken at most, and, for whoever asks, how long each launch takes. `timing.rs` has
//! what a device does with it.

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

/// How long a kernel, or products of one shape, took on the device.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LaunchTime {
    /// The kernel, or the product with its shape.
    pub name: String,
    /// How often it ran.
    pub launches: usize,
    /// All of its launches together. Each is timed on its own, from before it until behind it: a short one takes some
    /// microseconds more than in a row with others.
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
