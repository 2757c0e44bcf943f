//! Flags that several commands share, so that each is spelled, explained and checked once.

use std::path::PathBuf;

use cache::Masks;
use clap::Args;
use datasets::Quotes;
use nn::Compute;
use teacher::HubOptions;

use super::values::{TaskName, at_least_one, at_least_three, number, one_of};
use crate::device::{self, DeviceChoice, PrecisionChoice};
use crate::jobs::Existing;
use crate::recipe::{
    ABOVE_ZERO, ColumnsRecipe, FRACTION, FitRecipe, Keep, LabelNameList, PART, PROBABILITY, StudentRecipe, ZERO_OR_MORE,
};
use crate::tasks::Task;

/// How a data file is read: its columns, its label names, and how much of each text the model sees.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct ColumnArgs {
    /// Column of the text [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) text_column: Option<String>,
    /// Column of the second text, for text pairs [default: text_b, if there is one]
    #[arg(long, value_name = "NAME")]
    pub(crate) pair_column: Option<String>,
    /// Column that holds the label [default: label, or else labels, in any letters]
    #[arg(long, value_name = "NAME")]
    pub(crate) label_column: Option<String>,
    /// What stands in that column of a row without a label, besides nothing at all; -1 in many data sets
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) unlabelled_value: Option<String>,
    /// Names of the classes in the model's order, with commas between them, or @FILE with one a line
    #[arg(long, value_name = "A,B,..", allow_hyphen_values = true)]
    pub(crate) label_names: Option<LabelNameList>,
    /// Quotes in TSV and CSV: csv (cells may stand in quotes, inner ones doubled) or none (quotes are part of a text)
    /// [default: none in TSV, csv in CSV]
    #[arg(long, value_parser = one_of(&Quotes::ALL, Quotes::name), value_name = "QUOTES", hide_possible_values = true)]
    pub(crate) quotes: Option<Quotes>,
    /// Tokens kept of a text, special tokens included [default: 128, or the model's own limit if lower]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_three)]
    pub(crate) max_length: Option<usize>,
}

impl From<&ColumnArgs> for ColumnsRecipe {
    fn from(args: &ColumnArgs) -> Self {
        Self {
            text_column: args.text_column.clone(),
            pair_column: args.pair_column.clone(),
            label_column: args.label_column.clone(),
            unlabelled_value: args.unlabelled_value.clone(),
            quotes: args.quotes,
            label_names: args.label_names.clone().unwrap_or_default().0,
            max_length: args.max_length,
        }
    }
}

/// What the model is trained to predict.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct TaskArgs {
    /// Task: single-label (one class per text) or masked-lm (the original token at masked positions)
    #[arg(long, value_parser = one_of(&TaskName::ALL, TaskName::name), value_name = "TASK",
          default_value_t = TaskName::SingleLabel, hide_possible_values = true)]
    pub(crate) task: TaskName,
    /// Fraction of tokens to mask for masked-lm, in BERT's way [default: 0.15]
    #[arg(long, value_name = "FRACTION", value_parser = number(PART))]
    pub(crate) mask_probability: Option<f64>,
}

impl TaskArgs {
    /// The task; masks are drawn with this seed.
    pub(crate) fn task(&self, seed: u64) -> anyhow::Result<Task> {
        match (self.task, self.mask_probability) {
            (TaskName::MaskedLm, part) => Ok(Task::MaskedLm(Masks { probability: part.unwrap_or(0.15), seed })),
            (TaskName::SingleLabel, None) => Ok(Task::SingleLabel),
            (TaskName::SingleLabel, Some(_)) => anyhow::bail!("--mask-probability goes with --task masked-lm"),
        }
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Compute")]
pub(crate) struct DeviceArgs {
    /// Device: auto (a GPU if there is one), cpu, or cuda:N (GPU N, counted from 0)
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
    /// Precision of the forward and backward pass: auto (bf16 on a GPU, f32 on the CPU), f32, tf32 or bf16
    #[arg(long, value_parser = one_of(&PrecisionChoice::ALL, PrecisionChoice::name), value_name = "FORMAT",
          default_value_t = PrecisionChoice::Auto, hide_possible_values = true)]
    pub(crate) precision: PrecisionChoice,
}

impl DeviceArgs {
    /// Finds the device; an error if this machine does not have it or cannot compute in this precision.
    pub(crate) fn resolve(&self) -> anyhow::Result<Compute> {
        device::find(self.device, self.precision)
    }
}

/// How matrix products are computed on a GPU.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Compute")]
pub(crate) struct AutotuneArgs {
    /// On a GPU, time cuBLASLt's algorithms for each shape of a matrix product and take the fastest. Two runs may choose
    /// differently, and then differ in the last bits; one that is resumed keeps its choices
    #[arg(long)]
    pub(crate) autotune: bool,
}

/// Device and batching of forward passes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Compute")]
pub(crate) struct ComputeArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Maximum tokens per forward pass; lower it to use less memory [default: 4096, or 16384 on a GPU]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) batch_tokens: Option<usize>,
}

/// How models are fetched from the Hugging Face Hub.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hub")]
pub(crate) struct HubArgs {
    /// Branch, tag or commit of a model on the Hub [default: main]
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Use only models already on this machine, like HF_HUB_OFFLINE=1
    #[arg(long)]
    pub(crate) offline: bool,
}

impl From<HubArgs> for HubOptions {
    fn from(HubArgs { revision, offline }: HubArgs) -> Self {
        Self { revision, offline }
    }
}

/// The folder that a command writes to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Folder to write to; created if missing
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// Start over in a folder that is not empty: replaces the files that distill writes, keeps all others
    #[arg(long)]
    pub(crate) overwrite: bool,
}

impl OutputArgs {
    /// What to do if the folder is not empty.
    pub(crate) fn existing(&self, resume: bool) -> Existing {
        match (resume, self.overwrite) {
            (true, _) => Existing::Resume,
            (false, true) => Existing::Overwrite,
            (false, false) => Existing::Refuse,
        }
    }
}

/// Training settings that `finetune` and `train` share.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct FittingArgs {
    /// Rows per optimiser step
    #[arg(long, value_name = "ROWS", default_value_t = FitRecipe::DEFAULT.batch_rows, value_parser = at_least_one)]
    pub(crate) batch_rows: usize,
    /// Weight decay of AdamW; not applied to biases and norms
    #[arg(long, value_name = "RATE", default_value_t = FitRecipe::DEFAULT.weight_decay, value_parser = number(ZERO_OR_MORE))]
    pub(crate) weight_decay: f64,
    /// Fraction of all steps for warmup: the learning rate rises linearly from 0, then falls linearly to 0 over the
    /// rest
    #[arg(long, value_name = "FRACTION", default_value_t = FitRecipe::DEFAULT.warmup_ratio, value_parser = number(FRACTION))]
    pub(crate) warmup_ratio: f64,
    /// Clip the gradient to this L2 norm, over all parameters
    #[arg(long, value_name = "NORM", default_value_t = FitRecipe::DEFAULT.max_gradient_norm, value_parser = number(ABOVE_ZERO))]
    pub(crate) max_gradient_norm: f64,
    /// Dropout probability, in training only
    #[arg(long, value_name = "RATE", default_value_t = StudentRecipe::DEFAULT.dropout, value_parser = number(PROBABILITY))]
    pub(crate) dropout: f64,
    /// Which weights to keep: best (highest validation accuracy; without labels, agreement with the teacher) or last
    #[arg(long, value_parser = one_of(&Keep::ALL, Keep::name), value_name = "WHICH", default_value_t = FitRecipe::DEFAULT.keep,
          hide_possible_values = true)]
    pub(crate) keep: Keep,
    /// Evaluate on the validation data every this many epochs
    #[arg(long, value_name = "EPOCHS", default_value_t = FitRecipe::DEFAULT.evaluate_every, value_parser = at_least_one)]
    pub(crate) evaluate_every: usize,
    /// Random seed: the same seed gives the same model
    #[arg(long, value_name = "N", default_value_t = FitRecipe::DEFAULT.seed)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) products: AutotuneArgs,
}

impl FittingArgs {
    /// These flags and those of their commands as a recipe.
    pub(super) fn recipe(&self, epochs: usize, learning_rate: f64, compute: &ComputeArgs) -> FitRecipe {
        FitRecipe {
            epochs,
            batch_rows: self.batch_rows,
            batch_tokens: compute.batch_tokens,
            learning_rate,
            weight_decay: self.weight_decay,
            warmup_ratio: self.warmup_ratio,
            max_gradient_norm: self.max_gradient_norm,
            keep: self.keep,
            evaluate_every: self.evaluate_every,
            seed: self.seed,
            autotune: self.products.autotune,
        }
    }
}
