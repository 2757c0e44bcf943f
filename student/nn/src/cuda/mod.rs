//! The GPU engine: the same mathematics and the same dropout masks as the CPU engine.
//!
//! - [`Device`] is a GPU through its driver or, in tests, an emulation that runs the same kernels on the CPU.
//! - `op` has the kernels and their launchers; [`verify`] checks them on either device.
//!
//! The modules, from bottom to top: `operand` and `work` define operands, launches and products; `driver` with `blas`
//! (whose library `libraries` finds and `cublaslt` opens) and `emulated` execute them; `device` and `transfer` choose
//! between the two; then the launchers in `op`, `weights`, `batch` and `optimizer`; then `run`, the operations of a
//! pass (`op/*/run.rs`), `walk` and the session.

mod batch;
mod blas;
mod cublaslt;
mod device;
mod driver;
mod emulated;
#[cfg(test)]
pub(crate) mod emulation;
mod error;
mod libraries;
mod meter;
mod op;
mod operand;
mod optimizer;
mod products;
mod put_off;
mod run;
mod session;
mod timing;
mod transfer;
mod tuning;
mod verify;
mod walk;
mod weights;
mod work;

pub use device::Device;
pub use error::DeviceError;
pub use meter::LaunchTime;
pub(crate) use op::top_k::launch::selects_top;
pub use operand::Precision;
pub(crate) use products::Products;
pub(crate) use session::CudaSession;
pub use tuning::ProductChoices;
pub use verify::bench::KernelCheck;
pub use verify::{Part, verify};
#[cfg(test)]
pub(crate) use walk::CudaHabits;
