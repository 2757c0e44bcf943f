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
    ABOVE_ZERO, ColumnsRecipe, FRACTION, FitRecipe, Keep, LabelNameList, PART, PROBABILITY, ZERO_OR_MORE,
};
use crate::tasks::Task;

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

/// What the model is to tell.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct TaskArgs {
    /// What the model tells of a text: single-label (its class) or masked-lm (what stood at masked tokens; CPU alone)
    #[arg(long, value_parser = one_of(&TaskName::ALL, TaskName::name), value_name = "TASK",
          default_value_t = TaskName::SingleLabel, hide_possible_values = true)]
    pub(crate) task: TaskName,
    /// Part of each row's tokens that masked-lm masks, as BERT does [default: 0.15]
    #[arg(long, value_name = "PART", value_parser = number(PART))]
    pub(crate) mask_probability: Option<f64>,
}

impl TaskArgs {
    /// The task; where it masks tokens, by this seed.
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
    /// Where to compute: auto (a GPU if there is one), cpu or cuda:N (the N-th GPU, from 0)
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
    /// Number formats to compute in: auto (bf16 on a GPU, f32 on the CPU), f32, tf32 or bf16
    #[arg(long, value_parser = one_of(&PrecisionChoice::ALL, PrecisionChoice::name), value_name = "FORMAT",
          default_value_t = PrecisionChoice::Auto, hide_possible_values = true)]
    pub(crate) precision: PrecisionChoice,
}

impl DeviceArgs {
    /// Finds the device, or refuses what this machine cannot do.
    pub(crate) fn resolve(&self) -> anyhow::Result<Compute> {
        device::find(self.device, self.precision)
    }
}

/// Where and in what portions the forward passes run. None of it changes what is learned from a row.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Compute")]
pub(crate) struct ComputeArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Most tokens in one forward pass; lower it to use less memory [default: 4096, on a GPU 16384]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) batch_tokens: Option<usize>,
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

impl From<HubArgs> for HubOptions {
    fn from(HubArgs { revision, offline }: HubArgs) -> Self {
        Self { revision, offline }
    }
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

impl OutputArgs {
    /// What to do about what the folder holds.
    pub(crate) fn existing(&self, resume: bool) -> Existing {
        match (resume, self.overwrite) {
            (true, _) => Existing::Resume,
            (false, true) => Existing::Overwrite,
            (false, false) => Existing::Refuse,
        }
    }
}

/// How a model is fitted, whatever it is fitted to: `finetune` and `train` share this.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct FittingArgs {
    /// Rows in one optimiser step
    #[arg(long, value_name = "ROWS", default_value_t = 32, value_parser = at_least_one)]
    pub(crate) batch_rows: usize,
    /// How strongly AdamW draws weights to 0; biases and norms are left alone
    #[arg(long, value_name = "RATE", default_value_t = 0.01, value_parser = number(ZERO_OR_MORE))]
    pub(crate) weight_decay: f64,
    /// Part of all steps over which the learning rate rises from 0; it falls back to 0 over the rest
    #[arg(long, value_name = "PART", default_value_t = 0.06, value_parser = number(FRACTION))]
    pub(crate) warmup_ratio: f64,
    /// Gradients of a larger norm than this are scaled down to it
    #[arg(long, value_name = "NORM", default_value = "1.0", value_parser = number(ABOVE_ZERO))]
    pub(crate) max_gradient_norm: f64,
    /// Chance of each value being dropped in training
    #[arg(long, value_name = "CHANCE", default_value_t = 0.1, value_parser = number(PROBABILITY))]
    pub(crate) dropout: f64,
    /// Which state of the model to keep: best on the validation rows, or last
    #[arg(long, value_parser = one_of(&Keep::ALL, Keep::name), value_name = "WHICH", default_value_t = Keep::Best,
          hide_possible_values = true)]
    pub(crate) keep: Keep,
    /// Epochs between two evaluations on the validation rows
    #[arg(long, value_name = "EPOCHS", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) evaluate_every: usize,
    /// Where all randomness comes from: the same seed gives the same model
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
}

impl FittingArgs {
    /// The recipe that these flags and those of their commands spell.
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
        }
    }
}
