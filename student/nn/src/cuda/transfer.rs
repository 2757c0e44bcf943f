//! Asynchronous copies between host and device, through page-locked memory.

use std::collections::VecDeque;

use super::device::{Backend, Buffer, Device};
use super::driver::EventHandle;
use super::operand::{Ptr, Words};
use crate::Error;

/// Memory of the host that the device copies from and to on its own, with a mark in the stream of work behind the last
/// copy.
struct Pinned {
    device: Device,
    words: *mut u32,
    len: usize,
    copied: EventHandle,
}

#[expect(unsafe_code, reason = "page-locked memory comes from the driver as a pointer")]
mod pinned {
    use super::*;

    // SAFETY: the memory belongs to this value alone, as a `Vec`'s does.
    unsafe impl Send for Pinned {}

    impl Pinned {
        /// Room for this many words or somewhat more, all zero.
        pub(super) fn zeroed(device: &Device, len: usize) -> Result<Self, Error> {
            let len = len.next_power_of_two();
            let (copied, words) = match &*device.backend {
                Backend::Driver(driver) => (driver.event()?, driver.allocate_host(len * 4)?.cast()),
                Backend::Emulated(emulated) => (EventHandle::NONE, emulated.allocate(len * 4).0 as *mut u32),
            };
            // SAFETY: `len` words were just allocated there.
            unsafe { words.write_bytes(0, len) };
            Ok(Self { device: device.clone(), words, len, copied })
        }

        pub(super) fn words(&self) -> &[u32] {
            // SAFETY: `len` initialised words, which live as long as this value. The device writes here only between a
            // request and the wait for its mark; [`LateReads`] does not look in between.
            unsafe { std::slice::from_raw_parts(self.words, self.len) }
        }

        pub(super) fn words_mut(&mut self) -> &mut [u32] {
            // SAFETY: as above, and borrowed mutably.
            unsafe { std::slice::from_raw_parts_mut(self.words, self.len) }
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            // The device may still read or write what is about to be freed.
            let _ = self.wait();
            match &*self.device.backend {
                Backend::Driver(driver) => {
                    driver.destroy_event(self.copied);
                    driver.free_host(self.words.cast());
                }
                Backend::Emulated(emulated) => emulated.free(Ptr(self.words as u64), self.len * 4),
            }
        }
    }
}

impl Pinned {
    /// Asks for a copy of the first `len` words to the device.
    fn send(&self, to: Ptr, len: usize) -> Result<(), Error> {
        self.device.upload_later(to, bytemuck::cast_slice(&self.words()[..len]))?;
        self.mark()
    }

    /// Asks for a copy of `len` words from the device.
    fn receive(&mut self, from: Ptr, len: usize) -> Result<(), Error> {
        let device = self.device.clone();
        device.download_later(from, bytemuck::cast_slice_mut(&mut self.words_mut()[..len]))?;
        self.mark()
    }

    /// Sets the mark behind everything asked for so far.
    fn mark(&self) -> Result<(), Error> {
        match &*self.device.backend {
            Backend::Driver(driver) => Ok(driver.record(self.copied)?),
            Backend::Emulated(_) => Ok(()),
        }
    }

    /// Waits for the last copy.
    fn wait(&self) -> Result<(), Error> {
        match &*self.device.backend {
            Backend::Driver(driver) => Ok(driver.wait(self.copied)?),
            Backend::Emulated(_) => Ok(()),
        }
    }
}

/// Lists of words on their way to the device: put side by side, then sent in one copy through one of two page-locked
/// buffers in turn.
pub(super) struct Staging {
    words: Vec<u32>,
    buffer: Buffer,
    slots: [Option<Pinned>; 2],
    device: Device,
}

/// Words to whose multiples a list starts.
const ALIGNMENT: usize = 64;

impl Staging {
    pub(super) fn new(device: &Device) -> Self {
        Self { words: Vec::new(), buffer: Buffer::empty(device), slots: [None, None], device: device.clone() }
    }

    /// Begins anew, with room for so many lists of at most `len` words.
    pub(super) fn begin(&mut self, lists: usize, len: usize) -> Result<(), Error> {
        self.words.clear();
        // Somewhat more, so that batches of like sizes do not make it grow again and again.
        self.buffer.reserve((lists * len.next_multiple_of(ALIGNMENT) * 4).next_power_of_two())
    }

    /// Adds a list and says where it will stand.
    pub(super) fn put(&mut self, list: impl IntoIterator<Item = u32>) -> Words {
        let start = self.words.len().next_multiple_of(ALIGNMENT);
        self.words.resize(start, 0);
        self.words.extend(list);
        Words { at: self.buffer.ptr().offset_bytes(start * 4), len: self.words.len() - start }
    }

    /// Asks for the copy to the device. Waits only for the copy before the last one.
    pub(super) fn send(&mut self) -> Result<(), Error> {
        // Whoever began with too little room has miscounted.
        assert!(self.words.len() * 4 <= self.buffer.bytes(), "no room for {} words", self.words.len());
        self.slots.swap(0, 1);
        let slot = &mut self.slots[0];
        let pinned = match slot.take().filter(|pinned| pinned.len >= self.words.len()) {
            Some(pinned) => slot.insert(pinned),
            None => slot.insert(Pinned::zeroed(&self.device, self.words.len())?),
        };
        pinned.wait()?;
        pinned.words_mut()[..self.words.len()].copy_from_slice(&self.words);
        pinned.send(self.buffer.ptr(), self.words.len())
    }
}

/// Values read some time after they were asked for, so that the host never waits for the device's latest work.
pub(super) struct LateReads {
    device: Device,
    idle: Vec<Pinned>,
    /// Each with its tag and how many words it has.
    pending: VecDeque<(u64, usize, Pinned)>,
}

impl LateReads {
    pub(super) fn new(device: &Device) -> Self {
        Self { device: device.clone(), idle: Vec::new(), pending: VecDeque::new() }
    }

    /// Asks for the words at `from` as they are behind everything asked for so far.
    pub(super) fn request(&mut self, tag: u64, from: Ptr, words: usize) -> Result<(), Error> {
        let mut pinned = match self.idle.pop().filter(|pinned| pinned.len >= words) {
            Some(pinned) => pinned,
            None => Pinned::zeroed(&self.device, words)?,
        };
        pinned.receive(from, words)?;
        self.pending.push_back((tag, words, pinned));
        Ok(())
    }

    /// The oldest values asked for, once more than `behind` requests are pending.
    pub(super) fn take(&mut self, behind: usize) -> Result<Option<(u64, Vec<u32>)>, Error> {
        if self.pending.len() <= behind {
            return Ok(None);
        }
        let Some((tag, words, pinned)) = self.pending.pop_front() else { return Ok(None) };
        pinned.wait()?;
        let words = pinned.words()[..words].to_vec();
        self.idle.push(pinned);
        Ok(Some((tag, words)))
    }
}
