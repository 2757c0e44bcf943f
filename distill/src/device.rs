//! Resolves `--device` and `--precision` to what this machine has.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;
use nn::Compute;
use nn::cuda::{Device, Precision, ProductChoices};

use crate::ui;

/// The value of `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// A GPU if there is a usable one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA GPU with this number, counted from 0.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => (text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).map(Self::Cuda))
                .ok_or("must be auto, cpu or cuda:N with N from 0".to_owned()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// The value of `--precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrecisionChoice {
    /// bf16 on a GPU, f32 on the CPU.
    Auto,
    /// Everything in f32.
    F32,
    /// f32, with TF32 matrix products (10 bits of mantissa); GPU only.
    Tf32,
    /// bf16, with f32 master weights and accumulation; GPU only.
    Bf16,
}

impl PrecisionChoice {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Auto, Self::F32, Self::Tf32, Self::Bf16];

    /// The word for it on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for PrecisionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Default of `--batch-tokens`: on the CPU what suits its caches, on a GPU enough to keep it busy.
pub(crate) const CPU_BATCH_TOKENS: usize = 4096;
const GPU_BATCH_TOKENS: usize = 16_384;

/// Maximum tokens per forward pass: the requested number, or the device's default.
pub(crate) fn batch_tokens(asked: Option<usize>, compute: &Compute) -> usize {
    asked.unwrap_or(if let Compute::Cpu = compute { CPU_BATCH_TOKENS } else { GPU_BATCH_TOKENS })
}

/// Finds the device; an error if it is missing or cannot compute in this precision.
pub(crate) fn find(choice: DeviceChoice, precision: PrecisionChoice) -> anyhow::Result<Compute> {
    let device = match choice {
        DeviceChoice::Cpu => None,
        DeviceChoice::Cuda(ordinal) => Some(Device::cuda(ordinal).with_context(|| format!("--device {choice}"))?),
        DeviceChoice::Auto => match Device::cuda(0) {
            Ok(device) => Some(device),
            Err(nn::Error::Device(error)) if error.is_absence() => None,
            Err(error) => {
                ui::say(format!("computing on the CPU, since the GPU cannot be used: {error}"));
                None
            }
        },
    };
    let precision = match (precision, &device) {
        (PrecisionChoice::F32, _) | (PrecisionChoice::Auto, None) => Precision::F32,
        (PrecisionChoice::Auto | PrecisionChoice::Bf16, Some(_)) => Precision::Bf16,
        (PrecisionChoice::Tf32, Some(_)) => Precision::Tf32,
        (PrecisionChoice::Bf16 | PrecisionChoice::Tf32, None) => {
            anyhow::bail!(
                "--precision {precision}: the CPU computes in f32 alone; give --precision f32, or a GPU by --device cuda"
            );
        }
    };
    Ok(match device {
        None => Compute::Cpu,
        Some(device) => Compute::Cuda { device, precision },
    })
}

/// An error if products are to be chosen by timing where there is no choice.
pub(crate) fn check_autotune(autotune: bool, compute: &Compute) -> anyhow::Result<()> {
    if autotune && matches!(compute, Compute::Cpu) {
        anyhow::bail!(
            "--autotune (`autotune` in a recipe): the CPU has one way to compute a product; leave it out, or give a GPU by \
             --device cuda"
        );
    }
    Ok(())
}

/// From now on chooses a GPU's products by timing, with these choices to begin with; or takes the library's own.
pub(crate) fn autotune(autotune: bool, compute: &Compute, kept: Option<&ProductChoices>) {
    let Compute::Cuda { device, .. } = compute else { return };
    if !autotune {
        device.stop_tuning_products();
    } else if !device.tune_products(kept) {
        ui::say(
            "--autotune: what was chosen before is for another GPU or another version of cuBLASLt; products are timed again, \
             and may come to other bits",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_back_as_written() {
        for text in ["auto", "cpu", "cuda:0", "cuda:12"] {
            assert_eq!(text.parse::<DeviceChoice>().expect("parses").to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["cuda:", "cuda:-1", "CPU", ""] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
