//! A GPU that is none: the kernels' own sources compiled as C++ for the host, in a library of one function.
//!
//! For tests on machines without a GPU. Device memory is host memory.
#![expect(unsafe_code, reason = "loads a library and copies through plain addresses")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::device::{Arguments, Launch, Ptr};
use super::error::DeviceError;

type LaunchFunction = unsafe extern "C" fn(
    kernel: *const c_char,
    grid: *const c_uint,
    block: *const c_uint,
    shared_bytes: c_uint,
    arguments: *mut *mut c_void,
) -> c_int;

/// Kernels share the library's state, so one runs at a time in the whole process.
static LAUNCHING: Mutex<()> = Mutex::new(());

pub(super) struct Emulated {
    /// Closed after the function's last use.
    _library: libloading::Library,
    launch: LaunchFunction,
}

/// As cuMemAlloc aligns.
const ALIGNMENT: usize = 256;

impl Emulated {
    pub(super) fn open(library: &Path) -> Result<Self, DeviceError> {
        let failed = |source: libloading::Error| DeviceError::Emulation {
            call: format!("opening {}", library.display()),
            reason: source.to_string(),
        };
        // SAFETY: a library made by this repository's script; it has no initialisers, and the one function that is
        // looked up has the signature of `LaunchFunction`.
        unsafe {
            let library = libloading::Library::new(library).map_err(failed)?;
            let launch = *library.get::<LaunchFunction>(b"emulated_launch").map_err(failed)?;
            Ok(Self { _library: library, launch })
        }
    }

    pub(super) fn allocate(&self, bytes: usize) -> Ptr {
        let layout = layout(bytes);
        // SAFETY: the layout's size is not zero.
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() {
            handle_alloc_error(layout);
        }
        Ptr(address as u64)
    }

    pub(super) fn free(&self, at: Ptr, bytes: usize) {
        // SAFETY: came from `allocate` with as many bytes, and is freed once, by its owner.
        unsafe { dealloc(at.0 as *mut u8, layout(bytes)) }
    }

    pub(super) fn upload(&self, to: Ptr, bytes: &[u8]) {
        // SAFETY: the caller answers for the address, as on a real GPU.
        unsafe { std::ptr::copy(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) }
    }

    pub(super) fn download(&self, from: Ptr, bytes: &mut [u8]) {
        // SAFETY: as above.
        unsafe { std::ptr::copy(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) }
    }

    pub(super) fn zero(&self, at: Ptr, bytes: usize) {
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(at.0 as *mut u8, 0, bytes) }
    }

    pub(super) fn launch(&self, launch: Launch, arguments: &Arguments) -> Result<(), DeviceError> {
        let name = CString::new(launch.kernel).unwrap_or_default();
        let mut pointers = arguments.pointers();
        let _one_at_a_time = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the arguments are what the kernel takes, for which `kernels.rs` answers.
        let code = unsafe {
            let (grid, block) = (launch.grid.as_ptr(), launch.block.as_ptr());
            (self.launch)(name.as_ptr(), grid, block, launch.shared_bytes, pointers.as_mut_ptr())
        };
        let reason = match code {
            0 => return Ok(()),
            1 => "no such kernel".to_string(),
            2 => "a fault in the kernel, printed above".to_string(),
            other => format!("unknown code {other}"),
        };
        Err(DeviceError::Emulation { call: format!("kernel {}", launch.kernel), reason })
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), ALIGNMENT).expect("no test asks for more than isize::MAX bytes")
}
