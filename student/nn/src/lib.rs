//! Transformer encoders for teachers and students: configuration, parameters in one flat buffer, and engines that run
//! forward and backward over packed batches.
//!
//! - [`EncoderConfig`] has the architecture of an encoder; [`hf`] reads and writes it as Hugging Face's `config.json`.
//! - [`Family`] is the registry of model families; each describes its forward pass as a list of fused operations.
//! - [`Layout`] and [`Parameters`] hold the weights; [`names`] has their Hugging Face names.
//! - [`Model`] runs this list on the CPU or on a GPU: a forward [`Pass`], whose values can be read at each [`Tap`];
//!   backward from gradients given at taps; and optimiser steps.
//! - [`Flops`] counts the floating-point operations of a pass; [`Ceiling`] measures bare matrix products as an upper
//!   limit.
//! - [`twin`] runs the same list in candle operators, as the reference for the CPU engine's tests.
//!
//! This crate reads no files and knows no losses, except for a softmax cross-entropy kernel on a GPU.

mod ceiling;
mod config;
mod cpu;
pub mod cuda;
mod error;
mod family;
mod flops;
pub mod hf;
pub mod matrix;
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
pub use session::{Clip, Compute, Session, SoftHardLoss, StepRates, StepReport, TopK, TopLogits};
pub(crate) use slot::Span;
pub use slot::{FeedForwardSlot, LayerSlot, Slot};
pub use value::Tap;
