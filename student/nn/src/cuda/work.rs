//! Work for a device: a kernel launch with its arguments, or a matrix product.

use super::operand::{Matrix, Ptr};

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

    /// Adds a slot, of which a narrower argument is the first bytes (little endian).
    pub(crate) fn push(mut self, slot: u64) -> Self {
        // A kernel with more arguments is a mistake in this crate.
        assert!(self.count < MAX_ARGUMENTS, "too many arguments for a kernel");
        self.slots[self.count] = slot;
        self.count += 1;
        self
    }

    /// What a launch takes: a pointer to each slot.
    pub(crate) fn pointers(&self) -> [*mut std::ffi::c_void; MAX_ARGUMENTS] {
        std::array::from_fn(|index| std::ptr::from_ref(&self.slots[index]).cast_mut().cast())
    }
}

/// `c [m, n] = a [m, k] b [k, n] (+ c) (+ bias in every row)`, all row major. Sums are `f32`.
///
/// A transposed operand is stored as `[k, m]` or `[n, k]`, and that is its matrix' shape. `a` and `b` are made of the same
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Matmul {
    pub(crate) a: Matrix,
    pub(crate) a_transposed: bool,
    pub(crate) b: Matrix,
    pub(crate) b_transposed: bool,
    pub(crate) c: Matrix,
    /// Whether the product is added to what stands in `c`.
    pub(crate) accumulate: bool,
    /// `[n]`, made of what `c` is.
    pub(crate) bias: Option<Ptr>,
    /// Whether operands in `f32` are read to ten bits of the mantissa, on tensor cores.
    pub(crate) tf32: bool,
}

impl std::fmt::Display for Matmul {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let operand = |matrix: Matrix, transposed| {
            let Matrix { number, rows, width, stride, .. } = matrix;
            let transposed = if transposed { " transposed" } else { "" };
            format!("{} [{rows}, {width}]{transposed}, rows {stride} apart", number.name())
        };
        let (a, b) = (operand(self.a, self.a_transposed), operand(self.b, self.b_transposed));
        write!(f, "({a}) x ({b}) = ({})", operand(self.c, false))
    }
}
