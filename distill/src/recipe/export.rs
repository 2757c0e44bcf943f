//! What ships.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What ships.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExportRecipe {
    pub(crate) dtype: ExportDtype,
}

impl Default for ExportRecipe {
    fn default() -> Self {
        Self { dtype: ExportDtype::F32 }
    }
}

/// The number format of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExportDtype {
    /// 4 bytes a weight: the same logits as the run.
    F32,
    /// 2 bytes a weight, 11 bits of precision.
    F16,
    /// 2 bytes a weight, 8 bits of precision, the range of f32.
    Bf16,
}

impl ExportDtype {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// The word for it on the command line, in a recipe and in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for ExportDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
