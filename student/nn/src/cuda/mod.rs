//! The engine on a GPU: the same mathematics and the same dropout masks as on the CPU.
//!
//! - [`Device`] is a GPU through its driver, or in tests an emulation that runs the very same kernels on the CPU.
//! - `kernels` has one function a kernel, `matmul` the matrix products; [`verify`] checks them on whatever device there is.

mod blas;
mod device;
mod driver;
mod emulated;
#[cfg(test)]
pub(crate) mod emulation;
mod encoder;
mod error;
pub(crate) mod kernels;
pub(crate) mod matmul;
mod products;
mod verify;

pub(crate) use products::Products;

pub use device::{Device, Precision};
pub use encoder::{CudaEncoder, SoftHardLoss, StepRates, StepReport};
pub use error::DeviceError;
pub use verify::{KernelCheck, verify};
