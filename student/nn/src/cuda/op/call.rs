//! Builds a kernel launch: declares its operands, and adds them as arguments one after another.

use crate::Error;
use crate::cuda::device::Device;
use crate::cuda::emulated::Extent;
use crate::cuda::error::DeviceError;
use crate::cuda::operand::{Matrix, Number, Ptr, Vector, Words};
use crate::cuda::work::{Arguments, Launch};
use crate::random::DropoutSite;

/// A kernel's names for activations in `f32` and in `bf16`.
macro_rules! typed {
    ($name:literal) => {
        [concat!($name, "_f32"), concat!($name, "_bf16")]
    };
    (concat_name $name:literal, $suffix:literal) => {
        [concat!($name, $suffix, "_f32"), concat!($name, $suffix, "_bf16")]
    };
}

/// The names of a kernel for rows that are whole vectors, by how many vectors of 16 bytes in `bf16` a lane takes.
macro_rules! by_vectors {
    ($name:literal) => {
        [
            typed!(concat_name $name, "_1"),
            typed!(concat_name $name, "_2"),
            typed!(concat_name $name, "_3"),
            typed!(concat_name $name, "_4"),
        ]
    };
}

/// Declares a kernel's operands and its launch. `over x as [rows, width]` takes the sizes, and with the first one the
/// kernel's type, from that operand's shape; a field is `name: type = kind[shape that it must have]`, in the order of the
/// kernel's parameters, with a method of [`Call`] as its kind; sizes come last, then what chooses the grid.
macro_rules! operation {
    ($(#[$doc:meta])* $name:ident($kernel:expr) over $of:ident as [$($length:tt),*] $(, $other:ident as [$($more:tt),*])* {
        $($(#[$note:meta])* $field:ident: $type:ty = $kind:ident[$($side:expr),*],)*
    } sizes($($size:expr),*) $launch:ident($($argument:expr),*)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name {
            $(
                #[doc = concat!("`[", stringify!($($side),*), "]`")]
                $(#[$note])*
                pub(crate) $field: $type,
            )*
        }

        impl $name {
            pub(crate) fn launch(self, device: &crate::cuda::device::Device) -> Result<(), crate::Error> {
                let $of = self.$of;
                let [$($length),*] = $of.shape();
                $(let [$($more),*] = self.$other.shape();)*
                crate::cuda::op::call::Call::new(device, $of.number(), $kernel)
                    $(.$kind(stringify!($field), self.$field, [$($side),*]))*
                    .sizes([$($size),*])
                    .$launch($($argument),*)
            }
        }
    };
}

/// Elements that a thread takes at a time where rows are whole vectors, of either type.
pub(super) const EIGHT: usize = 8;

/// What a kernel drops: nothing without a site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    pub(crate) site: Option<DropoutSite>,
    /// Number within the optimiser step of row 0: of the batch's first token, or for `DropoutRows` of its first
    /// row of text, where rows are texts.
    pub(crate) first: u64,
}

impl Matrix {
    pub(super) fn number(self) -> Number {
        self.number
    }
}

impl Vector {
    pub(super) fn shape(self) -> [usize; 1] {
        [self.len]
    }

    pub(super) fn number(self) -> Number {
        Number::F32
    }
}

impl Words {
    pub(super) fn shape(self) -> [usize; 1] {
        [self.len]
    }
}

/// A launch in the making: arguments are added in the kernel's order, operands with the shape that they must have.
pub(super) struct Call<'a> {
    device: &'a Device,
    pub(super) kernel: &'static str,
    /// What activations are made of.
    pub(super) number: Number,
    arguments: Arguments,
    /// The first operand that did not fit.
    refusal: Option<DeviceError>,
    /// Whether all activations' rows stand at multiples of 16 bytes.
    pub(super) aligned: bool,
    /// Whether all operands but words start at multiples of 16 bytes.
    aligned_starts: bool,
    /// Whether there is nothing to do.
    idle: bool,
}

impl<'a> Call<'a> {
    /// Of a kernel for `f32` and one for `bf16`.
    pub(super) fn new(device: &'a Device, number: Number, kernels: [&'static str; 2]) -> Self {
        let (arguments, refusal) = (Arguments::new(), None);
        let (aligned, aligned_starts) = (true, true);
        let mut call = Self { device, kernel: "", number, arguments, refusal, aligned, aligned_starts, idle: false };
        call.kernel = call.of_type(kernels);
        call
    }

    pub(super) fn of_type(&self, [f32, bf16]: [&'static str; 2]) -> &'static str {
        if self.number == Number::F32 { f32 } else { bf16 }
    }

    /// Activations, rows without gaps.
    pub(super) fn activations(self, name: &str, operand: Matrix, shape: [usize; 2]) -> Self {
        self.rows(name, operand, shape, shape[1])
    }

    /// Activations whose rows may have gaps; the stride is an argument of its own.
    pub(super) fn strided(self, name: &str, operand: Matrix, shape: [usize; 2]) -> Self {
        self.rows(name, operand, shape, operand.stride.max(shape[1])).sizes([operand.stride])
    }

    fn rows(mut self, name: &str, operand: Matrix, shape: [usize; 2], stride: usize) -> Self {
        let element = self.number.name();
        self.aligned &= operand.at.0.is_multiple_of(16) && operand.stride.is_multiple_of(self.lanes());
        self.operand(name, Some(operand.into()), element, shape, stride)
    }

    /// `f32`, rows without gaps; there may be none where the kernel allows it.
    pub(super) fn floats(self, name: &str, operand: impl Into<Option<Matrix>>, shape: [usize; 2]) -> Self {
        self.operand(name, operand.into().map(Extent::from), "f32", shape, shape[1])
    }

    /// `bf16`, as above.
    pub(super) fn halves(self, name: &str, operand: Option<Matrix>, shape: [usize; 2]) -> Self {
        self.operand(name, operand.map(Extent::from), "bf16", shape, shape[1])
    }

    pub(super) fn vector(self, name: &str, operand: Vector, [len]: [usize; 1]) -> Self {
        self.operand(name, Some(operand.into()), "f32", [1, len], len)
    }

    pub(super) fn words(self, name: &str, operand: impl Into<Option<Words>>, [len]: [usize; 1]) -> Self {
        self.operand(name, operand.into().map(Extent::from), "u32", [1, len], len)
    }

    /// Adds an address, null without an operand. The emulated device looks at what is there.
    fn operand(
        mut self,
        name: &str,
        found: Option<Extent>,
        element: &'static str,
        [rows, width]: [usize; 2],
        stride: usize,
    ) -> Self {
        let at = found.map_or(Ptr::NULL, |found| found.at);
        self.aligned_starts &= element == "u32" || at.0.is_multiple_of(16);
        if let (Some(found), None) = (found, &self.refusal) {
            let expected = Extent { at, element, rows, width, stride };
            self.refusal = self.device.check(self.kernel, name, found, expected).err();
        }
        self.push(at.0)
    }

    /// A mask's five scalars; threshold 0 drops nothing.
    pub(super) fn mask(self, _name: &str, mask: Mask, _shape: [usize; 0]) -> Self {
        let (key, threshold, scale) = mask.site.map_or(([0, 0], 0, 1.0), DropoutSite::scalars);
        let words = [key[0], key[1], threshold, scale.to_bits()];
        words.into_iter().fold(self, |call, word| call.push(u64::from(word))).push(mask.first)
    }

    /// A mask without which there is nothing to do.
    pub(super) fn mask_alone(self, name: &str, mask: Mask, shape: [usize; 0]) -> Self {
        Self { idle: mask.site.is_none(), ..self.mask(name, mask, shape) }
    }

    pub(super) fn scalar(self, _name: &str, value: f32, _shape: [usize; 0]) -> Self {
        self.push(u64::from(value.to_bits()))
    }

    pub(super) fn flag(self, _name: &str, value: bool, _shape: [usize; 0]) -> Self {
        self.push(u64::from(value))
    }

    pub(super) fn sizes<const N: usize>(self, sizes: [usize; N]) -> Self {
        sizes.into_iter().fold(self, |call, size| call.push(size as u64))
    }

    /// Adds 64 bits, of which a narrower parameter is the lower ones.
    fn push(self, bits: u64) -> Self {
        Self { arguments: self.arguments.push(bits), ..self }
    }

    /// Whether all that stands in rows of this width is whole vectors of [`EIGHT`] elements, aligned.
    pub(super) fn whole(&self, width: usize) -> bool {
        self.aligned && self.aligned_starts && width > 0 && width.is_multiple_of(EIGHT)
    }

    /// Elements of 16 bytes of activations.
    pub(super) fn lanes(&self) -> usize {
        16 / self.number.bytes()
    }

    /// A thread a vector of a matrix.
    pub(super) fn launch_matrix(&mut self, rows: usize, width: usize) -> Result<(), Error> {
        let vectors = rows * width.div_ceil(self.lanes());
        self.launch([vectors.div_ceil(256), 1, 1], 256, 0)
    }

    /// A warp a row that keeps so much in shared memory, in each of `layers` of the grid. Blocks stay within what they
    /// may have without asking, wherever that leaves room for more than one warp: far from all GPUs have more than 99
    /// KiB for a block that asks.
    pub(super) fn launch_row_warps(&mut self, rows: usize, layers: usize, row_bytes: usize) -> Result<(), Error> {
        let warps = ((48 << 10) / row_bytes.max(1)).clamp(1, 4);
        self.launch([rows.div_ceil(warps), layers, 1], 32 * warps, warps * row_bytes)
    }

    /// Launches unless there is nothing to do. A grid without blocks is an error to CUDA.
    pub(super) fn launch(&mut self, grid: [usize; 3], threads: usize, shared_bytes: usize) -> Result<(), Error> {
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal.into());
        }
        if self.idle || grid.contains(&0) {
            return Ok(());
        }
        let (grid, block) = (grid.map(|blocks| blocks as u32), [threads as u32, 1, 1]);
        let launch = Launch { kernel: self.kernel, grid, block, shared_bytes: shared_bytes as u32 };
        self.device.launch(launch, &self.arguments)
    }
}
