//! The parts that teachers and students are built from: the description of an encoder, its parameters in one flat
//! buffer, and an engine that runs it forward and backward over packed batches.
//!
//! - [`EncoderConfig`] says what an encoder is; [`hf`] reads and writes it as Hugging Face's `config.json`.
//! - [`Layout`] and [`Parameters`] hold the weights, [`names`] their Hugging Face names.
//! - [`Encoder`] is the engine: forward and backward written by hand; [`AdamW`] the optimiser over its buffers.
//! - [`Flops`] counts a pass's operations, and [`Ceiling`] runs bare products to hold its speed against.
//! - [`twin`] states the same model in candle operators; every gradient of the engine is tested against it.
//!
//! This crate reads no files and knows no losses: [`Encoder::backward`] starts at the gradient of the outputs.

mod activation;
mod adamw;
mod attention;
mod ceiling;
mod config;
pub mod cuda;
mod encoder;
mod engine;
mod error;
mod flops;
pub mod hf;
mod layer_norm;
mod linear;
pub mod names;
mod parameters;
mod product;
mod random;
mod simd;
pub mod twin;

pub use activation::Activation;
pub use adamw::AdamW;
pub use ceiling::Ceiling;
pub use config::{EncoderConfig, Family, Head};
pub use encoder::{Capture, Encoder, EncoderOutput, Mode, PackedInput};
pub use engine::{Compute, Engine};
pub use error::Error;
pub use flops::Flops;
pub use names::{LayerSlot, Slot};
pub use parameters::{Entry, Gradients, Layout, Parameters};
pub use random::{DropoutRng, Normal};
