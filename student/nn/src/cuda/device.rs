//! A GPU, real or emulated: its memory, its one stream of work, and what kernels are launched with.
//!
//! Addresses are plain numbers here, as in CUDA: whoever passes one answers for it. Everything runs in the order in which
//! it was asked for; the host waits in [`Device::upload`], [`Device::download`], [`Device::synchronize`] and
//! [`Event::wait`] alone.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytemuck::Pod;

use super::driver::{self, Driver};
use super::emulated::Emulated;
use crate::Error;

/// A GPU with its stream and its kernels; clones share them.
#[derive(Clone)]
pub struct Device {
    backend: Arc<Backend>,
}

pub(super) enum Backend {
    Driver(Box<Driver>),
    /// The same kernels, compiled for the CPU; memory is the host's.
    Emulated(Emulated),
}

impl Device {
    /// The GPU with this number, from 0.
    pub fn cuda(ordinal: usize) -> Result<Self, Error> {
        Ok(Self { backend: Arc::new(Backend::Driver(Box::new(Driver::open(ordinal)?))) })
    }

    /// An emulation in a library that `student/nn/cuda/emulation/build.sh` made, for tests: it is right, and slow.
    pub fn emulated(library: &Path) -> Result<Self, Error> {
        Ok(Self { backend: Arc::new(Backend::Emulated(Emulated::open(library)?)) })
    }

    /// The GPU's name.
    pub fn name(&self) -> String {
        match &*self.backend {
            Backend::Driver(driver) => driver.name().to_string(),
            Backend::Emulated(_) => "emulated GPU".to_string(),
        }
    }

    /// Waits until everything asked for is done.
    pub fn synchronize(&self) -> Result<(), Error> {
        match &*self.backend {
            Backend::Driver(driver) => Ok(driver.synchronize()?),
            Backend::Emulated(_) => Ok(()),
        }
    }

    /// Copies values to the device, waiting for that.
    pub(crate) fn upload<T: Pod>(&self, to: Ptr, values: &[T]) -> Result<(), Error> {
        match &*self.backend {
            Backend::Driver(driver) => {
                driver.upload(to, bytemuck::cast_slice(values))?;
                // The driver promises not always to be done with ordinary memory when the call returns.
                driver.synchronize()?;
            }
            Backend::Emulated(emulated) => emulated.upload(to, bytemuck::cast_slice(values)),
        }
        Ok(())
    }

    /// Copies values from the device, waiting for them.
    pub(crate) fn download<T: Pod>(&self, from: Ptr, values: &mut [T]) -> Result<(), Error> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        match &*self.backend {
            Backend::Driver(driver) => driver.download(from, bytes)?,
            Backend::Emulated(emulated) => emulated.download(from, bytes),
        }
        Ok(())
    }

    /// Sets bytes to zero.
    pub(crate) fn zero(&self, at: Ptr, bytes: usize) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        match &*self.backend {
            Backend::Driver(driver) => driver.zero(at, bytes)?,
            Backend::Emulated(emulated) => emulated.zero(at, bytes),
        }
        Ok(())
    }

    /// Runs a kernel.
    pub(crate) fn launch(&self, launch: Launch, arguments: &Arguments) -> Result<(), Error> {
        #[cfg(test)]
        count_launch(launch.kernel);
        match &*self.backend {
            Backend::Driver(driver) => driver.launch(launch, arguments)?,
            Backend::Emulated(emulated) => emulated.launch(launch, arguments)?,
        }
        Ok(())
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    fn allocate(&self, bytes: usize) -> Result<Ptr, Error> {
        match &*self.backend {
            Backend::Driver(driver) => Ok(driver.allocate(bytes)?),
            Backend::Emulated(emulated) => Ok(emulated.allocate(bytes)),
        }
    }

    fn free(&self, at: Ptr, bytes: usize) {
        match &*self.backend {
            Backend::Driver(driver) => driver.free(at),
            Backend::Emulated(emulated) => emulated.free(at, bytes),
        }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.name()).finish()
    }
}

/// The number formats of a pass. Sums, norms and master weights are `f32` in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in `f32`.
    F32,
    /// `f32` in memory; matrix products read 10 bits of the mantissa.
    Tf32,
    /// Activations and the weights that products read are `bf16`.
    Bf16,
}

impl Precision {
    /// Bytes of an activation.
    pub(crate) fn bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 4 }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        })
    }
}

/// An address on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ptr(pub(crate) u64);

impl Ptr {
    /// What kernels take for "there is none".
    pub(crate) const NULL: Self = Self(0);

    pub(crate) fn offset_bytes(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// Memory of the device, freed on drop.
pub(crate) struct Buffer {
    device: Device,
    ptr: Ptr,
    bytes: usize,
}

impl Buffer {
    /// Room for nothing yet.
    pub(crate) fn empty(device: &Device) -> Self {
        Self { device: device.clone(), ptr: Ptr::NULL, bytes: 0 }
    }

    /// This many bytes, all zero.
    pub(crate) fn zeroed(device: &Device, bytes: usize) -> Result<Self, Error> {
        let mut buffer = Self::empty(device);
        buffer.reserve(bytes)?;
        Ok(buffer)
    }

    /// Makes room for this many bytes. Growth loses what stood here and leaves zeros.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes <= self.bytes {
            return Ok(());
        }
        self.release();
        self.ptr = self.device.allocate(bytes)?;
        self.bytes = bytes;
        self.device.zero(self.ptr, bytes)
    }

    pub(crate) fn ptr(&self) -> Ptr {
        self.ptr
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn release(&mut self) {
        if self.bytes > 0 {
            self.device.free(self.ptr, self.bytes);
        }
        (self.ptr, self.bytes) = (Ptr::NULL, 0);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

/// What a kernel is launched with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    pub(crate) kernel: &'static str,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Dynamic shared memory.
    pub(crate) shared_bytes: u32,
}

const MAX_ARGUMENTS: usize = 40;

/// A kernel's arguments, a slot of 8 bytes each.
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    slots: [u64; MAX_ARGUMENTS],
    count: usize,
}

impl Arguments {
    pub(crate) fn new() -> Self {
        Self { slots: [0; MAX_ARGUMENTS], count: 0 }
    }

    pub(crate) fn ptr(self, value: Ptr) -> Self {
        self.push(value.0)
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.push(u64::from(value))
    }

    pub(crate) fn i32(self, value: i32) -> Self {
        self.push(u64::from(value.cast_unsigned()))
    }

    pub(crate) fn f32(self, value: f32) -> Self {
        self.push(u64::from(value.to_bits()))
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.push(value)
    }

    fn push(mut self, slot: u64) -> Self {
        // A kernel with more arguments is a mistake in this crate.
        assert!(self.count < MAX_ARGUMENTS, "too many arguments for a kernel");
        self.slots[self.count] = slot;
        self.count += 1;
        self
    }

    /// What a launch takes: a pointer to each slot. A narrow argument stands in the slot's first bytes (little endian).
    pub(super) fn pointers(&self) -> [*mut std::ffi::c_void; MAX_ARGUMENTS] {
        std::array::from_fn(|index| std::ptr::from_ref(&self.slots[index]).cast_mut().cast())
    }
}

/// Memory of the host that the device copies from and to on its own.
pub(crate) struct Pinned {
    device: Device,
    words: *mut u32,
    len: usize,
}

#[expect(unsafe_code, reason = "page-locked memory comes from the driver as a pointer")]
mod pinned {
    use super::*;

    // SAFETY: the memory belongs to this value alone, as a `Vec`'s does.
    unsafe impl Send for Pinned {}

    impl Pinned {
        /// This many words, all zero.
        pub(crate) fn zeroed(device: &Device, len: usize) -> Result<Self, Error> {
            let words = match &*device.backend {
                Backend::Driver(driver) => driver.allocate_host(len * 4)?.cast(),
                Backend::Emulated(emulated) => emulated.allocate(len * 4).0 as *mut u32,
            };
            // SAFETY: `len` words were just allocated there.
            unsafe { words.write_bytes(0, len) };
            Ok(Self { device: device.clone(), words, len })
        }

        pub(crate) fn words(&self) -> &[u32] {
            // SAFETY: `len` initialised words, which live as long as this value. The device writes here only between a
            // request and the wait for its event; [`LateReads`] does not look in between.
            unsafe { std::slice::from_raw_parts(self.words, self.len) }
        }

        pub(crate) fn words_mut(&mut self) -> &mut [u32] {
            // SAFETY: as above, and borrowed mutably.
            unsafe { std::slice::from_raw_parts_mut(self.words, self.len) }
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            match &*self.device.backend {
                Backend::Driver(driver) => driver.free_host(self.words.cast()),
                Backend::Emulated(emulated) => emulated.free(Ptr(self.words as u64), self.len * 4),
            }
        }
    }
}

impl Pinned {
    /// Asks for a copy of the first `len` words to the device.
    fn send(&self, to: Ptr, len: usize) -> Result<(), Error> {
        let words = &self.words()[..len];
        match &*self.device.backend {
            Backend::Driver(driver) => driver.upload(to, bytemuck::cast_slice(words))?,
            Backend::Emulated(emulated) => emulated.upload(to, bytemuck::cast_slice(words)),
        }
        Ok(())
    }

    /// Asks for a copy of `len` words from the device.
    fn receive(&mut self, from: Ptr, len: usize) -> Result<(), Error> {
        let device = self.device.clone();
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words_mut()[..len]);
        match &*device.backend {
            Backend::Driver(driver) => driver.download_later(from, bytes)?,
            Backend::Emulated(emulated) => emulated.download(from, bytes),
        }
        Ok(())
    }
}

/// A mark in the stream of work that the host can wait for.
pub(crate) struct Event {
    device: Device,
    handle: driver::EventHandle,
}

impl Event {
    pub(crate) fn new(device: &Device) -> Result<Self, Error> {
        let handle = match &*device.backend {
            Backend::Driver(driver) => driver.event()?,
            Backend::Emulated(_) => driver::EventHandle::NONE,
        };
        Ok(Self { device: device.clone(), handle })
    }

    /// Sets the mark behind everything asked for so far.
    pub(crate) fn record(&self) -> Result<(), Error> {
        if let Backend::Driver(driver) = &*self.device.backend {
            driver.record(self.handle)?;
        }
        Ok(())
    }

    /// Waits until the mark is reached.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        if let Backend::Driver(driver) = &*self.device.backend {
            driver.wait(self.handle)?;
        }
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Backend::Driver(driver) = &*self.device.backend {
            driver.destroy_event(self.handle);
        }
    }
}

/// Uploads that the host does not wait for: two page-locked buffers in turn.
pub(crate) struct Staging {
    device: Device,
    slots: [Option<(Pinned, Event)>; 2],
    next: usize,
}

impl Staging {
    pub(crate) fn new(device: &Device) -> Self {
        Self { device: device.clone(), slots: [None, None], next: 0 }
    }

    /// Copies words to the device. Waits only for the copy before the last one.
    pub(crate) fn send(&mut self, to: Ptr, words: &[u32]) -> Result<(), Error> {
        let slot = &mut self.slots[self.next];
        self.next = 1 - self.next;
        if let Some((_, copied)) = slot {
            copied.wait()?;
        }
        if slot.as_ref().is_none_or(|(pinned, _)| pinned.words().len() < words.len()) {
            let room = words.len().next_power_of_two();
            *slot = Some((Pinned::zeroed(&self.device, room)?, Event::new(&self.device)?));
        }
        if let Some((pinned, copied)) = slot {
            pinned.words_mut()[..words.len()].copy_from_slice(words);
            pinned.send(to, words.len())?;
            copied.record()?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The device may still read what is about to be freed.
        for (_, copied) in self.slots.iter().flatten() {
            let _ = copied.wait();
        }
    }
}

/// Values read some time after they were asked for, so that the host never waits for the device's latest work.
pub(crate) struct LateReads {
    device: Device,
    idle: Vec<(Pinned, Event)>,
    pending: VecDeque<Pending>,
}

struct Pending {
    tag: u64,
    words: usize,
    pinned: Pinned,
    event: Event,
}

impl LateReads {
    pub(crate) fn new(device: &Device) -> Self {
        Self { device: device.clone(), idle: Vec::new(), pending: VecDeque::new() }
    }

    /// Asks for the words at `from` as they are behind everything asked for so far.
    pub(crate) fn request(&mut self, tag: u64, from: Ptr, words: usize) -> Result<(), Error> {
        let (mut pinned, event) = match self.idle.pop().filter(|(pinned, _)| pinned.words().len() >= words) {
            Some(slot) => slot,
            None => (Pinned::zeroed(&self.device, words.next_power_of_two())?, Event::new(&self.device)?),
        };
        pinned.receive(from, words)?;
        event.record()?;
        self.pending.push_back(Pending { tag, words, pinned, event });
        Ok(())
    }

    /// The oldest values asked for, once more than `behind` requests are pending.
    pub(crate) fn take(&mut self, behind: usize) -> Result<Option<(u64, Vec<u32>)>, Error> {
        if self.pending.len() <= behind {
            return Ok(None);
        }
        let Some(Pending { tag, words, pinned, event }) = self.pending.pop_front() else { return Ok(None) };
        event.wait()?;
        let words = pinned.words()[..words].to_vec();
        self.idle.push((pinned, event));
        Ok(Some((tag, words)))
    }
}

impl Drop for LateReads {
    fn drop(&mut self) {
        // The device may still write to what is about to be freed.
        for pending in &self.pending {
            let _ = pending.event.wait();
        }
    }
}

#[cfg(test)]
thread_local! {
    static LAUNCHES: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(test)]
pub(super) fn count_launch(kernel: &'static str) {
    LAUNCHES.with(|launches| launches.borrow_mut().push(kernel));
}

/// The kernels and products that this thread launched since it last asked.
#[cfg(test)]
pub(crate) fn take_launches() -> Vec<&'static str> {
    LAUNCHES.with(std::cell::RefCell::take)
}
