//! A real GPU, through the CUDA driver's own interface.
//!
//! The driver's library is opened when a GPU is first requested, not at the start of the program.
#![expect(unsafe_code, reason = "the driver's interface is C")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_void};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{self, CUresult};

use super::blas::{Blas, WORKSPACE_BYTES};
use super::cublaslt::{CublasLt, Status};
use super::error::DeviceError;
use super::op::product::launch as product;
use super::operand::{Matrix, Ptr};
use super::tuning::fastest;
use super::work::{Arguments, Launch, Matmul};

/// The kernels, compiled ahead by `student/nn/cuda/build.sh`; the driver turns them into the GPU's own code once.
const KERNELS: &[u8] = include_bytes!("../../cuda/kernels.ptx.gz");

/// Names a file of PTX to load in place of the program's own kernels: that of `build.sh --lineinfo`, for NVIDIA's tools.
const KERNELS_VARIABLE: &str = "DISTILL_CUDA_KERNELS";

/// What the driver must be made for: the version of the kernels' PTX.
const NEEDED_DRIVER: i32 = 12040;

/// Dynamic shared memory that a kernel gets without asking.
const DEFAULT_SHARED_BYTES: u32 = 48 << 10;

/// One GPU with one stream.
pub(super) struct Driver {
    name: String,
    context: sys::CUcontext,
    device: sys::CUdevice,
    stream: sys::CUstream,
    /// Shared memory that a block can have if it asks for it.
    block_shared_bytes: usize,
    /// Whether memory comes from the driver's pool, in the order of the stream.
    pooled: bool,
    module: sys::CUmodule,
    functions: Mutex<HashMap<&'static str, Function>>,
    /// One call at a time.
    blas: Option<Mutex<Blas>>,
}

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that it may have.
    shared_bytes: u32,
}

// SAFETY: handles of the driver serve any thread once the context is current there, which `bind` sees to; the map is
// behind a mutex.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

/// An event's handle; nothing on the emulated device.
#[derive(Clone, Copy)]
pub(super) struct EventHandle(sys::CUevent);

impl EventHandle {
    pub(super) const NONE: Self = Self(std::ptr::null_mut());
}

// SAFETY: a handle of the driver, which serves any thread.
unsafe impl Send for EventHandle {}

/// How many GPUs there are, and the CUDA that their driver is made for.
fn count() -> Result<(usize, i32), DeviceError> {
    // SAFETY: looks for the driver's library and opens it, which runs its initialisers and nothing else.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::NoDriver);
    }
    let (mut version, mut count) = (0, 0);
    // SAFETY: both write one number to where they are told.
    unsafe {
        check(sys::cuDriverGetVersion(&mut version), "cuDriverGetVersion")?;
        match sys::cuInit(0) {
            CUresult::CUDA_ERROR_NO_DEVICE => return Err(DeviceError::NoGpu),
            // What a toolkit brings to link against.
            CUresult::CUDA_ERROR_STUB_LIBRARY => return Err(DeviceError::NoDriver),
            result => check(result, "cuInit")?,
        }
        check(sys::cuDeviceGetCount(&mut count), "cuDeviceGetCount")?;
    }
    if version < NEEDED_DRIVER {
        return Err(DeviceError::TooOldDriver { found: version, needed: NEEDED_DRIVER });
    }
    Ok((count as usize, version))
}

impl Driver {
    pub(super) fn open(ordinal: usize) -> Result<Self, DeviceError> {
        let (count, version) = count()?;
        if count == 0 {
            return Err(DeviceError::NoGpu);
        }
        if ordinal >= count {
            return Err(DeviceError::NoSuchGpu { ordinal, count });
        }
        let mut device = 0;
        // SAFETY: the driver is initialised and the ordinal one of its GPUs.
        unsafe { check(sys::cuDeviceGet(&mut device, ordinal as i32), "cuDeviceGet")? };
        let name = name(device)?;
        use sys::CUdevice_attribute_enum as Attribute;
        let major = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if major < 8 {
            return Err(DeviceError::TooOldGpu { name, major, minor });
        }
        let mut context = std::ptr::null_mut();
        // SAFETY: as above; the context is released in `drop`.
        let result = unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) };
        check(room_for("its context", &name, result)?, "cuDevicePrimaryCtxRetain")?;
        let mut driver = Self {
            name,
            context,
            device,
            stream: std::ptr::null_mut(),
            block_shared_bytes: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
                as usize,
            pooled: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0,
            module: std::ptr::null_mut(),
            functions: Mutex::new(HashMap::new()),
            blas: None,
        };
        driver.bind()?;
        let kind = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current; the stream is destroyed in `drop`.
        let result = unsafe { sys::cuStreamCreate(&mut driver.stream, kind) };
        check(room_for("a stream", &driver.name, result)?, "cuStreamCreate")?;
        if driver.pooled {
            driver.keep_freed_memory()?;
        }
        driver.module = load_kernels(&driver.name)?;
        let library = CublasLt::open(version)?;
        // Freed with the context: it lives exactly as long.
        let workspace = driver.allocate(WORKSPACE_BYTES).map_err(|error| match error {
            DeviceError::OutOfMemory { .. } => no_room("cuBLASLt's workspace", &driver.name),
            error => error,
        })?;
        driver.blas =
            Some(Mutex::new(Blas::open(library, driver.stream, workspace).map_err(|status| match status {
                Status::ALLOC_FAILED => no_room("cuBLASLt", &driver.name),
                status => DeviceError::Blas {
                    call: format!("cublasLtCreate, {} of {}", library.path.display(), library.release()),
                    reason: status.to_string(),
                },
            })?));
        Ok(driver)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn block_shared_bytes(&self) -> usize {
        self.block_shared_bytes
    }

    /// cuBLASLt's version, and the file that it was found in.
    pub(super) fn library(&self) -> String {
        self.with_blas(|blas| blas.library()).unwrap_or_default()
    }

    /// cuBLASLt's version.
    pub(super) fn release(&self) -> String {
        self.with_blas(|blas| blas.release()).unwrap_or_default()
    }

    /// See [`Blas::tune`].
    pub(super) fn tune_products(&self, choices: Option<BTreeMap<String, usize>>) {
        self.with_blas(|blas| blas.tune(choices));
    }

    /// See [`Blas::choices`].
    pub(super) fn product_choices(&self) -> Option<BTreeMap<String, usize>> {
        self.with_blas(|blas| blas.choices().cloned())?
    }

    fn with_blas<T>(&self, then: impl FnOnce(&mut Blas) -> T) -> Option<T> {
        Some(then(&mut self.blas.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Bytes that are free, and all there are.
    pub(super) fn memory(&self) -> Result<(usize, usize), DeviceError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers to where it is told.
        unsafe { check(sys::cuMemGetInfo_v2(&mut free, &mut total), "cuMemGetInfo")? };
        Ok((free, total))
    }

    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { check(sys::cuStreamSynchronize(self.stream), "cuStreamSynchronize") }
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<Ptr, DeviceError> {
        self.bind()?;
        let mut address = 0;
        // SAFETY: writes an address to where it is told.
        let mut allocate = || unsafe {
            match self.pooled {
                true => sys::cuMemAllocAsync(&mut address, bytes, self.stream),
                false => sys::cuMemAlloc_v2(&mut address, bytes),
            }
        };
        let mut result = allocate();
        if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY && self.pooled {
            self.give_back_freed_memory()?;
            result = allocate();
        }
        if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let (free, total) = self.memory().unwrap_or((0, 0));
            return Err(DeviceError::OutOfMemory { asked: bytes, free, total });
        }
        check(result, format_args!("an allocation of {bytes} bytes"))?;
        Ok(Ptr(address))
    }

    pub(super) fn free(&self, at: Ptr) {
        if self.bind().is_err() {
            return;
        }
        // SAFETY: the address came from `allocate` and is freed once, by its buffer. Work that uses it stands before in
        // the stream, or is waited for by the call without a pool. A failure means that the context is gone, and the
        // memory with it.
        let _ = unsafe {
            match self.pooled {
                true => sys::cuMemFreeAsync(at.0, self.stream),
                false => sys::cuMemFree_v2(at.0),
            }
        };
    }

    pub(super) fn allocate_host(&self, bytes: usize) -> Result<*mut c_void, DeviceError> {
        self.bind()?;
        let mut address = std::ptr::null_mut();
        // SAFETY: writes an address to where it is told.
        unsafe { check(sys::cuMemHostAlloc(&mut address, bytes.max(1), 0), "cuMemHostAlloc")? };
        Ok(address)
    }

    pub(super) fn free_host(&self, at: *mut c_void) {
        if self.bind().is_ok() {
            // SAFETY: the address came from `allocate_host` and is freed once, by its owner.
            let _ = unsafe { sys::cuMemFreeHost(at) };
        }
    }

    pub(super) fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<(), DeviceError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the caller answers for the address, and leaves the bytes alone until the copy is done: `Pinned` waits
        // for its event, all others for the stream.
        let result = unsafe { sys::cuMemcpyHtoDAsync_v2(to.0, bytes.as_ptr().cast(), bytes.len(), self.stream) };
        check(result, format_args!("an upload of {} bytes", bytes.len()))
    }

    /// Copies from the device once everything before is done; nobody may look at `bytes` until an event behind it.
    pub(super) fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<(), DeviceError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the caller answers for the address, and for `bytes` until an event behind this copy.
        let result = unsafe { sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from.0, bytes.len(), self.stream) };
        check(result, format_args!("a download of {} bytes", bytes.len()))
    }

    pub(super) fn zero(&self, at: Ptr, bytes: usize) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: the caller answers for the address.
        unsafe { check(sys::cuMemsetD8Async(at.0, 0, bytes, self.stream), format_args!("zeroing {bytes} bytes")) }
    }

    pub(super) fn launch(&self, launch: Launch, arguments: &Arguments) -> Result<(), DeviceError> {
        self.bind()?;
        let function = self.function(launch)?;
        let ([x, y, z], [bx, by, bz]) = (launch.grid, launch.block);
        let mut pointers = arguments.pointers();
        // SAFETY: the function belongs to the module that is loaded; a kernel's launcher passes what it takes.
        let result = unsafe {
            let pointers = pointers.as_mut_ptr();
            let none = std::ptr::null_mut();
            sys::cuLaunchKernel(function, x, y, z, bx, by, bz, launch.shared_bytes, self.stream, pointers, none)
        };
        check(result, format_args!("kernel {} (or one before it)", launch.kernel))
    }

    /// A product by cuBLASLt; what that refuses, without the bias, which is added behind it; what it refuses then too, by a
    /// kernel of our own.
    pub(super) fn matmul(&self, matmul: &Matmul) -> Result<(), DeviceError> {
        self.bind()?;
        let Some(blas) = &self.blas else {
            return Err(DeviceError::Blas { call: matmul.to_string(), reason: "it is not open yet".to_string() });
        };
        let mut blas = blas.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(refusal) = self.refusal(&mut blas, matmul)? else { return Ok(()) };
        if let Some(bias) = matmul.bias
            && self.refusal(&mut blas, &Matmul { bias: None, ..*matmul })?.is_none()
        {
            blas.name_once(matmul, refusal, "its bias is added by a kernel of its own");
            let (launch, arguments) = product::add_bias(matmul.c, bias);
            return self.launch(launch, &arguments);
        }
        blas.name_once(matmul, refusal, "a kernel of this program computes it, slowly");
        let (launch, arguments) = product::product(matmul);
        self.launch(launch, &arguments)
    }

    /// Asks cuBLASLt for a product, and returns why it does not compute it.
    fn refusal(&self, blas: &mut Blas, matmul: &Matmul) -> Result<Option<Status>, DeviceError> {
        let algorithms = blas.untimed(matmul);
        if algorithms > 0 {
            let fastest = self.fastest(blas, matmul, algorithms)?;
            blas.choose(matmul, fastest);
        }
        let status = blas.matmul(matmul);
        self.unless_refused(status, matmul)
    }

    /// A refusal, or an error if the product failed on the GPU.
    fn unless_refused(&self, status: Result<(), Status>, matmul: &Matmul) -> Result<Option<Status>, DeviceError> {
        match status {
            Ok(()) => Ok(None),
            Err(status) if status.is_refusal() => Ok(Some(status)),
            Err(status) => {
                // What went wrong on the GPU before says more.
                self.synchronize()?;
                Err(DeviceError::Blas { call: format!("the product {matmul}"), reason: status.to_string() })
            }
        }
    }

    /// Times a product's algorithms. What it may be added to must not be added to again and again, so its output stands
    /// somewhere else meanwhile; where there is no room for that, the first algorithm is as good as any.
    fn fastest(&self, blas: &mut Blas, matmul: &Matmul, algorithms: usize) -> Result<usize, DeviceError> {
        let Matrix { number, rows, stride, .. } = matmul.c;
        let bytes = rows * stride * number.bytes();
        let output = match self.allocate(bytes) {
            Err(DeviceError::OutOfMemory { .. }) => return Ok(0),
            output => output?,
        };
        let zeroed = self.zero(output, bytes).and_then(|()| self.synchronize());
        let fastest = zeroed.and_then(|()| {
            fastest(algorithms, |algorithm, runs| {
                for _ in 0..runs {
                    let status = blas.try_algorithm(matmul, output, algorithm);
                    if self.unless_refused(status, matmul)?.is_some() {
                        return Ok(false);
                    }
                }
                self.synchronize()?;
                Ok(true)
            })
        });
        self.free(output);
        fastest
    }

    pub(super) fn event(&self) -> Result<EventHandle, DeviceError> {
        self.bind()?;
        let mut event = std::ptr::null_mut();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: writes a handle to where it is told; its owner destroys it.
        unsafe { check(sys::cuEventCreate(&mut event, flags), "cuEventCreate")? };
        Ok(EventHandle(event))
    }

    /// Refuses a driver without the call that reads the time between two events.
    pub(super) fn check_timing(&self) -> Result<(), DeviceError> {
        let mut version = 0;
        // SAFETY: writes one number.
        unsafe { check(sys::cuDriverGetVersion(&mut version), "cuDriverGetVersion")? };
        if version < 12080 {
            let reason = "needs a driver made for CUDA 12.8 or later; update it, or time without launches".to_string();
            return Err(DeviceError::Driver { call: "timing launches".to_string(), reason });
        }
        Ok(())
    }

    /// An event that remembers when it was passed.
    pub(super) fn timing_event(&self) -> Result<EventHandle, DeviceError> {
        self.bind()?;
        let mut event = std::ptr::null_mut();
        // SAFETY: writes a handle to where it is told; its owner destroys it.
        unsafe { check(sys::cuEventCreate(&mut event, 0), "cuEventCreate")? };
        Ok(EventHandle(event))
    }

    /// The time between two such events, both passed.
    pub(super) fn milliseconds_between(&self, before: EventHandle, behind: EventHandle) -> Result<f64, DeviceError> {
        self.bind()?;
        let mut milliseconds = 0.0;
        // SAFETY: both events are alive, and timed; writes a number to where it is told.
        unsafe { check(sys::cuEventElapsedTime_v2(&mut milliseconds, before.0, behind.0), "cuEventElapsedTime")? };
        Ok(f64::from(milliseconds))
    }

    pub(super) fn record(&self, event: EventHandle) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: event and stream are alive.
        unsafe { check(sys::cuEventRecord(event.0, self.stream), "cuEventRecord") }
    }

    pub(super) fn wait(&self, event: EventHandle) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: the event is alive.
        unsafe { check(sys::cuEventSynchronize(event.0), "cuEventSynchronize") }
    }

    pub(super) fn destroy_event(&self, event: EventHandle) {
        if self.bind().is_ok() {
            // SAFETY: the handle came from `event` and is destroyed once, by its owner.
            let _ = unsafe { sys::cuEventDestroy_v2(event.0) };
        }
    }

    /// Makes the context current on this thread.
    pub(super) fn bind(&self) -> Result<(), DeviceError> {
        // SAFETY: the context is retained until `drop`.
        unsafe { check(sys::cuCtxSetCurrent(self.context), "cuCtxSetCurrent") }
    }

    /// The kernel's handle, allowed as much shared memory as this launch asks for.
    fn function(&self, launch: Launch) -> Result<sys::CUfunction, DeviceError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let function = match functions.get_mut(launch.kernel) {
            Some(function) => function,
            None => {
                let name = CString::new(launch.kernel).unwrap_or_default();
                let mut handle = std::ptr::null_mut();
                // SAFETY: the module is loaded and the name ends in a zero.
                let result = unsafe { sys::cuModuleGetFunction(&mut handle, self.module, name.as_ptr()) };
                check(result, format_args!("looking for the kernel {}", launch.kernel))?;
                functions.entry(launch.kernel).or_insert(Function { handle, shared_bytes: DEFAULT_SHARED_BYTES })
            }
        };
        if launch.shared_bytes > function.shared_bytes {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = launch.shared_bytes;
            // SAFETY: the handle belongs to the loaded module.
            let result = unsafe { sys::cuFuncSetAttribute(function.handle, attribute, bytes as i32) };
            check(result, format_args!("giving the kernel {} {bytes} bytes of shared memory", launch.kernel))?;
            function.shared_bytes = bytes;
        }
        Ok(function.handle)
    }

    /// Lets the pool keep what is freed, so that a buffer that grows does not cost a wait for the device.
    fn keep_freed_memory(&self) -> Result<(), DeviceError> {
        let pool = self.pool()?;
        let mut threshold = u64::MAX;
        let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let value = std::ptr::from_mut(&mut threshold).cast();
        // SAFETY: the device's own pool, and an attribute that is one 64-bit number.
        unsafe { check(sys::cuMemPoolSetAttribute(pool, attribute, value), "cuMemPoolSetAttribute") }
    }

    /// Waits for the device and empties the pool of what is free in it, whose pieces may all be too small.
    fn give_back_freed_memory(&self) -> Result<(), DeviceError> {
        self.synchronize()?;
        // SAFETY: the device's own pool.
        unsafe { check(sys::cuMemPoolTrimTo(self.pool()?, 0), "cuMemPoolTrimTo") }
    }

    fn pool(&self) -> Result<sys::CUmemoryPool, DeviceError> {
        let mut pool = std::ptr::null_mut();
        // SAFETY: writes a handle to where it is told.
        unsafe { check(sys::cuDeviceGetDefaultMemPool(&mut pool, self.device), "cuDeviceGetDefaultMemPool")? };
        Ok(pool)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        // SAFETY: every handle is this value's own and destroyed once; buffers and events hold the device, so they are
        // gone already. Nothing can be done about a failure here.
        unsafe {
            let _ = sys::cuStreamSynchronize(self.stream);
            drop(self.blas.take());
            if !self.module.is_null() {
                let _ = sys::cuModuleUnload(self.module);
            }
            if !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// Passes on what a call returned while the GPU was made ready, unless its memory was full.
fn room_for(what: &'static str, name: &str, result: CUresult) -> Result<CUresult, DeviceError> {
    if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY { Err(no_room(what, name)) } else { Ok(result) }
}

fn no_room(what: &'static str, name: &str) -> DeviceError {
    DeviceError::NoRoomToStart { name: name.to_string(), what }
}

/// The PTX of the kernels: the program's own, or that in the file which [`KERNELS_VARIABLE`] names.
fn kernels(named: Option<&Path>) -> Result<Vec<u8>, DeviceError> {
    let mut image = Vec::new();
    let read = match named {
        None => gunzip(KERNELS, &mut image),
        Some(file) => std::fs::read(file).and_then(|bytes| match bytes.starts_with(&[0x1f, 0x8b]) {
            true => gunzip(&bytes, &mut image),
            false => {
                image = bytes;
                Ok(())
            }
        }),
    };
    read.map_err(|error| {
        let call = match named {
            None => "unpacking the kernels".to_string(),
            Some(file) => format!("reading the kernels from {KERNELS_VARIABLE}={}", file.display()),
        };
        DeviceError::Driver { call, reason: error.to_string() }
    })?;
    image.push(0);
    Ok(image)
}

fn gunzip(bytes: &[u8], to: &mut Vec<u8>) -> std::io::Result<()> {
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), to).map(|_| ())
}

fn load_kernels(name: &str) -> Result<sys::CUmodule, DeviceError> {
    use sys::CUjit_option_enum as JitOption;
    let named = std::env::var_os(KERNELS_VARIABLE).filter(|file| !file.is_empty());
    let image = kernels(named.as_ref().map(Path::new))?;
    let mut module = std::ptr::null_mut();
    let mut log = vec![0u8; 8192];
    let mut options = [JitOption::CU_JIT_ERROR_LOG_BUFFER, JitOption::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), log.len() as *mut c_void];
    // SAFETY: the image is text that ends in a zero; the log has the length that the second option says. An option's
    // value is passed as a pointer or, if it is a number, in a pointer's place.
    let result = unsafe {
        let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
        sys::cuModuleLoadDataEx(&mut module, image.as_ptr().cast(), 2, options, values)
    };
    if result == CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION {
        let mut found = 0;
        // SAFETY: writes one number.
        let _ = unsafe { sys::cuDriverGetVersion(&mut found) };
        return Err(DeviceError::TooOldDriver { found, needed: NEEDED_DRIVER });
    }
    let log = String::from_utf8_lossy(&log);
    let result = room_for("the kernels", name, result)?;
    check(result, format_args!("loading the kernels {}", log.trim_end_matches('\0').trim()))?;
    Ok(module)
}

fn name(device: sys::CUdevice) -> Result<String, DeviceError> {
    let mut name = [0u8; 256];
    // SAFETY: writes at most as many bytes as it is told, the last one zero.
    unsafe { check(sys::cuDeviceGetName(name.as_mut_ptr().cast(), 256, device), "cuDeviceGetName")? };
    Ok(CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned())
}

fn attribute(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<i32, DeviceError> {
    let mut value = 0;
    // SAFETY: writes one number to where it is told.
    unsafe { check(sys::cuDeviceGetAttribute(&mut value, attribute, device), "cuDeviceGetAttribute")? };
    Ok(value)
}

fn check(result: CUresult, call: impl std::fmt::Display) -> Result<(), DeviceError> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: points at a static text of the driver, or leaves the pointer null.
    let text = unsafe {
        let _ = sys::cuGetErrorString(result, &mut text);
        if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy() }
    };
    let (call, reason) = (call.to_string(), format!("{text} ({result:?})"));
    Err(if is_lost(result) { DeviceError::Lost { call, reason } } else { DeviceError::Driver { call, reason } })
}

/// Whether every later call of this process returns this error too.
fn is_lost(result: CUresult) -> bool {
    use CUresult::*;
    matches!(
        result,
        CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUDA_ERROR_EXTERNAL_DEVICE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_come_from_the_program_or_from_a_file_that_is_named() {
        let own = kernels(None).expect("the program's own");
        assert!(own.starts_with(b"//") && own.ends_with(&[0]));
        let folder = std::env::temp_dir().join(format!("distill-kernels-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for (name, bytes) in [("packed", KERNELS), ("plain", &own[..own.len() - 1])] {
            let file = folder.join(name);
            std::fs::write(&file, bytes).expect("a file");
            assert!(kernels(Some(&file)).expect("reads") == own, "{name}");
        }
        let error = kernels(Some(&folder.join("none"))).expect_err("no such file").to_string();
        assert!(error.contains("DISTILL_CUDA_KERNELS=") && error.contains("none"), "{error}");
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn full_memory_at_the_start_says_so() {
        let full = room_for("the kernels", "a GPU", CUresult::CUDA_ERROR_OUT_OF_MEMORY).expect_err("full").to_string();
        assert!(full.starts_with("a GPU has no memory left for the kernels; others use it (nvidia-smi"), "{full}");
        let other = CUresult::CUDA_ERROR_INVALID_VALUE;
        assert_eq!(room_for("the kernels", "a GPU", other).expect("passed on"), other);
    }

    #[test]
    fn what_ends_all_work_is_told_from_what_does_not() {
        assert!(is_lost(CUresult::CUDA_ERROR_MISALIGNED_ADDRESS) && is_lost(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert!(!is_lost(CUresult::CUDA_ERROR_INVALID_VALUE) && !is_lost(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
    }
}
