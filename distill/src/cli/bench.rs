//! The flags of `distill bench` and its subcommands.

use std::path::PathBuf;
use std::time::Duration;

use cache::Dtype;
use clap::{Args, Subcommand};
use nn::cuda::Part;

use super::groups::{AutotuneArgs, ColumnArgs, DeviceArgs, HubArgs};
use super::values::{STORED_DTYPES, at_least_one, number, one_of, stored_name};
use crate::device::DeviceChoice;
use crate::jobs::bench::cache::CacheBench;
use crate::jobs::bench::kernels::KernelsBench;
use crate::jobs::bench::{Budget, CaptureBench, Measurement, RowsAsked, Shape, TrainBench, TrainSettings};
use crate::jobs::capture::StoredForm;
use crate::recipe::{ABOVE_ZERO, PROBABILITY, StudentFamily};

/// `distill bench`: measure speed on this machine.
#[derive(Debug, Clone, Args)]
#[command(
    subcommand_required = true,
    after_help = "Example:\n  distill bench train --layers 3 --hidden-size 384 --heads 12 --batch-rows 32 --length 16"
)]
pub(crate) struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) what: BenchCommand,
}

/// What to measure.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time a teacher's forward pass, as `distill cache` runs it
    Capture(BenchCaptureArgs),
    /// Time a training step, as `distill train` takes it: forward, loss, backward, clipping, AdamW
    Train(BenchTrainArgs),
    /// Time writing and reading a cache of synthetic rows, and report its size and the reader's memory
    Cache(BenchCacheArgs),
    /// Time bare matrix products: the upper limit that the other figures are compared with
    Gemm(BenchGemmArgs),
    /// Check every GPU kernel against a reference computation on the CPU
    Kernels(BenchKernelsArgs),
}

/// `distill bench kernels`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill bench kernels --device cuda:0 --only attention,products")]
pub(crate) struct BenchKernelsArgs {
    /// Parts to check, comma-separated, each in its own process: norm, embed, activation, rows, loss, attention,
    /// optimizer, products, engine, large [default: all]
    #[arg(long, value_name = "PART,..", value_delimiter = ',', value_parser = one_of(&Part::ALL, Part::name),
          hide_possible_values = true)]
    pub(crate) only: Vec<Part>,
    /// Time limit for each part
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = number(ABOVE_ZERO))]
    pub(crate) limit: f64,
    /// GPU to check: cuda:N, counted from 0
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Cuda(0), help_heading = "Compute")]
    pub(crate) device: DeviceChoice,
    /// Library of the emulated device, to check instead of a GPU
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) emulation: Option<PathBuf>,
    /// Check this part in this process; the command starts itself with this flag for each part
    #[arg(long, value_name = "PART", value_parser = one_of(&Part::ALL, Part::name), hide = true)]
    pub(crate) part: Option<Part>,
}

impl From<BenchKernelsArgs> for KernelsBench {
    fn from(args: BenchKernelsArgs) -> Self {
        let BenchKernelsArgs { only, limit, device, emulation, part: _ } = args;
        // More than a day is as good as for ever, and a bound keeps the conversion from failing.
        Self { device, emulation, only, limit: Duration::from_secs_f64(limit.min(86_400.0)) }
    }
}

/// `distill bench capture`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill bench capture --model teacher --data train.tsv --limit 2048")]
pub(crate) struct BenchCaptureArgs {
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    #[command(flatten)]
    pub(crate) rows: RowsArgs,
    #[command(flatten)]
    pub(crate) writing: WritingArgs,
    #[command(flatten)]
    pub(crate) measurement: MeasurementArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

impl From<BenchCaptureArgs> for CaptureBench {
    fn from(args: BenchCaptureArgs) -> Self {
        Self {
            shape: args.shape.into(),
            rows: args.rows.into(),
            output: args.writing.output.clone(),
            stored: args.writing.into(),
            measurement: args.measurement.into(),
            hub: args.hub.into(),
        }
    }
}

/// `distill bench train`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  distill bench train --model teacher --layers 3 --data train.tsv --prune-vocabulary"
)]
pub(crate) struct BenchTrainArgs {
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Dropout probability
    #[arg(long, value_name = "RATE", default_value_t = 0.1, value_parser = number(PROBABILITY), help_heading = "Model")]
    pub(crate) dropout: f64,
    /// Also time the student with a pruned vocabulary
    #[arg(long, requires = "data", help_heading = "Model")]
    pub(crate) prune_vocabulary: bool,
    /// Compute each layer's values again in the backward pass, as `distill train --recompute`
    #[arg(long, help_heading = "Training")]
    pub(crate) recompute: bool,
    /// Keep a moving average of the weights, as `distill train --ema-decay`
    #[arg(long, value_name = "DECAY", value_parser = number(PROBABILITY), help_heading = "Training")]
    pub(crate) ema_decay: Option<f64>,
    #[command(flatten)]
    pub(crate) rows: RowsArgs,
    #[command(flatten)]
    pub(crate) measurement: MeasurementArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

impl From<BenchTrainArgs> for TrainBench {
    fn from(args: BenchTrainArgs) -> Self {
        Self {
            shape: args.shape.into(),
            dropout: args.dropout,
            prune_vocabulary: args.prune_vocabulary,
            settings: TrainSettings { recompute: args.recompute, ema_decay: args.ema_decay },
            rows: args.rows.into(),
            measurement: args.measurement.into(),
            hub: args.hub.into(),
        }
    }
}

/// `distill bench cache`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill bench cache --rows 10000000 --labels 77")]
pub(crate) struct BenchCacheArgs {
    /// Number of rows
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = at_least_one, help_heading = "Data")]
    pub(crate) rows: usize,
    /// Logits per row
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one, help_heading = "Data")]
    pub(crate) labels: usize,
    /// Number format of the logits: f32, f16 or bf16
    #[arg(long, value_parser = one_of(&STORED_DTYPES, stored_name), value_name = "DTYPE", default_value = "f16",
          hide_possible_values = true, help_heading = "Data")]
    pub(crate) dtype: Dtype,
    /// Rows per commit; each commit writes one shard
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = at_least_one, help_heading = "Data")]
    pub(crate) commit_rows: usize,
    /// Random seed of keys, logits and reading order
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Data")]
    pub(crate) seed: u64,
    /// Folder to write the cache to, and keep it [default: a temporary one, removed afterwards]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,
    /// Do not write: read the cache that an earlier call left in --output
    #[arg(long, requires = "output", help_heading = "Output")]
    pub(crate) reuse: bool,
}

impl From<BenchCacheArgs> for CacheBench {
    fn from(args: BenchCacheArgs) -> Self {
        let BenchCacheArgs { rows, labels, dtype, commit_rows, seed, output, reuse } = args;
        Self { rows, labels, dtype, commit_rows, seed, output, reuse }
    }
}

/// `distill bench gemm`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill bench gemm --hidden-size 768")]
pub(crate) struct BenchGemmArgs {
    /// Width of the hidden states
    #[arg(long, value_name = "N", default_value_t = 384, value_parser = at_least_one, help_heading = "Model")]
    pub(crate) hidden_size: usize,
    /// Width of the feed-forward layers [default: 4 times the hidden size]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Model")]
    pub(crate) intermediate_size: Option<usize>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) products: AutotuneArgs,
}

/// The model to time.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ShapeArgs {
    /// Model that sizes and tokenizer are taken from: a folder, or a name on the Hub [default: the sizes of BERT-base].
    /// Weights are random, but capture uses the model's own unless a size below changes it
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Architecture: distilbert, bert, electra, or mobilebert in its published sizes [default: that of --model for capture,
    /// distilbert for train]
    #[arg(long, value_parser = one_of(&StudentFamily::ALL, StudentFamily::name), value_name = "TYPE",
          hide_possible_values = true)]
    pub(crate) model_type: Option<StudentFamily>,
    /// Number of encoder layers [default: the model's; without --model, 12 for capture and 6 for train]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) layers: Option<usize>,
    /// Width of the hidden states [default: the model's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) hidden_size: Option<usize>,
    /// Number of attention heads [default: heads as wide as the model's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) heads: Option<usize>,
    /// Width of the feed-forward layers [default: same ratio to the hidden size as in the model]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) intermediate_size: Option<usize>,
    /// Vocabulary size [default: the model's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) vocab_size: Option<usize>,
    /// Number of classes [default: the data's for train, the model's for capture]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) labels: Option<usize>,
}

impl From<ShapeArgs> for Shape {
    fn from(args: ShapeArgs) -> Self {
        Self {
            model: args.model,
            family: args.model_type,
            layers: args.layers,
            hidden_size: args.hidden_size,
            heads: args.heads,
            intermediate_size: args.intermediate_size,
            vocab_size: args.vocab_size,
            labels: args.labels,
        }
    }
}

/// The rows to time it on.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct RowsArgs {
    /// Real rows, tokenised by --model's tokenizer: TSV, CSV, JSON or Parquet, also .gz or .zst [default: synthetic rows]
    #[arg(long, value_name = "FILE", requires = "model")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    /// Use only the first rows of --data
    #[arg(long, value_name = "ROWS", value_parser = at_least_one, requires = "data")]
    pub(crate) limit: Option<usize>,
    /// Rows per training step; for capture, the number of synthetic rows
    #[arg(long, value_name = "ROWS", default_value_t = 32, value_parser = at_least_one)]
    pub(crate) batch_rows: usize,
    /// Tokens per synthetic row
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = at_least_one, conflicts_with = "data")]
    pub(crate) length: usize,
}

impl From<RowsArgs> for RowsAsked {
    fn from(args: RowsArgs) -> Self {
        Self {
            data: args.data,
            columns: (&args.columns).into(),
            limit: args.limit,
            batch_rows: args.batch_rows,
            length: args.length,
        }
    }
}

/// What writing the cache adds to a capture.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Writing")]
pub(crate) struct WritingArgs {
    /// Also time complete captures into this folder, alternating with captures that discard the outputs; the caches are
    /// removed again
    #[arg(long, value_name = "DIR", requires = "data")]
    pub(crate) output: Option<PathBuf>,
    /// Number format of the logits: f32, f16 or bf16 [default: as in `distill cache`]
    #[arg(long, value_parser = one_of(&STORED_DTYPES, stored_name), value_name = "DTYPE", requires = "output",
          hide_possible_values = true)]
    pub(crate) dtype: Option<Dtype>,
    /// Store only the K largest logits
    #[arg(long, value_name = "K", value_parser = at_least_one, requires = "output")]
    pub(crate) top_k: Option<usize>,
    /// Store hidden states of these layers as well
    #[arg(long, value_name = "LAYER,..", value_delimiter = ',', requires = "output")]
    pub(crate) hidden_states: Vec<usize>,
    /// Store hidden states of every token, not only of the first
    #[arg(long, requires = "hidden_states")]
    pub(crate) all_tokens: bool,
}

impl From<WritingArgs> for StoredForm {
    fn from(args: WritingArgs) -> Self {
        Self {
            dtype: args.dtype,
            top_k: args.top_k,
            temperatures: Vec::new(),
            sample: None,
            sample_temperature: 1.0,
            seed: 42,
            hidden_states: args.hidden_states,
            all_tokens: args.all_tokens,
        }
    }
}

/// How it is timed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Measurement")]
pub(crate) struct MeasurementArgs {
    /// Repeat for this long, at least three times; a repeat is one or more passes over the rows, more if a pass is
    /// short
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = number(ABOVE_ZERO))]
    pub(crate) seconds: f64,
    /// Repeat exactly this many times, instead of --seconds
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "seconds")]
    pub(crate) repeats: Option<usize>,
    /// Random seed of weights, synthetic rows and dropout
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
    /// On a GPU, list the time of each kernel and each matrix-product shape, in one extra pass over the rows
    #[arg(long)]
    pub(crate) launches: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) products: AutotuneArgs,
    /// Maximum tokens per forward pass [default: 4096, or 16384 on a GPU; all synthetic rows if they have more]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one, help_heading = "Compute")]
    pub(crate) batch_tokens: Option<usize>,
}

impl From<MeasurementArgs> for Measurement {
    fn from(args: MeasurementArgs) -> Self {
        let budget = match args.repeats {
            Some(repeats) => Budget::Repeats(repeats),
            // More than a day is as good as for ever, and a bound keeps the conversion from failing.
            None => Budget::Time(Duration::from_secs_f64(args.seconds.min(86_400.0))),
        };
        let MeasurementArgs { seed, launches, batch_tokens, products, .. } = args;
        Self { budget, seed, launches, autotune: products.autotune, batch_tokens }
    }
}
