//! A GPU, real or emulated: its memory and its one stream of work.
//!
//! Addresses are plain numbers, as in CUDA: the caller is responsible for them. Work runs in the order in which it was
//! enqueued; the host waits in [`Device::upload`], [`Device::download`] and [`Device::synchronize`], and where
//! `transfer` says so.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;

use super::driver::Driver;
use super::emulated::{Emulated, Extent, SHARED_BYTES as EMULATED_SHARED_BYTES};
use super::error::DeviceError;
use super::meter::Meter;
use super::op::product::launch as product;
use super::operand::{Matrix, Ptr};
use super::tuning::ProductChoices;
use super::work::{Arguments, Launch, Matmul};
use crate::Error;

/// A GPU with its stream and its kernels. Clones refer to the same GPU.
#[derive(Clone)]
pub struct Device {
    pub(super) backend: Arc<Backend>,
    pub(super) meter: Arc<Meter>,
    /// What failed, where that is noted and not returned.
    faults: Option<Arc<Mutex<Vec<String>>>>,
}

pub(super) enum Backend {
    Driver(Box<Driver>),
    /// The same kernels, compiled for the CPU; memory is the host's.
    Emulated(Emulated),
}

impl Device {
    /// The GPU with this ordinal, counted from 0.
    pub fn cuda(ordinal: usize) -> Result<Self, Error> {
        Ok(Self::of(Backend::Driver(Box::new(Driver::open(ordinal)?))))
    }

    /// The emulated device, for tests, in a library built by `student/nn/cuda/emulation/build.sh`: correct, but slow.
    pub fn emulated(library: &Path) -> Result<Self, Error> {
        Ok(Self::of(Backend::Emulated(Emulated::open(library)?)))
    }

    fn of(backend: Backend) -> Self {
        Self { backend: Arc::new(backend), meter: Arc::default(), faults: None }
    }

    /// The same GPU, which takes note of a launch or product that fails and goes on, as long as the GPU itself can: for
    /// checks, whose results then show what was not computed.
    pub(super) fn noting_faults(&self) -> Self {
        Self { faults: Some(Arc::default()), ..self.clone() }
    }

    /// What failed since this was last asked.
    pub(super) fn take_faults(&self) -> Vec<String> {
        self.faults
            .as_ref()
            .map(|faults| std::mem::take(&mut *faults.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }

    fn note(&self, result: Result<(), DeviceError>) -> Result<(), Error> {
        match (result, &self.faults) {
            (Err(error), Some(faults)) if !error.is_loss() => {
                faults.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
                Ok(())
            }
            (result, _) => Ok(result?),
        }
    }

    /// The library for matrix products, and where it was found.
    pub fn library(&self) -> String {
        match &*self.backend {
            Backend::Driver(driver) => driver.library(),
            Backend::Emulated(_) => "the CPU's engine".to_string(),
        }
    }

    /// The GPU's name.
    pub fn name(&self) -> String {
        match &*self.backend {
            Backend::Driver(driver) => driver.name().to_string(),
            Backend::Emulated(_) => "emulated GPU".to_string(),
        }
    }

    /// Shared memory that a block can have if it asks for it, in bytes.
    pub(super) fn block_shared_bytes(&self) -> usize {
        match &*self.backend {
            Backend::Driver(driver) => driver.block_shared_bytes(),
            Backend::Emulated(_) => EMULATED_SHARED_BYTES,
        }
    }

    /// Waits until all enqueued work is done.
    pub fn synchronize(&self) -> Result<(), Error> {
        match &*self.backend {
            Backend::Driver(driver) => Ok(driver.synchronize()?),
            Backend::Emulated(_) => Ok(()),
        }
    }

    /// Copies values to the device, waiting for that.
    pub(crate) fn upload<T: Pod>(&self, to: Ptr, values: &[T]) -> Result<(), Error> {
        self.upload_later(to, bytemuck::cast_slice(values))?;
        // The driver promises not always to be done with ordinary memory when the call returns.
        self.synchronize()
    }

    /// Asks for a copy to the device; the bytes must stay as they are until it is done.
    pub(super) fn upload_later(&self, to: Ptr, bytes: &[u8]) -> Result<(), Error> {
        match &*self.backend {
            Backend::Driver(driver) => driver.upload(to, bytes)?,
            Backend::Emulated(emulated) => emulated.upload(to, bytes),
        }
        Ok(())
    }

    /// Copies values from the device, waiting for them.
    pub(crate) fn download<T: Pod>(&self, from: Ptr, values: &mut [T]) -> Result<(), Error> {
        self.download_later(from, bytemuck::cast_slice_mut(values))?;
        self.synchronize()
    }

    /// Asks for a copy from the device; nobody may look at the bytes until it is done.
    pub(super) fn download_later(&self, from: Ptr, bytes: &mut [u8]) -> Result<(), Error> {
        self.meter.download(bytes.len());
        match &*self.backend {
            Backend::Driver(driver) => driver.download(from, bytes)?,
            Backend::Emulated(emulated) => emulated.download(from, bytes),
        }
        Ok(())
    }

    /// Copies values to the rows of a matrix without gaps, rounded to what it is made of.
    pub(crate) fn write(&self, to: Matrix, values: &[f32]) -> Result<(), Error> {
        self.upload(to.at, &to.number.encode(values))
    }

    /// The values of a matrix without gaps.
    pub(crate) fn read(&self, from: Matrix) -> Result<Vec<f32>, Error> {
        let mut bytes = vec![0u8; from.rows * from.width * from.number.bytes()];
        self.download(from.at, &mut bytes)?;
        Ok(from.number.decode(&bytes))
    }

    /// Sets bytes to zero.
    pub(crate) fn zero(&self, at: Ptr, bytes: usize) -> Result<(), Error> {
        match &*self.backend {
            _ if bytes == 0 => {}
            Backend::Driver(driver) => driver.zero(at, bytes)?,
            Backend::Emulated(emulated) => emulated.zero(at, bytes),
        }
        Ok(())
    }

    /// Runs a kernel.
    pub(crate) fn launch(&self, launch: Launch, arguments: &Arguments) -> Result<(), Error> {
        #[cfg(test)]
        count_launch(launch.kernel);
        let run = || {
            self.note(match &*self.backend {
                Backend::Driver(driver) => driver.launch(launch, arguments),
                Backend::Emulated(emulated) => emulated.launch(launch, arguments),
            })
        };
        self.metered(|| launch.kernel.to_string(), run)
    }

    /// From now on, times the algorithms of each product whose shape is new and takes the fastest. Shapes in `kept` have
    /// theirs from there, unless it was made on another GPU or with another cuBLASLt: then the result is false. The emulated
    /// device has nothing to choose from.
    pub fn tune_products(&self, kept: Option<&ProductChoices>) -> bool {
        let Backend::Driver(driver) = &*self.backend else { return true };
        let own = kept.filter(|kept| (kept.gpu.as_str(), &kept.cublaslt) == (driver.name(), &driver.release()));
        driver.tune_products(Some(own.map(|kept| kept.algorithms.clone()).unwrap_or_default()));
        own.is_some() == kept.is_some()
    }

    /// What was chosen since [`tune_products`](Self::tune_products), what it was given included; `None` if products are not
    /// tuned.
    pub fn product_choices(&self) -> Option<ProductChoices> {
        let Backend::Driver(driver) = &*self.backend else { return None };
        let algorithms = driver.product_choices()?;
        Some(ProductChoices { gpu: driver.name().to_owned(), cublaslt: driver.release(), algorithms })
    }

    /// Takes cuBLASLt's first algorithms again.
    pub fn stop_tuning_products(&self) {
        if let Backend::Driver(driver) = &*self.backend {
            driver.tune_products(None);
        }
    }

    /// Computes a product: by cuBLASLt on a GPU, by the CPU's engine on the emulated one, on both with the bias behind it
    /// where that is not at a multiple of 16 bytes. cuBLASLt promises nothing of a bias' address, and reads it in as wide
    /// accesses as it writes the result in.
    pub(crate) fn matmul(&self, matmul: Matmul) -> Result<(), Error> {
        // Without elements, or with nothing to add to them: a batch may ask a masked-language model about no token.
        let inner = if matmul.a_transposed { matmul.a.rows } else { matmul.a.width };
        let Matrix { at, number, rows, width, stride } = matmul.c;
        if rows == 0 || width == 0 || inner == 0 && matmul.accumulate {
            return Ok(());
        }
        if inner == 0 && matmul.bias.is_none() && stride == width {
            return self.zero(at, rows * width * number.bytes());
        }
        if let Some(bias) = matmul.bias.filter(|bias| !bias.0.is_multiple_of(16)) {
            self.matmul(Matmul { bias: None, ..matmul })?;
            let row = Extent::from(Matrix::new(matmul.c.number, bias, [1, matmul.c.width]));
            self.check("add_bias", "bias", row, row)?;
            let (launch, arguments) = product::add_bias(matmul.c, bias);
            return self.launch(launch, &arguments);
        }
        #[cfg(test)]
        count_launch("matmul");
        let run = || {
            self.note(match &*self.backend {
                Backend::Driver(driver) => driver.matmul(&matmul),
                Backend::Emulated(emulated) => emulated.matmul(&matmul),
            })
        };
        self.metered(|| matmul.to_string(), run)
    }

    /// Refuses a kernel's operand that is not what is expected; the emulated device alone looks.
    pub(crate) fn check(&self, kernel: &str, name: &str, found: Extent, expected: Extent) -> Result<(), DeviceError> {
        match &*self.backend {
            Backend::Driver(_) => Ok(()),
            Backend::Emulated(emulated) => emulated.check(kernel, name, found, expected),
        }
    }

    fn allocate(&self, bytes: usize) -> Result<Ptr, Error> {
        let at = match &*self.backend {
            Backend::Driver(driver) => driver.allocate(bytes)?,
            Backend::Emulated(emulated) => emulated.allocate(bytes),
        };
        self.meter.take(bytes);
        Ok(at)
    }

    fn free(&self, at: Ptr, bytes: usize) {
        self.meter.give_back(bytes);
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

#[cfg(test)]
thread_local! {
    static LAUNCHES: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(test)]
fn count_launch(kernel: &'static str) {
    LAUNCHES.with(|launches| launches.borrow_mut().push(kernel));
}

/// The kernels and products that this thread launched since it last asked.
#[cfg(test)]
pub(super) fn take_launches() -> Vec<&'static str> {
    LAUNCHES.with(std::cell::RefCell::take)
}
