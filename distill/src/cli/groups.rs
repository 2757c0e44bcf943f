//! Flags that several commands share, so that each is spelled, explained and checked once.

use std::path::PathBuf;

use cache::Masks;
use clap::Args;
use datasets::Quotes;
use nn::Compute;
use teacher::HubOptions;

use super::values::{TaskName, at_least_one, at_least_three, number, one_of, settings};
use crate::device::{self, DeviceChoice, PrecisionChoice};
use crate::jobs::Existing;
use crate::objective::{ClassWeights, HardLabel, LossTermRecipe, RDrop};
use crate::recipe::{
    ABOVE_ZERO, Bytes, ColumnsRecipe, FRACTION, FitRecipe, Keep, LabelNameList, Metric, ONE_OR_MORE, PART, PROBABILITY,
    ScheduleKind, StudentRecipe, ZERO_OR_MORE,
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

/// How texts become rows.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct PackingArgs {
    /// With masked-lm: cut the texts, one behind the other, into rows of --max-length tokens, in place of a row for each text
    #[arg(long)]
    pub(crate) pack: bool,
}

impl PackingArgs {
    /// Whether to pack texts of this task. An error for one whose rows are texts of their own.
    pub(crate) fn of(self, task: Task) -> anyhow::Result<bool> {
        anyhow::ensure!(
            !self.pack || task.masks().is_some(),
            "--pack goes with --task masked-lm: a label is of one text"
        );
        Ok(self.pack)
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
    /// Passes over the training data [default: by the number of rows, see the README]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) epochs: Option<usize>,
    /// Peak learning rate of AdamW, reached at the end of the warmup [default: by the model's width and what it starts from]
    #[arg(long, value_name = "RATE", value_parser = number(ABOVE_ZERO))]
    pub(crate) learning_rate: Option<f64>,
    /// Rows per optimiser step
    #[arg(long, value_name = "ROWS", default_value_t = FitRecipe::DEFAULT.batch_rows, value_parser = at_least_one)]
    pub(crate) batch_rows: usize,
    /// Draw the rows of an epoch so that a class of n rows comes n^(1/T) times, in proportion: 1 as they are, 2 by the square root, 100
    /// nearly as often as any other [default: each row once]
    #[arg(long, value_name = "T", value_parser = number(ONE_OR_MORE))]
    pub(crate) class_temperature: Option<f64>,
    /// Weight decay of AdamW; not applied to biases and norms
    #[arg(long, value_name = "RATE", default_value_t = FitRecipe::DEFAULT.weight_decay, value_parser = number(ZERO_OR_MORE))]
    pub(crate) weight_decay: f64,
    /// Take this many optimiser steps, whatever --epochs says
    #[arg(long, value_name = "STEPS", value_parser = at_least_one)]
    pub(crate) max_steps: Option<usize>,
    /// Take as many steps as fit into this many minutes, at most those of --epochs; a few steps are timed first
    #[arg(long, value_name = "MINUTES", value_parser = number(ABOVE_ZERO), conflicts_with = "max_steps")]
    pub(crate) max_minutes: Option<f64>,
    /// Use at most this much memory, such as 4GiB, by a lower --batch-tokens; on a GPU, of its memory [default: what is free]
    #[arg(long, value_name = "SIZE", conflicts_with = "batch_tokens")]
    pub(crate) memory: Option<Bytes>,
    /// Keep only what goes from layer to layer, and compute the rest again in the backward pass: less memory, more time, the same
    /// model (but for rounding where word embeddings are tied)
    #[arg(long)]
    pub(crate) recompute: bool,
    /// Learning rate after the warmup: constant, linear (falls to 0), cosine, inverse-sqrt, one-cycle, or plateau (reduced
    /// when evaluations no longer improve)
    #[arg(long, value_parser = one_of(&ScheduleKind::ALL, ScheduleKind::name), value_name = "NAME",
          default_value_t = FitRecipe::DEFAULT.schedule, hide_possible_values = true, help_heading = "Schedule")]
    pub(crate) schedule: ScheduleKind,
    /// Fraction of all steps for warmup: the learning rate rises linearly from 0
    #[arg(long, value_name = "FRACTION", default_value_t = FitRecipe::DEFAULT.warmup_ratio, value_parser = number(FRACTION),
          help_heading = "Schedule")]
    pub(crate) warmup_ratio: f64,
    /// Steps of warmup, in place of --warmup-ratio
    #[arg(long, value_name = "STEPS", conflicts_with = "warmup_ratio", help_heading = "Schedule")]
    pub(crate) warmup_steps: Option<usize>,
    /// Fraction of the peak that the learning rate does not fall below (linear, cosine, plateau)
    #[arg(long, value_name = "FRACTION", default_value_t = FitRecipe::DEFAULT.schedule_floor, value_parser = number(FRACTION),
          help_heading = "Schedule")]
    pub(crate) schedule_floor: f64,
    /// Cosine schedule: number of restarts from the peak
    #[arg(long, value_name = "N", default_value_t = FitRecipe::DEFAULT.schedule_restarts, help_heading = "Schedule")]
    pub(crate) schedule_restarts: usize,
    /// Plateau schedule: evaluations without improvement that are tolerated before the learning rate is reduced
    #[arg(long, value_name = "N", default_value_t = FitRecipe::DEFAULT.plateau_patience, help_heading = "Schedule")]
    pub(crate) plateau_patience: usize,
    /// Plateau schedule: factor that the learning rate is multiplied by
    #[arg(long, value_name = "FACTOR", default_value_t = FitRecipe::DEFAULT.plateau_factor, value_parser = number(PROBABILITY),
          help_heading = "Schedule")]
    pub(crate) plateau_factor: f64,
    /// Clip the gradient to this L2 norm, over all parameters
    #[arg(long, value_name = "NORM", default_value_t = FitRecipe::DEFAULT.max_gradient_norm, value_parser = number(ABOVE_ZERO))]
    pub(crate) max_gradient_norm: f64,
    /// Clip each element of the gradient to at most this much, in place of its norm
    #[arg(long, value_name = "VALUE", value_parser = number(ABOVE_ZERO), conflicts_with = "max_gradient_norm")]
    pub(crate) max_gradient_value: Option<f64>,
    /// Layer-wise learning rates: each layer's is this fraction of the one above it; the head has the whole rate
    #[arg(long, value_name = "FRACTION", default_value_t = FitRecipe::DEFAULT.layer_decay, value_parser = number(PART))]
    pub(crate) layer_decay: f64,
    /// Learning rate of the head [default: --learning-rate]
    #[arg(long, value_name = "RATE", value_parser = number(ABOVE_ZERO))]
    pub(crate) head_learning_rate: Option<f64>,
    /// Parameters to leave as they are: embeddings, head, layers (0 or 0-3), or beginnings of names, with commas between them;
    /// all, to train projections of hidden states alone
    #[arg(long, value_name = "A,B,..", value_delimiter = ',')]
    pub(crate) freeze: Vec<String>,
    /// Keep an exponential moving average of the weights with this decay, such as 0.999; it is evaluated and saved in their
    /// place
    #[arg(long, value_name = "DECAY", value_parser = number(PROBABILITY))]
    pub(crate) ema_decay: Option<f64>,
    /// Dropout probability, in training only
    #[arg(long, value_name = "RATE", default_value_t = StudentRecipe::DEFAULT.dropout, value_parser = number(PROBABILITY))]
    pub(crate) dropout: f64,
    /// Which weights to keep: best (by --metric on the validation data) or last
    #[arg(long, value_parser = one_of(&Keep::ALL, Keep::name), value_name = "WHICH", default_value_t = FitRecipe::DEFAULT.keep,
          hide_possible_values = true, help_heading = "Evaluation")]
    pub(crate) keep: Keep,
    /// Metric that evaluations are compared by: accuracy, macro-f1, agreement (with the teacher), loss or ece (calibration error)
    /// [default: accuracy; without labels, agreement]
    #[arg(long, value_parser = one_of(&Metric::ALL, Metric::name), value_name = "NAME", hide_possible_values = true,
          help_heading = "Evaluation")]
    pub(crate) metric: Option<Metric>,
    /// Evaluate on the validation data every this many epochs
    #[arg(long, value_name = "EPOCHS", default_value_t = FitRecipe::DEFAULT.evaluate_every, value_parser = at_least_one,
          help_heading = "Evaluation")]
    pub(crate) evaluate_every: usize,
    /// Evaluate every this many steps, in place of epochs
    #[arg(long, value_name = "STEPS", value_parser = at_least_one, conflicts_with = "evaluate_every",
          help_heading = "Evaluation")]
    pub(crate) evaluate_steps: Option<usize>,
    /// Stop early, after this many evaluations in a row without a better one
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Evaluation")]
    pub(crate) patience: Option<usize>,
    /// With --patience: an evaluation is better by more than this, or it is not
    #[arg(long, value_name = "GAIN", default_value_t = FitRecipe::DEFAULT.min_gain, value_parser = number(ZERO_OR_MORE),
          requires = "patience", help_heading = "Evaluation")]
    pub(crate) min_gain: f64,
    /// Write a checkpoint every this many steps, besides those at the ends of epochs
    #[arg(long, value_name = "STEPS", value_parser = at_least_one, help_heading = "Checkpoints")]
    pub(crate) checkpoint_every: Option<usize>,
    /// Write a checkpoint every this many minutes
    #[arg(long, value_name = "MINUTES", value_parser = number(ABOVE_ZERO), help_heading = "Checkpoints")]
    pub(crate) checkpoint_minutes: Option<f64>,
    /// Try N settings first, on the validation data alone, and train with the best: learning rates from a tenth of
    /// --learning-rate to ten times as much; with a teacher also --temperature and the weights, unless they are given. The
    /// better third goes on with more steps, until one is left (successive halving)
    #[arg(long, value_name = "N", value_parser = settings)]
    pub(crate) tune: Option<usize>,
    /// Random seed: the same seed gives the same model
    #[arg(long, value_name = "N", default_value_t = FitRecipe::DEFAULT.seed)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) products: AutotuneArgs,
}

impl FittingArgs {
    /// These flags and those of their commands as a recipe.
    pub(super) fn recipe(&self, compute: &ComputeArgs) -> FitRecipe {
        FitRecipe {
            epochs: self.epochs,
            max_steps: self.max_steps,
            max_minutes: self.max_minutes,
            memory: self.memory,
            recompute: self.recompute,
            batch_rows: self.batch_rows,
            batch_tokens: compute.batch_tokens,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            warmup_ratio: self.warmup_ratio,
            warmup_steps: self.warmup_steps,
            schedule: self.schedule,
            schedule_floor: self.schedule_floor,
            schedule_restarts: self.schedule_restarts,
            plateau_patience: self.plateau_patience,
            plateau_factor: self.plateau_factor,
            max_gradient_norm: self.max_gradient_norm,
            max_gradient_value: self.max_gradient_value,
            layer_decay: self.layer_decay,
            head_learning_rate: self.head_learning_rate,
            projection_learning_rate: None,
            unlabelled_rate: None,
            class_temperature: self.class_temperature,
            freeze: self.freeze.clone(),
            ema_decay: self.ema_decay,
            keep: self.keep,
            metric: self.metric,
            evaluate_every: self.evaluate_every,
            evaluate_steps: self.evaluate_steps,
            patience: self.patience,
            min_gain: self.min_gain,
            checkpoint_every: self.checkpoint_every,
            checkpoint_minutes: self.checkpoint_minutes,
            seed: self.seed,
            autotune: self.products.autotune,
        }
    }
}

/// Loss settings that `finetune` and `train` share.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Objective")]
pub(crate) struct LossArgs {
    /// Weights of the classes in the cross-entropy with the labels: balanced (all classes count the same, however rare), or
    /// a list such as 1,2.5,1 in the order of the model's classes
    #[arg(long, value_name = "W0,W1,..", allow_hyphen_values = true)]
    pub(crate) class_weights: Option<ClassWeights>,
    /// Focal loss in place of that cross-entropy: the higher G, the less a row counts that is already right; 2 in the paper,
    /// 0 turns it off
    #[arg(long, value_name = "G", default_value_t = 0.0, value_parser = number(ZERO_OR_MORE))]
    pub(crate) focal_gamma: f64,
    /// Share of the target that goes to all classes alike instead of to the label, such as 0.1; 0 turns it off
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = number(PROBABILITY))]
    pub(crate) label_smoothing: f64,
    /// Weight of R-Drop: each row is in its step twice, with different dropout masks, and both predictions are to be the
    /// same; 0 turns it off
    #[arg(long, value_name = "ALPHA", default_value_t = 0.0, value_parser = number(ZERO_OR_MORE))]
    pub(crate) r_drop: f64,
}

impl LossArgs {
    /// The first of these flags about the hard term that says anything.
    fn of_hard_term(&self) -> Option<&'static str> {
        let given = [
            ("--class-weights", self.class_weights.is_some()),
            ("--focal-gamma", self.focal_gamma > 0.0),
            ("--label-smoothing", self.label_smoothing > 0.0),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// These terms, and those of the flags whose weight is above 0. An error for settings of a term that is not there.
    pub(super) fn terms(
        &self,
        of_teacher: Vec<LossTermRecipe>,
        weight_hard: f64,
    ) -> anyhow::Result<Vec<LossTermRecipe>> {
        if let (Some(flag), true) = (self.of_hard_term(), weight_hard == 0.0) {
            anyhow::bail!("{flag} is about the hard term, which --weight-hard 0 turns off; leave out one of the two");
        }
        let Self { class_weights, focal_gamma, label_smoothing, r_drop } = self.clone();
        let hard = HardLabel { weight: weight_hard, final_weight: None, class_weights, focal_gamma, label_smoothing };
        let others = [LossTermRecipe::HardLabel(hard), LossTermRecipe::RDrop(RDrop { weight: r_drop })];
        Ok(of_teacher.into_iter().chain(others.into_iter().filter(|term| term.weight() > 0.0)).collect())
    }
}
