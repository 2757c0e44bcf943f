//! Flags that several commands share, so that each is spelled, explained and checked once.

use super::values::{
    DeviceChoice, Keep, PrecisionChoice, TaskChoice, above_zero, at_least_one, at_least_three, fraction, part,
    probability, zero_or_more,
};
use crate::ui;
use anyhow::Context;
use clap::Args;
use nn::Compute;
use nn::cuda::{Device, Precision};
use std::path::PathBuf;

/// How a data file is read: its columns, its label names, and how much of each text the model sees.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct ColumnArgs {
    /// Column that holds the text [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) text_column: Option<String>,
    /// Column that holds the second text of a pair [default: text_b, where there is one]
    #[arg(long, value_name = "NAME")]
    pub(crate) pair_column: Option<String>,
    /// Column that holds the label [default: label]
    #[arg(long, value_name = "NAME")]
    pub(crate) label_column: Option<String>,
    /// Names of the classes in the model's order, with commas between them
    #[arg(long, value_name = "A,B,..", value_delimiter = ',')]
    pub(crate) label_names: Vec<String>,
    /// Tokens kept of a text, special tokens included [default: 128, or the model's own limit if lower]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_three)]
    pub(crate) max_length: Option<usize>,
}

/// What the model is to tell.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct TaskArgs {
    /// What the model tells of a text: single-label (its class) or masked-lm (what stood at masked tokens; CPU alone)
    #[arg(long, value_enum, value_name = "TASK", default_value_t = TaskChoice::SingleLabel, hide_possible_values = true)]
    pub(crate) task: TaskChoice,
    /// Part of each row's tokens that masked-lm masks, as BERT does [default: 0.15]
    #[arg(long, value_name = "PART", value_parser = part)]
    pub(crate) mask_probability: Option<f64>,
}

impl TaskArgs {
    /// Part of the tokens to mask; none where the task masks none, and then it may not be given.
    pub(crate) fn masked_part(&self) -> anyhow::Result<Option<f64>> {
        match (self.task, self.mask_probability) {
            (TaskChoice::MaskedLm, part) => Ok(Some(part.unwrap_or(0.15))),
            (TaskChoice::SingleLabel, None) => Ok(None),
            (TaskChoice::SingleLabel, Some(_)) => anyhow::bail!("--mask-probability goes with --task masked-lm"),
        }
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Compute")]
pub(crate) struct DeviceArgs {
    /// Where to compute: auto (a GPU if there is one), cpu or cuda:N (the N-th GPU, from 0)
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
    /// Number formats to compute in: auto (bf16 on a GPU, f32 on the CPU), f32, tf32 or bf16
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = PrecisionChoice::Auto, hide_possible_values = true)]
    pub(crate) precision: PrecisionChoice,
}

impl DeviceArgs {
    /// Finds the device, or refuses what this machine cannot do.
    pub(crate) fn resolve(&self) -> anyhow::Result<Compute> {
        let device = match self.device {
            DeviceChoice::Cpu => None,
            DeviceChoice::Cuda(ordinal) => {
                Some(Device::cuda(ordinal).with_context(|| format!("--device {}", self.device))?)
            }
            DeviceChoice::Auto => match Device::cuda(0) {
                Ok(device) => Some(device),
                Err(nn::Error::Device(error)) if error.is_absence() => None,
                Err(error) => {
                    ui::say(format!("computing on the CPU, since the GPU cannot be used: {error}"));
                    None
                }
            },
        };
        let precision = match (self.precision, &device) {
            (PrecisionChoice::F32, _) | (PrecisionChoice::Auto, None) => Precision::F32,
            (PrecisionChoice::Auto | PrecisionChoice::Bf16, Some(_)) => Precision::Bf16,
            (PrecisionChoice::Tf32, Some(_)) => Precision::Tf32,
            (PrecisionChoice::Bf16 | PrecisionChoice::Tf32, None) => {
                let asked = if self.precision == PrecisionChoice::Bf16 { "bf16" } else { "tf32" };
                anyhow::bail!(
                    "--precision {asked}: the CPU computes in f32 alone; give --precision f32, or a GPU by --device cuda"
                );
            }
        };
        Ok(match device {
            None => Compute::Cpu,
            Some(device) => Compute::Cuda { device, precision },
        })
    }
}

/// Where and in what portions the forward passes run. None of it changes what is learned from a row.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Compute")]
pub(crate) struct ComputeArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Most tokens in one forward pass; lower it to use less memory
    #[arg(long, value_name = "TOKENS", default_value_t = 4096, value_parser = at_least_one)]
    pub(crate) batch_tokens: usize,
}

/// How a model named instead of given as a folder is fetched from the Hugging Face Hub.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hub")]
pub(crate) struct HubArgs {
    /// Branch, tag or commit of a model taken from the Hub [default: main]
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Use only models that are on this machine, as HF_HUB_OFFLINE=1 does
    #[arg(long)]
    pub(crate) offline: bool,
}

/// The folder a command writes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Folder to write; made if missing
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// Start afresh in a folder that holds something: replaces what distill writes there, keeps other files
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// How a model is fitted, whatever it is fitted to: `finetune` and `train` share this.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct FittingArgs {
    /// Rows in one optimiser step
    #[arg(long, value_name = "ROWS", default_value_t = 32, value_parser = at_least_one)]
    pub(crate) batch_rows: usize,
    /// How strongly AdamW draws weights to 0; biases and norms are left alone
    #[arg(long, value_name = "RATE", default_value_t = 0.01, value_parser = zero_or_more)]
    pub(crate) weight_decay: f64,
    /// Part of all steps over which the learning rate rises from 0; it falls back to 0 over the rest
    #[arg(long, value_name = "PART", default_value_t = 0.06, value_parser = fraction)]
    pub(crate) warmup_ratio: f64,
    /// Gradients of a larger norm than this are scaled down to it
    #[arg(long, value_name = "NORM", default_value = "1.0", value_parser = above_zero)]
    pub(crate) max_gradient_norm: f64,
    /// Chance of each value being dropped in training
    #[arg(long, value_name = "CHANCE", default_value_t = 0.1, value_parser = probability)]
    pub(crate) dropout: f64,
    /// Which state of the model to keep: best on the validation rows, or last
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Keep::Best, hide_possible_values = true)]
    pub(crate) keep: Keep,
    /// Epochs between two evaluations on the validation rows
    #[arg(long, value_name = "EPOCHS", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) evaluate_every: usize,
    /// Where all randomness comes from: the same seed gives the same model
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
}
