//! The parts that teachers and students are built from: the description of a model, its parameters in one flat buffer,
//! and engines that run it forward and backward over packed batches.
//!
//! - [`EncoderConfig`] says what an encoder is; [`hf`] reads and writes it as Hugging Face's `config.json`.
//! - [`Family`] is the registry of model families; each describes its forward pass as a list of fused operations.
//! - [`Layout`] and [`Parameters`] hold the weights, [`names`] their Hugging Face names.
//! - [`Model`] runs the list on the CPU or on a GPU: forward to a [`Pass`], whose value can be read at each [`Tap`];
//!   backward from the gradients that enter there; and the optimiser's steps.
//! - [`Flops`] counts a pass's operations, and [`Ceiling`] runs bare products to hold its speed against.
//! - [`twin`] runs the same list in candle operators; every gradient of the engines is tested against it.
//!
//! This crate reads no files and knows no losses but a softmax cross-entropy against a mixture of targets on a GPU.

mod ceiling;
mod config;
mod cpu;
pub mod cuda;
mod error;
mod family;
mod flops;
pub mod hf;
mod model;
pub mod names;
mod op;
mod parameters;
mod pass;
mod program;
mod random;
mod session;
mod slot;
pub mod twin;
mod value;

pub use ceiling::Ceiling;
pub use config::{AttentionInput, Blocks, Bottleneck, EncoderConfig, Family, Head, NormKind};
pub use cpu::adamw::AdamW;
pub use error::Error;
pub use flops::Flops;
pub use model::Model;
pub use op::Activation;
pub use parameters::{Entry, Gradients, Layout, Parameters};
pub use pass::{Mode, PackedInput, Pass};
pub use random::{DropoutRng, Normal};
pub use session::{Compute, Session, SoftHardLoss, StepRates, StepReport, TopK, TopLogits};
pub(crate) use slot::Span;
pub use slot::{FeedForwardSlot, LayerSlot, Slot};
pub use value::Tap;
