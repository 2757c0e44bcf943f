//! The flags of `distill cache` and its subcommands.

use std::path::{Path, PathBuf};

use cache::{Dtype, Quantity};
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::groups::{ColumnArgs, ComputeArgs, HubArgs, OutputArgs, TaskArgs};
use super::telemetry::TraceArgs;
use super::values::{QUANTITIES, STORED_DTYPES, at_least_one, number, one_of, quantity_name, stored_name};
use crate::jobs::capture::{Asking, ExistingCache, StoredForm};
use crate::recipe::ABOVE_ZERO;

/// `distill cache`: store a teacher's outputs, or manage a cache.
#[derive(Debug, Clone)]
pub(crate) enum CacheArgs {
    /// Without a subcommand: run the teacher.
    Capture(Box<CaptureArgs>),
    /// With a subcommand: work on an existing cache.
    Stored(CacheCommand),
}

// By hand: clap's derive cannot express "either a subcommand or these flags".
impl Args for CacheArgs {
    fn augment_args(command: Command) -> Command {
        CacheCommand::augment_subcommands(CaptureArgs::augment_args(command))
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for CacheArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(match matches.subcommand() {
            None => Self::Capture(Box::new(CaptureArgs::from_arg_matches(matches)?)),
            Some(_) => Self::Stored(CacheCommand::from_arg_matches(matches)?),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What to do with an existing cache.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show what a cache holds: rows, bytes, fingerprint, entropy; with --data, how many of its rows are cached and how
    /// accurate the teacher is on them
    Inspect(InspectArgs),
    /// Check all checksums of a cache and list damaged files and blocks
    Verify(VerifyArgs),
    /// Estimate size and time of a capture from a short trial run
    Estimate(Box<EstimateArgs>),
    /// Make a cache of answers that something else computed: JSONL, CSV, TSV or Parquet
    Import(Box<ImportArgs>),
    /// Make one cache of several: the rows that several machines captured, or the mean of several teachers
    Merge(Box<MergeArgs>),
    /// Write a cache as a Parquet file, for pandas and polars
    Export(CacheExportArgs),
    /// Rewrite a cache into few large shards; with --data, drop all rows that are not in it
    Gc(GcArgs),
}

/// `distill cache` without a subcommand: run a teacher.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill cache --teacher teacher --data train.tsv --output cache")]
pub(crate) struct CaptureArgs {
    /// Teacher to run: a folder, or a name on the Hub
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub(crate) teacher: String,
    /// Accept a teacher that is no better than chance on the labelled rows
    #[arg(long, help_heading = "Model")]
    pub(crate) force: bool,
    /// Rows to run the teacher on, labels optional: TSV, CSV, JSON, Parquet or plain text (.txt), also .gz or .zst
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) stored: StoredArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    /// Update a cache that was made with another teacher, maximum length or form of storage; only what is stale is
    /// recomputed
    #[arg(long, conflicts_with = "overwrite", help_heading = "Output")]
    pub(crate) refresh: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

impl CaptureArgs {
    /// Teacher, rows, task and what to store.
    pub(crate) fn asking(&self) -> anyhow::Result<Asking> {
        asking(&self.teacher, &self.data, &self.columns, self.task, &self.stored, &self.compute, &self.hub)
    }

    /// What to do if the folder already holds a cache.
    pub(crate) fn existing(&self) -> ExistingCache {
        match (self.refresh, self.output.overwrite) {
            (true, _) => ExistingCache::Refresh,
            (false, true) => ExistingCache::Overwrite,
            (false, false) => ExistingCache::Resume,
        }
    }
}

impl EstimateArgs {
    /// Teacher, rows, task and what to store.
    pub(crate) fn asking(&self) -> anyhow::Result<Asking> {
        asking(&self.teacher, &self.data, &self.columns, self.task, &self.stored, &self.compute, &self.hub)
    }
}

fn asking(
    teacher: &str,
    data: &Path,
    columns: &ColumnArgs,
    task: TaskArgs,
    stored: &StoredArgs,
    compute: &ComputeArgs,
    hub: &HubArgs,
) -> anyhow::Result<Asking> {
    Ok(Asking {
        teacher: teacher.to_owned(),
        hub: hub.clone().into(),
        data: data.to_owned(),
        columns: columns.into(),
        task: task.task(stored.seed)?,
        stored: stored.clone().into(),
        batch_tokens: compute.batch_tokens,
    })
}

/// What is stored for each row.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What is stored")]
pub(crate) struct StoredArgs {
    /// Number format of the logits: f32, f16 or bf16 [default: f32; f16 with masked-lm]
    #[arg(long, value_parser = one_of(&STORED_DTYPES, stored_name), value_name = "DTYPE", hide_possible_values = true)]
    pub(crate) dtype: Option<Dtype>,
    /// Store only the K largest logits, and for each of --temperatures the others' share of the softmax [default: all
    /// logits; K = 64 with masked-lm]
    #[arg(long, value_name = "K", value_parser = at_least_one, conflicts_with = "sample")]
    pub(crate) top_k: Option<usize>,
    /// Temperatures at which a student can be trained with --top-k, comma-separated [default: 1,2,4]
    #[arg(long, value_name = "T,..", value_delimiter = ',', value_parser = number(ABOVE_ZERO), conflicts_with = "sample")]
    pub(crate) temperatures: Vec<f64>,
    /// Instead of logits, store this many classes sampled from the softmax, with replacement
    #[arg(long, value_name = "DRAWS", value_parser = at_least_one, conflicts_with = "dtype")]
    pub(crate) sample: Option<usize>,
    /// Temperature of the softmax that --sample draws from, and the only one a student can be trained at
    #[arg(long, value_name = "T", default_value = "1.0", value_parser = number(ABOVE_ZERO), requires = "sample")]
    pub(crate) sample_temperature: f64,
    /// Random seed of --sample and of the masks of masked-lm
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
    /// Store hidden states of these layers as well: 0 is the output of the embeddings, 1 that of the first layer
    #[arg(long, value_name = "LAYER,..", value_delimiter = ',')]
    pub(crate) hidden_states: Vec<usize>,
    /// Store hidden states of every token, not only of the first
    #[arg(long, requires = "hidden_states")]
    pub(crate) all_tokens: bool,
}

impl From<StoredArgs> for StoredForm {
    fn from(args: StoredArgs) -> Self {
        Self {
            dtype: args.dtype,
            top_k: args.top_k,
            temperatures: args.temperatures,
            sample: args.sample,
            sample_temperature: args.sample_temperature,
            seed: args.seed,
            hidden_states: args.hidden_states,
            all_tokens: args.all_tokens,
        }
    }
}

/// `distill cache inspect`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill cache inspect cache --data train.tsv")]
pub(crate) struct InspectArgs {
    /// Folder of the cache
    #[arg(value_name = "DIR")]
    pub(crate) cache: PathBuf,
    /// Rows to look up: reports how many are cached and the teacher's accuracy on those with labels
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
}

/// `distill cache verify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill cache verify cache")]
pub(crate) struct VerifyArgs {
    /// Folder of the cache
    #[arg(value_name = "DIR")]
    pub(crate) cache: PathBuf,
}

/// `distill cache estimate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill cache estimate --teacher teacher --data train.tsv")]
pub(crate) struct EstimateArgs {
    /// Teacher to time: a folder, or a name on the Hub
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub(crate) teacher: String,
    /// Rows that the capture would cover
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) stored: StoredArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Duration of the trial run
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = number(ABOVE_ZERO), help_heading = "Measurement")]
    pub(crate) probe_seconds: f64,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// `distill cache merge`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill cache merge cache-a cache-b --output cache")]
pub(crate) struct MergeArgs {
    /// Folders of the caches; a row that is in several is taken from the first
    #[arg(value_name = "DIR", required = true)]
    pub(crate) caches: Vec<PathBuf>,
    /// Make one teacher of several with the same classes: store the mean of their probabilities at temperature 1, or with
    /// --average=logits of their logits
    #[arg(long, value_parser = one_of(&QUANTITIES, quantity_name), value_name = "WHAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "probabilities", hide_possible_values = true, help_heading = "Average")]
    pub(crate) average: Option<Quantity>,
    /// How much each cache counts in the mean, with commas between them, in any scale [default: all alike]
    #[arg(long, value_name = "W,..", value_delimiter = ',', value_parser = number(ABOVE_ZERO), requires = "average",
          help_heading = "Average")]
    pub(crate) weights: Vec<f64>,
    /// Let a teacher count for more in the rows that it is sure of: each weight is divided by the entropy of its answer
    #[arg(long, requires = "average", conflicts_with = "by_labels", help_heading = "Average")]
    pub(crate) by_confidence: bool,
    /// Let a teacher count for more in the rows that it answers right, by the labels of this file; other rows are averaged
    /// as without it
    #[arg(long, value_name = "FILE", requires = "average", help_heading = "Average")]
    pub(crate) by_labels: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    /// Leave out rows that are not in all caches, instead of refusing them
    #[arg(long, requires = "average", help_heading = "Average")]
    pub(crate) intersection: bool,
    /// Folder to write; resumes a merge that was interrupted there
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) output: PathBuf,
}

/// `distill cache import`.
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "distill cache import [OPTIONS] --data <FILE> --probabilities|--logits <COL> --output <FOLDER>",
    after_help = "Example:\n  distill cache import --data answers.csv --probabilities 'p_*' --output cache"
)]
pub(crate) struct ImportArgs {
    /// Texts with answers: JSON, CSV or TSV, plain or compressed, or Parquet; may be given several times
    #[arg(long, value_name = "FILE", required = true, help_heading = "Data")]
    pub(crate) data: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) answers: AnswerArgs,
    /// Go on with answers that are no better than chance on the labelled rows, or with logits that sum to 1
    #[arg(long, help_heading = "Answers")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Where the answers stand, and what they are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Answers")]
#[group(required = true, multiple = false)]
pub(crate) struct AnswerArgs {
    /// Column of the probabilities of all classes: a JSON list in the order of --label-names, or an object
    /// {"class": number}; or a column for each class: 'p_*' for all that begin with p_, '*' for all that are left, or
    /// their names with commas between them. They sum to 1, by at most 0.001 more or less; 0 counts as 1e-38
    #[arg(long, value_name = "COLUMN")]
    pub(crate) probabilities: Option<String>,
    /// Column of logits, in the same forms; logarithms of probabilities are logits too
    #[arg(long, value_name = "COLUMN")]
    pub(crate) logits: Option<String>,
}

impl AnswerArgs {
    /// What the numbers are, and the column that they stand in.
    pub(crate) fn given(&self) -> (Quantity, &str) {
        match (&self.logits, &self.probabilities) {
            (Some(column), _) => (Quantity::Logits, column),
            (None, column) => (Quantity::Probabilities, column.as_deref().unwrap_or_default()),
        }
    }
}

/// `distill cache export`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill cache export cache --output cache.parquet")]
pub(crate) struct CacheExportArgs {
    /// Folder of the cache
    #[arg(value_name = "DIR")]
    pub(crate) cache: PathBuf,
    /// Parquet file to write
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) output: PathBuf,
    /// Replace the file if it exists
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,
}

/// `distill cache gc`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill cache gc cache --data train.tsv")]
pub(crate) struct GcArgs {
    /// Folder of the cache
    #[arg(value_name = "DIR")]
    pub(crate) cache: PathBuf,
    /// Keep only the rows of this file, as truncated to the cache's current length; may be given several times
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
}
