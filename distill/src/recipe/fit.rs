//! Training settings, shared by `finetune` and `train`.

use std::fmt;

use nn::Compute;
use serde::{Deserialize, Serialize};

use super::checks::{ABOVE_ZERO, Check, FRACTION, ZERO_OR_MORE};
use crate::device;

/// Training settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FitRecipe {
    pub(crate) epochs: usize,
    pub(crate) batch_rows: usize,
    /// Maximum tokens per forward pass; `None` for the device's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch_tokens: Option<usize>,
    pub(crate) learning_rate: f64,
    pub(crate) weight_decay: f64,
    pub(crate) warmup_ratio: f64,
    pub(crate) max_gradient_norm: f64,
    pub(crate) keep: Keep,
    /// Epochs between evaluations.
    pub(crate) evaluate_every: usize,
    pub(crate) seed: u64,
    /// Whether a GPU's matrix products are chosen by timing.
    pub(crate) autotune: bool,
}

impl Default for FitRecipe {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FitRecipe {
    /// The defaults of `train` and of a recipe's `[train]`; `finetune` has its own epochs and learning rate.
    pub(crate) const DEFAULT: Self = Self {
        epochs: 5,
        batch_rows: 32,
        batch_tokens: None,
        learning_rate: 1e-4,
        weight_decay: 0.01,
        warmup_ratio: 0.06,
        max_gradient_norm: 1.0,
        keep: Keep::Best,
        evaluate_every: 1,
        seed: 42,
        autotune: false,
    };

    /// The same with all defaults resolved for this device; an error for what it cannot do.
    pub(crate) fn on(&self, compute: &Compute) -> anyhow::Result<Self> {
        device::check_autotune(self.autotune, compute)?;
        Ok(Self { batch_tokens: Some(device::batch_tokens(self.batch_tokens, compute)), ..self.clone() })
    }

    /// Most tokens in one forward pass.
    pub(crate) fn batch_tokens(&self) -> usize {
        self.batch_tokens.unwrap_or(device::CPU_BATCH_TOKENS)
    }

    /// The allowed values.
    pub(super) fn checks(&self) -> Vec<Check> {
        vec![
            Check::Size("train.epochs", Some(self.epochs)),
            Check::Size("train.batch_rows", Some(self.batch_rows)),
            Check::Size("train.batch_tokens", self.batch_tokens),
            Check::Size("train.evaluate_every", Some(self.evaluate_every)),
            Check::Number("train.learning_rate", self.learning_rate, ABOVE_ZERO),
            Check::Number("train.max_gradient_norm", self.max_gradient_norm, ABOVE_ZERO),
            Check::Number("train.weight_decay", self.weight_decay, ZERO_OR_MORE),
            Check::Number("train.warmup_ratio", self.warmup_ratio, FRACTION),
        ]
    }
}

/// Which state of the model a training keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Keep {
    /// The one with the best accuracy on the validation rows; of equals the one with the lower loss there, then the later.
    Best,
    /// The one at the end of the last epoch.
    Last,
}

impl Keep {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Best, Self::Last];

    /// The word for it on the command line and in a recipe.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Last => "last",
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
