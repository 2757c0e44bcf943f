//! What ships: a small encoder that is trained, and the ways in which it starts.
//!
//! [`Student`] runs forward and backward; [`start`] makes its first weights from chosen layers of a teacher or at
//! random; [`prune`] cuts its vocabulary.

mod narrow;
pub mod prune;
pub mod start;

use nn::cuda::CudaEncoder;
use nn::hf::HfConfig;
use nn::{Capture, Compute, EncoderOutput, Engine, Error, Gradients, Mode, PackedInput, Parameters};

/// A model in training: weights, engine, and nothing of losses or optimisers.
pub struct Student {
    config: HfConfig,
    parameters: Parameters,
    engine: Engine,
}

impl Student {
    /// A student of this configuration with these weights, on the CPU.
    pub fn new(config: HfConfig, parameters: Parameters) -> Result<Self, Error> {
        Self::on(&Compute::Cpu, config, parameters)
    }

    /// The same, wherever it is to compute.
    pub fn on(compute: &Compute, config: HfConfig, parameters: Parameters) -> Result<Self, Error> {
        let engine = Engine::new(compute, &config.encoder, &parameters)?;
        Ok(Self { config, parameters, engine })
    }

    /// What the model is, class names included.
    pub fn config(&self) -> &HfConfig {
        &self.config
    }

    /// Its weights; of one on a GPU those of the last [`read_back`](Self::read_back).
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Its weights, for the optimiser.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Reads the weights that a GPU has trained; on the CPU they are here already.
    pub fn read_back(&mut self) -> Result<(), Error> {
        match &self.engine {
            Engine::Cpu { .. } => Ok(()),
            Engine::Cuda(encoder) => encoder.download(&mut self.parameters),
        }
    }

    /// Replaces all weights, wherever they are.
    ///
    /// # Shapes
    /// - `flat`: as in [`Parameters::flat`]
    pub fn set_parameters(&mut self, flat: &[f32]) -> Result<(), Error> {
        self.parameters.flat_mut().copy_from_slice(flat);
        match &mut self.engine {
            Engine::Cpu { .. } => Ok(()),
            Engine::Cuda(encoder) => encoder.upload(&self.parameters),
        }
    }

    /// The engine that trains it, if it is on a GPU.
    pub fn cuda(&mut self) -> Option<&mut CudaEncoder> {
        match &mut self.engine {
            Engine::Cpu { .. } => None,
            Engine::Cuda(encoder) => Some(encoder),
        }
    }

    /// Runs it over a packed batch.
    pub fn forward(
        &mut self,
        input: PackedInput<'_>,
        capture: Capture,
        mode: Mode<'_>,
    ) -> Result<EncoderOutput, Error> {
        self.engine.forward(&self.parameters, input, capture, mode)
    }

    /// Adds the gradient of a loss to `gradients`, given its gradient in the logits of the last forward pass. For a
    /// student on the CPU; one on a GPU keeps its gradients there, see [`cuda`](Self::cuda).
    ///
    /// # Shapes
    /// - `d_logits`: `[B, num_labels]`
    pub fn backward(&mut self, d_logits: &[f32], gradients: &mut Gradients) -> Result<(), Error> {
        match &mut self.engine {
            Engine::Cpu { encoder, .. } => encoder.backward(&self.parameters, d_logits, gradients),
            Engine::Cuda(_) => Err(Error::NoForward),
        }
    }
}
