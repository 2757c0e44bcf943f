//! The engine on a GPU: the same mathematics and the same dropout masks as on the CPU.
//!
//! - [`Device`] is a GPU through its driver, or in tests an emulation that runs the very same kernels on the CPU.
//! - `op` has the kernels and what launches them; [`verify`] checks them on whatever device there is.
//!
//! From below: `operand` and `work` say what a device has and does, `driver` with `blas` (whose library `cublaslt` opens from
//! where `libraries` finds it), and `emulated`, do it; `device` and `transfer` are the choice between them; on these stand
//! `op`'s launchers, `weights`, `batch` and `optimizer`; then `run`, a pass' operations (`op/*/run.rs`), `walk` and the
//! session.

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
mod verify;
mod walk;
mod weights;
mod work;

pub use device::Device;
pub use error::DeviceError;
pub use meter::LaunchTime;
pub use operand::Precision;
pub(crate) use products::Products;
pub(crate) use session::CudaSession;
pub use verify::bench::KernelCheck;
pub use verify::{Part, verify};
#[cfg(test)]
pub(crate) use walk::CudaHabits;
