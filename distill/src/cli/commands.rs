//! The flags of each command, in the order in which its help shows them.

use std::path::PathBuf;

use clap::Args;
use datasets::Quotes;

use super::groups::{ColumnArgs, ComputeArgs, DeviceArgs, FittingArgs, HubArgs, OutputArgs, TaskArgs};
use super::values::{at_least_one, at_least_three, number, one_of};
use crate::objective::LossTermRecipe;
use crate::recipe::{
    ABOVE_ZERO, ExportDtype, FitRecipe, LayerChoice, Setting, StudentFamily, StudentRecipe, ZERO_OR_MORE,
};

/// `distill finetune`: make a teacher.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill finetune --model sentence-transformers/all-MiniLM-L6-v2 \\\n      \
                        --data train.tsv --output teacher")]
pub(crate) struct FinetuneArgs {
    /// Model to start from: a folder, or a name on the Hub
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub(crate) model: String,
    /// Keep only the word pieces that the data uses and every single character
    #[arg(long, help_heading = "Model")]
    pub(crate) prune_vocabulary: bool,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// Rows to learn from, labelled unless --task is masked-lm: TSV, CSV, JSONL or text, plain or gzipped
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    /// Rows to validate on [default: a tenth of --data, chosen by a hash of the text]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) validation: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    /// Times that every row is learned from
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one, help_heading = "Training")]
    pub(crate) epochs: usize,
    /// Highest learning rate, reached at the end of the warm-up
    #[arg(long, value_name = "RATE", default_value = "5e-5", value_parser = number(ABOVE_ZERO), help_heading = "Training")]
    pub(crate) learning_rate: f64,
    #[command(flatten)]
    pub(crate) fitting: FittingArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Continue the training that was stopped in --output
    #[arg(long, conflicts_with = "overwrite", help_heading = "Output")]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

impl FinetuneArgs {
    /// How the model is fitted.
    pub(crate) fn fit(&self) -> FitRecipe {
        self.fitting.recipe(self.epochs, self.learning_rate, &self.compute)
    }
}

/// `distill train`: train a student.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill train --teacher teacher --cache cache --data train.tsv \\\n      \
                        --layers 0,2,4 --prune-vocabulary --output student")]
pub(crate) struct TrainArgs {
    /// Teacher to learn from: a folder, or a name on the Hub
    #[arg(long, value_name = "MODEL", help_heading = "Teacher")]
    pub(crate) teacher: String,
    /// Folder that `distill cache` wrote; not needed with --weight-soft 0
    #[arg(long, value_name = "FOLDER", help_heading = "Teacher")]
    pub(crate) cache: Option<PathBuf>,
    /// Go on with a teacher that is no better than chance on the labelled rows
    #[arg(long, help_heading = "Teacher")]
    pub(crate) force: bool,
    /// Kind of student: distilbert, bert for one that is to teach in its turn, or mobilebert, in its published sizes unless
    /// its teacher is one
    #[arg(long, value_parser = one_of(&StudentFamily::ALL, StudentFamily::name), value_name = "TYPE",
          default_value_t = StudentFamily::DistilBert, hide_possible_values = true, help_heading = "Student")]
    pub(crate) model_type: StudentFamily,
    /// Teacher layers to start from: uniform, first, last, random (none of them) or a list such as 0,2,4
    #[arg(long, value_name = "LAYERS", default_value_t = LayerChoice::Uniform, help_heading = "Student")]
    pub(crate) layers: LayerChoice,
    /// Layers of the student [default: as many as listed in --layers, or half the teacher's]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) num_layers: Option<usize>,
    /// Width of the student [default: the teacher's]; a narrower one starts from the parts that matter most
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) hidden_size: Option<usize>,
    /// Attention heads of the student [default: as many as make a head as wide as the teacher's]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) num_heads: Option<usize>,
    /// Width inside the feed-forward blocks [default: in the teacher's proportion to the width]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) intermediate_size: Option<usize>,
    /// Width inside the layers of a mobilebert [default: 128, or its teacher's]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) bottleneck_size: Option<usize>,
    /// Feed-forward blocks in each layer of a mobilebert [default: 4, or its teacher's]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) stacks: Option<usize>,
    /// Keep only the word pieces that the data uses and every single character
    #[arg(long, help_heading = "Student")]
    pub(crate) prune_vocabulary: bool,
    /// Rows to learn from, labels optional: TSV, CSV, JSONL or text, plain or gzipped
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    /// Rows to validate on [default: a tenth of --data, chosen by a hash of the text]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) validation: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    /// Softening of both distributions in the soft term: logits are divided by it
    #[arg(long, value_name = "T", default_value = "2.0", value_parser = number(ABOVE_ZERO), help_heading = "Objective")]
    pub(crate) temperature: f64,
    /// Weight of the soft term, T^2 * KL(teacher || student); 0 leaves it out
    #[arg(long, value_name = "W", default_value_t = 0.5, value_parser = number(ZERO_OR_MORE), help_heading = "Objective")]
    pub(crate) weight_soft: f64,
    /// Weight of the hard term, cross-entropy with the labels; 0 leaves it out
    #[arg(long, value_name = "W", default_value_t = 0.5, value_parser = number(ZERO_OR_MORE), help_heading = "Objective")]
    pub(crate) weight_hard: f64,
    /// Times that every row is learned from
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one, help_heading = "Training")]
    pub(crate) epochs: usize,
    /// Highest learning rate, reached at the end of the warm-up
    #[arg(long, value_name = "RATE", default_value = "1e-4", value_parser = number(ABOVE_ZERO), help_heading = "Training")]
    pub(crate) learning_rate: f64,
    #[command(flatten)]
    pub(crate) fitting: FittingArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Continue the training that was stopped in --output
    #[arg(long, conflicts_with = "overwrite", help_heading = "Output")]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

impl TrainArgs {
    /// The terms that the weights ask for; a weight of 0 leaves its term out.
    pub(crate) fn loss_terms(&self) -> Vec<LossTermRecipe> {
        let soft = LossTermRecipe::SoftTarget { weight: self.weight_soft, temperature: self.temperature };
        let hard = LossTermRecipe::HardLabel { weight: self.weight_hard };
        [soft, hard].into_iter().filter(|term| term.weight() > 0.0).collect()
    }

    /// The student.
    pub(crate) fn student(&self) -> StudentRecipe {
        StudentRecipe {
            family: self.model_type,
            layers: self.layers.clone(),
            num_layers: self.num_layers,
            hidden_size: self.hidden_size,
            num_heads: self.num_heads,
            intermediate_size: self.intermediate_size,
            bottleneck_size: self.bottleneck_size,
            stacks: self.stacks,
            prune_vocabulary: self.prune_vocabulary,
            dropout: self.fitting.dropout,
        }
    }

    /// How it is fitted.
    pub(crate) fn fit(&self) -> FitRecipe {
        self.fitting.recipe(self.epochs, self.learning_rate, &self.compute)
    }
}

/// `distill evaluate`: measure a model.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill evaluate --model student --teacher teacher --data test.tsv")]
pub(crate) struct EvaluateArgs {
    /// Model to measure: a folder, or a name on the Hub
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub(crate) model: String,
    /// Teacher to compare it with: adds how often the two agree
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub(crate) teacher: Option<String>,
    /// Rows to measure on: TSV, CSV or JSONL, plain or gzipped
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// `distill export`: write what ships.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill export --model student --data test.tsv --dtype f16 --output export")]
pub(crate) struct ExportArgs {
    /// Folder that `distill train` or `distill finetune` wrote
    #[arg(long, value_name = "RUN", help_heading = "Model")]
    pub(crate) model: PathBuf,
    /// Number format of the weights: f32, f16 or bf16
    #[arg(long, value_parser = one_of(&ExportDtype::ALL, ExportDtype::name), value_name = "DTYPE",
          default_value_t = ExportDtype::F32, hide_possible_values = true, help_heading = "Model")]
    pub(crate) dtype: ExportDtype,
    /// Rows to measure the exported model on, for its card [default: the figures of the run]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `distill predict`: classify text.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  echo \"my card has not arrived\" | distill predict --model export --json")]
pub(crate) struct PredictArgs {
    /// Text to classify, one a line, or with --text-column a table [default: stdin]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Model to use: a folder, or a name on the Hub
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub(crate) model: String,
    /// Add the logits, from before the softmax
    #[arg(long, help_heading = "Output")]
    pub(crate) logits: bool,
    /// Column that holds the text, where FILE is TSV, CSV or JSONL
    #[arg(long, value_name = "NAME", requires = "file", help_heading = "Data")]
    pub(crate) text_column: Option<String>,
    /// Quotes in TSV and CSV: csv (cells may stand in quotes, inner ones doubled) or none (quotes are part of a text)
    /// [default: none in TSV, csv in CSV]
    #[arg(long, value_parser = one_of(&Quotes::ALL, Quotes::name), value_name = "QUOTES", hide_possible_values = true,
          requires = "text_column", help_heading = "Data")]
    pub(crate) quotes: Option<Quotes>,
    /// Tokens kept of a text, special tokens included [default: 128, or the model's own limit if lower]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_three, help_heading = "Data")]
    pub(crate) max_length: Option<usize>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// `distill run`: do what a recipe says.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill run recipe.toml --set train.epochs=10")]
pub(crate) struct RunArgs {
    /// What to compute, as TOML; paths in it are taken from the folder you are in
    #[arg(value_name = "RECIPE.toml")]
    pub(crate) recipe: PathBuf,
    /// Put another value into the recipe; may be given several times
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub(crate) set: Vec<Setting>,
    /// Folder to write, one folder a stage in it [default: the recipe's]
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,
    /// Start afresh in a folder that holds something: replaces what distill writes there, keeps other files
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// `distill demo`: all of it on what the program carries.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill demo --output demo")]
pub(crate) struct DemoArgs {
    /// Leave out the same student trained without the teacher
    #[arg(long, help_heading = "Training")]
    pub(crate) no_baseline: bool,
    /// Times that every row is learned from [default: the demo's recipe]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Training")]
    pub(crate) epochs: Option<usize>,
    /// Where all randomness comes from: the same seed gives the same model
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Training")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Folder to write: teacher, cache, student, baseline and export
    #[arg(long, value_name = "FOLDER", default_value = "distill-demo", help_heading = "Output")]
    pub(crate) output: PathBuf,
    /// Start afresh in a folder that holds something: replaces what distill writes there, keeps other files
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,
}
