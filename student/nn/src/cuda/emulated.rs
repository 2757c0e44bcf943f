//! The emulated GPU: the kernels' sources compiled as C++ for the host, in a library with one function.
//!
//! For tests on machines without a GPU. Device memory is host memory, and matrix products are those of the CPU engine.
//! Unlike a GPU it checks operands: they must have the form that the kernel expects, and lie in allocated memory.
#![expect(unsafe_code, reason = "loads a library and copies through plain addresses")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::DeviceError;
use super::operand::{Matrix, Ptr, Vector, Words};
use super::work::{Arguments, Launch, Matmul};
use crate::cpu::product::{Into, View, product};

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
    /// Bytes of each allocation, by its address.
    live: Mutex<BTreeMap<u64, usize>>,
}

/// Shared memory of a block: `MOST_SHARED` of `cuda/emulation/library.cpp`, which no GPU that the kernels run on is below.
pub(super) const SHARED_BYTES: usize = 99 << 10;

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
            Ok(Self { _library: library, launch, live: Mutex::default() })
        }
    }

    pub(super) fn allocate(&self, bytes: usize) -> Ptr {
        let layout = layout(bytes);
        // SAFETY: the layout's size is not zero.
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() {
            handle_alloc_error(layout);
        }
        self.live().insert(address as u64, bytes);
        Ptr(address as u64)
    }

    pub(super) fn free(&self, at: Ptr, bytes: usize) {
        self.live().remove(&at.0);
        // SAFETY: came from `allocate` with as many bytes, and is freed once, by its owner.
        unsafe { dealloc(at.0 as *mut u8, layout(bytes)) }
    }

    /// Refuses an operand that is not what is expected at its address, or does not lie inside one allocation.
    pub(super) fn check(&self, kernel: &str, name: &str, found: Extent, expected: Extent) -> Result<(), DeviceError> {
        let refused = |found: String, expected: String| {
            let [kernel, operand] = [kernel, name].map(Box::from);
            Err(DeviceError::Operand { kernel, operand, found: found.into(), expected: expected.into() })
        };
        if found != expected {
            return refused(found.to_string(), expected.to_string());
        }
        let (at, bytes) = (found.at.0, found.bytes() as u64);
        let around = self.live().range(..=at).next_back().map(|(&start, &len)| (at - start, len as u64));
        let found = match around {
            _ if bytes == 0 => return Ok(()),
            Some((offset, len)) if offset + bytes <= len => return Ok(()),
            Some((offset, len)) if offset < len => format!("{bytes} bytes from byte {offset} on of {len} allocated"),
            _ => format!("{bytes} bytes at an address that is not allocated"),
        };
        refused(found, "memory inside one allocation".to_string())
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
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
        // SAFETY: the arguments are what the kernel takes, for which its launcher answers.
        let code = unsafe {
            let (grid, block) = (launch.grid.as_ptr(), launch.block.as_ptr());
            (self.launch)(name.as_ptr(), grid, block, launch.shared_bytes, pointers.as_mut_ptr())
        };
        let reason = match code {
            0 => return Ok(()),
            1 => "no such kernel".to_string(),
            2 => "a fault in the kernel, printed above".to_string(),
            3 => {
                let (call, reason) = (format!("kernel {}", launch.kernel), "the library says so".to_string());
                return Err(DeviceError::Lost { call, reason });
            }
            other => format!("unknown code {other}"),
        };
        Err(DeviceError::Emulation { call: format!("kernel {}", launch.kernel), reason })
    }
}

/// Where an operand stands, and its shape.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Extent {
    pub(crate) at: Ptr,
    /// What it is made of: `f32`, `bf16` or `u32`.
    pub(crate) element: &'static str,
    pub(crate) rows: usize,
    pub(crate) width: usize,
    /// From row to row, in elements.
    pub(crate) stride: usize,
}

impl Extent {
    /// From its first byte to behind its last.
    fn bytes(self) -> usize {
        let elements = if self.rows == 0 { 0 } else { (self.rows - 1) * self.stride + self.width };
        elements * if self.element == "bf16" { 2 } else { 4 }
    }
}

impl From<Matrix> for Extent {
    fn from(Matrix { at, number, rows, width, stride }: Matrix) -> Self {
        Self { at, element: number.name(), rows, width, stride }
    }
}

impl From<Vector> for Extent {
    fn from(Vector { at, len }: Vector) -> Self {
        Self { at, element: "f32", rows: 1, width: len, stride: len }
    }
}

impl From<Words> for Extent {
    fn from(Words { at, len }: Words) -> Self {
        Self { at, element: "u32", rows: 1, width: len, stride: len }
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { element, rows, width, stride, .. } = self;
        write!(f, "{element} [{rows}, {width}]")?;
        if stride == width { Ok(()) } else { write!(f, ", rows {stride} apart") }
    }
}

impl Emulated {
    /// The product by the CPU's engine, with sums in `f32`, rounded once to the output's format. TF32 is not imitated.
    pub(super) fn matmul(&self, matmul: &Matmul) -> Result<(), DeviceError> {
        let Matmul { a, a_transposed, b, b_transposed, c, accumulate, .. } = *matmul;
        let bias = matmul.bias.map(|at| Matrix::new(c.number, at, [1, c.width]));
        let [m, n, k] = [c.rows, c.width, if a_transposed { a.rows } else { a.width }];
        let stored = |rows, columns, transposed| if transposed { [columns, rows] } else { [rows, columns] };
        for (name, found, [rows, width], number) in [
            ("a", a, stored(m, k, a_transposed), a.number),
            ("b", b, stored(k, n, b_transposed), a.number),
            ("c", c, [m, n], c.number),
        ] {
            // Rows may have gaps, and may not reach into the next one.
            let expected = Matrix { rows, width, number, stride: found.stride.max(width), ..found };
            self.check("matmul", name, Extent::from(found), Extent::from(expected))?;
        }
        if let Some(bias) = bias {
            self.check("matmul", "bias", Extent::from(bias), Extent::from(bias))?;
        }
        let mut sums = if accumulate { self.read(c) } else { vec![0.0; m * n] };
        if k > 0 {
            let values = [self.read(a), self.read(b)];
            let view = |index: usize, matrix: Matrix, transposed: bool| {
                let view = View::new(&values[index], matrix.rows, matrix.width, matrix.width);
                if transposed { view.transposed() } else { view }
            };
            let into = if accumulate { Into::Sum } else { Into::Fresh };
            product(view(0, a, a_transposed), view(1, b, b_transposed), 1.0, &mut sums, n, into);
        }
        if let Some(bias) = bias {
            let bias = self.read(bias);
            for row in sums.chunks_exact_mut(n) {
                row.iter_mut().zip(&bias).for_each(|(sum, bias)| *sum += bias);
            }
        }
        for (row, values) in sums.chunks_exact(n).enumerate() {
            self.upload(row_at(c, row), &c.number.encode(values));
        }
        Ok(())
    }

    /// A matrix as dense `f32`.
    fn read(&self, from: Matrix) -> Vec<f32> {
        let mut bytes = vec![0; from.width * from.number.bytes()];
        let mut row = |row| {
            self.download(row_at(from, row), &mut bytes);
            from.number.decode(&bytes)
        };
        (0..from.rows).flat_map(&mut row).collect()
    }
}

fn row_at(matrix: Matrix, row: usize) -> Ptr {
    matrix.at.offset_bytes(row * matrix.stride * matrix.number.bytes())
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), ALIGNMENT).expect("no test asks for more than isize::MAX bytes")
}
