//! The flags of `distill bench` and of what it can measure.

use std::path::PathBuf;
use std::time::Duration;

use cache::Dtype;
use clap::{Args, Subcommand};
use nn::cuda::Part;

use super::groups::{ColumnArgs, DeviceArgs, HubArgs};
use super::values::{STORED_DTYPES, at_least_one, number, one_of, stored_name};
use crate::device::DeviceChoice;
use crate::jobs::bench::cache::CacheBench;
use crate::jobs::bench::kernels::KernelsBench;
use crate::jobs::bench::{Budget, CaptureBench, Measurement, RowsAsked, Shape, TrainBench};
use crate::jobs::capture::StoredForm;
use crate::recipe::{ABOVE_ZERO, PROBABILITY, StudentFamily};

/// `distill bench`: how fast this machine is.
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
    /// Time writing and reading a cache of made-up rows, and weigh its files and its reader
    Cache(BenchCacheArgs),
    /// Time bare matrix products: the ceiling that the others are held against
    Gemm(BenchGemmArgs),
    /// Check every kernel of a GPU against a plain computation on the host
    Kernels(BenchKernelsArgs),
}

/// `distill bench kernels`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill bench kernels --device cuda:0 --only attention,products")]
pub(crate) struct BenchKernelsArgs {
    /// Parts to check, with commas, each in a process of its own: norm, embed, activation, rows, loss, attention, optimizer,
    /// products, engine, large [default: all]
    #[arg(long, value_name = "PART,..", value_delimiter = ',', value_parser = one_of(&Part::ALL, Part::name),
          hide_possible_values = true)]
    pub(crate) only: Vec<Part>,
    /// Stop a part that takes longer
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = number(ABOVE_ZERO))]
    pub(crate) limit: f64,
    /// The GPU: cuda:N, the N-th from 0
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Cuda(0), help_heading = "Compute")]
    pub(crate) device: DeviceChoice,
    /// The library of an emulated device, to check in the place of a GPU
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) emulation: Option<PathBuf>,
    /// Check this part in this process; what the command starts for each
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
    /// Chance of each value being dropped
    #[arg(long, value_name = "CHANCE", default_value_t = 0.1, value_parser = number(PROBABILITY), help_heading = "Model")]
    pub(crate) dropout: f64,
    /// Time the student with a pruned vocabulary too, beside the full one
    #[arg(long, requires = "data", help_heading = "Model")]
    pub(crate) prune_vocabulary: bool,
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
    /// Rows
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = at_least_one, help_heading = "Data")]
    pub(crate) rows: usize,
    /// Logits of a row
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one, help_heading = "Data")]
    pub(crate) labels: usize,
    /// Number format of the logits: f32, f16 or bf16
    #[arg(long, value_parser = one_of(&STORED_DTYPES, stored_name), value_name = "DTYPE", default_value = "f16",
          hide_possible_values = true, help_heading = "Data")]
    pub(crate) dtype: Dtype,
    /// Rows that are committed at a time, each time as one shard
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = at_least_one, help_heading = "Data")]
    pub(crate) commit_rows: usize,
    /// Where keys, logits and the order of reading come from
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Data")]
    pub(crate) seed: u64,
    /// Folder to write the cache into, and leave it there [default: a temporary one, removed afterwards]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,
    /// Read the cache that this command has left in --output, and write none
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
    /// Width inside the feed-forward blocks [default: 4 times the width]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Model")]
    pub(crate) intermediate_size: Option<usize>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// The model to time.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ShapeArgs {
    /// Model to take sizes and tokenizer from, a folder or a name on the Hub [default: BERT-base's sizes]; capture runs
    /// its weights too, where no size is given
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// distilbert, bert, or mobilebert in its published sizes [default: what --model is to capture, distilbert to train]
    #[arg(long, value_parser = one_of(&StudentFamily::ALL, StudentFamily::name), value_name = "TYPE",
          hide_possible_values = true)]
    pub(crate) model_type: Option<StudentFamily>,
    /// Layers [default: the model's; without --model 12 to capture, 6 to train]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) layers: Option<usize>,
    /// Width of the hidden states [default: the model's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) hidden_size: Option<usize>,
    /// Attention heads [default: as many as make a head as wide as the model's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) heads: Option<usize>,
    /// Width inside the feed-forward blocks [default: in the model's proportion to the width]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) intermediate_size: Option<usize>,
    /// Word embeddings [default: the model's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) vocab_size: Option<usize>,
    /// Classes [default: the data's to train, the model's to capture]
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
    /// Real rows, tokenised by --model's tokenizer: TSV, CSV or JSONL, plain or gzipped [default: made-up rows]
    #[arg(long, value_name = "FILE", requires = "model")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    /// Take no more than the first rows of --data
    #[arg(long, value_name = "ROWS", value_parser = at_least_one, requires = "data")]
    pub(crate) limit: Option<usize>,
    /// Rows in one training step; for capture, how many rows are made up
    #[arg(long, value_name = "ROWS", default_value_t = 32, value_parser = at_least_one)]
    pub(crate) batch_rows: usize,
    /// Tokens of each made-up row
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

/// What writing adds to a capture.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Writing")]
pub(crate) struct WritingArgs {
    /// Folder to capture into, several times, in turns with captures whose answers are dropped; each cache is removed
    #[arg(long, value_name = "DIR", requires = "data")]
    pub(crate) output: Option<PathBuf>,
    /// Number format of the logits: f32, f16 or bf16 [default: as in cache]
    #[arg(long, value_parser = one_of(&STORED_DTYPES, stored_name), value_name = "DTYPE", requires = "output",
          hide_possible_values = true)]
    pub(crate) dtype: Option<Dtype>,
    /// Store the largest logits alone, this many
    #[arg(long, value_name = "K", value_parser = at_least_one, requires = "output")]
    pub(crate) top_k: Option<usize>,
    /// Hidden states to store as well, of these layers
    #[arg(long, value_name = "LAYER,..", value_delimiter = ',', requires = "output")]
    pub(crate) hidden_states: Vec<usize>,
    /// Store hidden states of every token, and not of the first alone
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
    /// Repeat for this long, and three times at least; a repeat is a pass over the rows, or several if one is short
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = number(ABOVE_ZERO))]
    pub(crate) seconds: f64,
    /// Repeat this often, however long it takes
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "seconds")]
    pub(crate) repeats: Option<usize>,
    /// Where weights, made-up rows and dropout come from
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
    /// List what each kernel and each shape of product takes on a GPU, in one more pass over the rows
    #[arg(long)]
    pub(crate) launches: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Most tokens in one forward pass [default: 4096, on a GPU 16384, or all of the made-up rows if they are more]
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
        Self { budget, seed: args.seed, launches: args.launches, batch_tokens: args.batch_tokens }
    }
}
