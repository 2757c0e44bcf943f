//! One engine for models on the CPU and on a GPU.

use std::collections::VecDeque;

use crate::cuda::{CudaEncoder, Device, Precision};
use crate::{Capture, Encoder, EncoderConfig, EncoderOutput, Error, Mode, PackedInput, Parameters};

/// Where a model computes, and in which number formats.
#[derive(Clone, Debug, Default)]
pub enum Compute {
    /// On the CPU, in `f32`.
    #[default]
    Cpu,
    /// On a GPU.
    Cuda {
        /// Which one.
        device: Device,
        /// In which number formats.
        precision: Precision,
    },
}

impl Compute {
    /// `cpu` or `cuda`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda { .. } => "cuda",
        }
    }

    /// The number formats.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Cpu => Precision::F32,
            Self::Cuda { precision, .. } => *precision,
        }
    }
}

/// An encoder's engine, wherever it computes.
pub enum Engine {
    /// Reads the weights from the host at each pass.
    Cpu {
        /// The engine.
        encoder: Box<Encoder>,
        /// Logits of submitted passes.
        logits: VecDeque<Vec<f32>>,
    },
    /// Has the weights on its device.
    Cuda(Box<CudaEncoder>),
}

impl Engine {
    /// An engine for encoders of this configuration, with these weights.
    pub fn new(compute: &Compute, config: &EncoderConfig, parameters: &Parameters) -> Result<Self, Error> {
        Ok(match compute {
            Compute::Cpu => Self::Cpu { encoder: Box::new(Encoder::new(config)?), logits: VecDeque::new() },
            Compute::Cuda { device, precision } => {
                let mut encoder = CudaEncoder::new(device, config, *precision)?;
                encoder.upload(parameters)?;
                Self::Cuda(Box::new(encoder))
            }
        })
    }

    /// Runs the encoder and its head and returns what they say. `parameters` are read on the CPU alone.
    pub fn forward(
        &mut self,
        parameters: &Parameters,
        input: PackedInput<'_>,
        capture: Capture,
        mode: Mode<'_>,
    ) -> Result<EncoderOutput, Error> {
        match self {
            Self::Cpu { encoder, .. } => encoder.forward(parameters, input, capture, mode),
            Self::Cuda(encoder) => {
                encoder.forward(input, capture, mode)?;
                encoder.output()
            }
        }
    }
    /// Runs a pass in evaluation mode whose logits [`collect`](Self::collect) will give. A GPU is only asked to.
    pub fn submit(&mut self, parameters: &Parameters, input: PackedInput<'_>) -> Result<(), Error> {
        match self {
            Self::Cpu { encoder, logits } => {
                logits.push_back(encoder.forward(parameters, input, Capture::LOGITS, Mode::Eval)?.logits);
                Ok(())
            }
            Self::Cuda(encoder) => encoder.submit(input),
        }
    }

    /// The logits of the oldest pass submitted, `[B, num_labels]`, once more than `behind` of them are to be collected.
    pub fn collect(&mut self, behind: usize) -> Result<Option<Vec<f32>>, Error> {
        match self {
            Self::Cpu { logits, .. } => Ok(if logits.len() > behind { logits.pop_front() } else { None }),
            Self::Cuda(encoder) => encoder.collect(behind),
        }
    }
}
