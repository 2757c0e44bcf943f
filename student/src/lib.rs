//! What ships: a small encoder that is trained, and the ways in which it starts.
//!
//! [`Student`] runs forward and backward; [`start`] makes its first weights from chosen layers of a teacher or at
//! random; [`prune`] cuts its vocabulary.

mod narrow;
pub mod prune;
pub mod start;

use nn::hf::HfConfig;
use nn::{Capture, Encoder, EncoderOutput, Error, Gradients, Mode, PackedInput, Parameters};

/// A model in training: weights, engine, and nothing of losses or optimisers.
pub struct Student {
    config: HfConfig,
    parameters: Parameters,
    encoder: Encoder,
}

impl Student {
    /// A student of this configuration with these weights.
    pub fn new(config: HfConfig, parameters: Parameters) -> Result<Self, Error> {
        let encoder = Encoder::new(&config.encoder)?;
        Ok(Self { config, parameters, encoder })
    }

    /// What the model is, class names included.
    pub fn config(&self) -> &HfConfig {
        &self.config
    }

    /// Its weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Its weights, for the optimiser.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Runs it over a packed batch.
    pub fn forward(
        &mut self,
        input: PackedInput<'_>,
        capture: Capture,
        mode: Mode<'_>,
    ) -> Result<EncoderOutput, Error> {
        self.encoder.forward(&self.parameters, input, capture, mode)
    }

    /// Adds the gradient of a loss to `gradients`, given its gradient in the logits of the last forward pass.
    ///
    /// # Shapes
    /// - `d_logits`: `[B, num_labels]`
    pub fn backward(&mut self, d_logits: &[f32], gradients: &mut Gradients) -> Result<(), Error> {
        self.encoder.backward(&self.parameters, d_logits, gradients)
    }
}
