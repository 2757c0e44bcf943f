//! A model: its configuration, and the session that holds its weights and computes.

use std::ops::{Deref, DerefMut};

use crate::cpu::CpuSession;
use crate::cuda::CudaSession;
use crate::hf::HfConfig;
use crate::session::Session;
use crate::{Compute, Error, Parameters};

/// A model, frozen or in training, on the CPU or on a GPU. It dereferences to its [`Session`], which has all
/// operations.
pub struct Model {
    config: HfConfig,
    session: Box<dyn Session>,
}

impl Model {
    /// A model of this configuration with these weights, on the CPU.
    pub fn new(config: HfConfig, parameters: Parameters) -> Result<Self, Error> {
        Self::on(&Compute::Cpu, config, parameters)
    }

    /// A model of this configuration with these weights, on this device.
    pub fn on(compute: &Compute, config: HfConfig, parameters: Parameters) -> Result<Self, Error> {
        let session: Box<dyn Session> = match compute {
            Compute::Cpu => Box::new(CpuSession::new(&config.encoder, parameters)?),
            Compute::Cuda { device, precision } => {
                Box::new(CudaSession::new(device, &config.encoder, *precision, parameters)?)
            }
        };
        Ok(Self { config, session })
    }

    /// The configuration, including class names.
    pub fn config(&self) -> &HfConfig {
        &self.config
    }
}

impl Deref for Model {
    type Target = dyn Session;

    fn deref(&self) -> &Self::Target {
        &*self.session
    }
}

impl DerefMut for Model {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.session
    }
}
