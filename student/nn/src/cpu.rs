//! The engine on the CPU, in `f32`.
//!
//! A batch is cut into chunks of whole texts; a chunk goes through the whole program on one thread, and the gradients of
//! the weights are then summed over chunks in their order, cut by weight. How a batch is cut depends on the batch alone,
//! so results do not depend on the thread count. Buffers are kept from call to call.

pub(crate) mod adamw;
mod chunk;
pub(crate) mod linear;
mod norm;
mod op;
pub(crate) mod product;
mod session;
mod shares;
pub(crate) mod simd;
mod weights;

#[cfg(test)]
pub(crate) use op::CpuHabits;
pub(crate) use session::CpuSession;
