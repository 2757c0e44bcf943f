//! Bias and activation function.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::Row;
use crate::slot::Slot;

/// `activation(x + bias)`
///
/// # Shapes
/// - `x`, output: `[rows, width]`; `bias`: `[width]`
#[derive(Clone, Debug)]
pub(crate) struct Activate {
    /// The bias of the preceding linear map.
    pub(crate) bias: Slot,
    pub(crate) activation: Activation,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x Φ(x), with the error function (Hendrycks and Gimpel, 2016): Hugging Face's `gelu`.
    Gelu,
    /// The tanh approximation of [`Gelu`](Self::Gelu): Hugging Face's `gelu_new`.
    GeluNew,
    /// max(x, 0)
    Relu,
    /// tanh(x)
    Tanh,
}

impl Activation {
    /// Its name in `config.json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluNew => "gelu_new",
            Self::Relu => "relu",
            Self::Tanh => "tanh",
        }
    }
}

impl Activate {
    pub(super) fn state(&self, row: &Row<'_>, x: &Tensor) -> Result<Tensor> {
        let x = x.broadcast_add(row.get(self.bias))?;
        match self.activation {
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluNew => x.gelu(),
            Activation::Relu => x.relu(),
            Activation::Tanh => x.tanh(),
        }
    }
}
