//! The CPU engine, in `f32`.
//!
//! A batch is split into chunks of whole texts. A chunk runs through the whole program on one thread; afterwards the
//! gradients of each weight are summed over the chunks in order, in parallel over weights. The split depends on the
//! batch alone, so results do not depend on the number of threads. Buffers are reused from call to call.

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
