//! The flags of each command, in the order in which its help shows them.

use std::path::PathBuf;

use clap::Args;
use datasets::Quotes;

use super::groups::{
    ColumnArgs, ComputeArgs, DeviceArgs, FittingArgs, HubArgs, LossArgs, OutputArgs, PackingArgs, TaskArgs,
};
use super::telemetry::TelemetryArgs;
use super::values::{at_least_one, at_least_three, number, one_of};
use crate::objective::{Divergence, LossTermRecipe, SoftTarget};
use crate::recipe::{
    ABOVE_ZERO, ExportDtype, FitRecipe, HeadChoice, LayerChoice, Setting, Shape, StudentFamily, StudentRecipe, Sweep,
    ZERO_OR_MORE,
};

/// `distill finetune`: fine-tune a teacher.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill finetune --model sentence-transformers/all-MiniLM-L6-v2 \\\n      \
                        --data train.tsv --output teacher")]
pub(crate) struct FinetuneArgs {
    /// Model to start from: a folder, or a name on the Hub
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub(crate) model: String,
    /// Cut the vocabulary to the pieces that occur in the data, and all single characters
    #[arg(long, help_heading = "Model")]
    pub(crate) prune_vocabulary: bool,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) packing: PackingArgs,
    /// Training data, labelled unless --task is masked-lm: TSV, CSV, JSON, Parquet or plain text (.txt), also .gz or .zst
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    /// Validation data [default: a tenth of --data, held out by a hash of the text]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) validation: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) loss: LossArgs,
    #[command(flatten)]
    pub(crate) fitting: FittingArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Resume the interrupted training in --output
    #[arg(long, conflicts_with = "overwrite", help_heading = "Output")]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

impl FinetuneArgs {
    /// The loss terms.
    pub(crate) fn loss_terms(&self) -> anyhow::Result<Vec<LossTermRecipe>> {
        self.loss.terms(Vec::new(), 1.0)
    }

    /// Training settings.
    pub(crate) fn fit(&self) -> FitRecipe {
        self.fitting.recipe(&self.compute)
    }
}

/// `distill train`: train a student.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill train --teacher teacher --cache cache --data train.tsv \\\n      \
                        --layers 0,2,4 --prune-vocabulary --output student")]
pub(crate) struct TrainArgs {
    /// Teacher to learn from: a folder, or a name on the Hub; not needed with --cache of a classifier's answers, if the student
    /// does not start from the teacher's weights
    #[arg(long, value_name = "MODEL", required_unless_present = "cache", help_heading = "Teacher")]
    pub(crate) teacher: Option<String>,
    /// Folder written by `distill cache`; not needed with --weight-soft 0
    #[arg(long, value_name = "FOLDER", help_heading = "Teacher")]
    pub(crate) cache: Option<PathBuf>,
    /// Run the teacher beside the student instead of reading a cache. Terms on the values of tokens run it too, unless the cache
    /// has its hidden states
    #[arg(long, conflicts_with = "cache", requires = "teacher", help_heading = "Teacher")]
    pub(crate) live: bool,
    /// Accept a teacher that is no better than chance on the labelled rows
    #[arg(long, help_heading = "Teacher")]
    pub(crate) force: bool,
    /// Pretrained student: a folder, or a name on the Hub. Keeps its sizes, weights and tokenizer; gets a new head if its
    /// classes differ from the teacher's
    #[arg(long, value_name = "MODEL", help_heading = "Student")]
    pub(crate) student: Option<String>,
    /// Branch, tag or commit of --student on the Hub [default: main]
    #[arg(long, value_name = "REVISION", requires = "student", help_heading = "Student")]
    pub(crate) student_revision: Option<String>,
    /// Published sizes by name: tiny, mini, small, medium, distilbert, tinybert-4, tinybert-6, minilm-6x384,
    /// minilm-12x384 or mobilebert; flags for single sizes override it. With a head width other than the teacher's it goes with --layers random
    #[arg(long, value_parser = one_of(&Shape::ALL, Shape::name), value_name = "NAME", hide_possible_values = true,
          help_heading = "Student")]
    pub(crate) shape: Option<Shape>,
    /// Architecture of the student: distilbert, bert (to make a smaller teacher), electra (a bert whose embeddings may be
    /// narrower, see --embedding-size) or mobilebert (in its published sizes, unless the teacher is a mobilebert too) [default:
    /// the shape's, or distilbert]
    #[arg(long, value_parser = one_of(&StudentFamily::ALL, StudentFamily::name), value_name = "TYPE",
          hide_possible_values = true, help_heading = "Student")]
    pub(crate) model_type: Option<StudentFamily>,
    /// Layers that initialise the student, of its teacher or of --student: uniform (evenly spaced), first, last, or a
    /// list such as 0,2,4 counted from 0; random uses none
    #[arg(long, value_name = "LAYERS", default_value_t = StudentRecipe::DEFAULT.layers, help_heading = "Student")]
    pub(crate) layers: LayerChoice,
    /// What the student's head starts from: random, or teacher, whose classifier is copied where the widths agree, and the
    /// layer before it where both are of one type
    #[arg(long, value_parser = one_of(&HeadChoice::ALL, HeadChoice::name), value_name = "START",
          default_value_t = StudentRecipe::DEFAULT.head, hide_possible_values = true, help_heading = "Student")]
    pub(crate) head: HeadChoice,
    /// Number of encoder layers [default: as many as listed in --layers, else half the teacher's, or all of --student]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) num_layers: Option<usize>,
    /// Width of the hidden states [default: the teacher's]; a narrower student is initialised from the dimensions and
    /// heads with the largest weights
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) hidden_size: Option<usize>,
    /// Number of attention heads [default: heads as wide as the teacher's]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) num_heads: Option<usize>,
    /// Width of the feed-forward layers [default: same ratio to the hidden size as in the teacher]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) intermediate_size: Option<usize>,
    /// Width inside the layers of a mobilebert [default: the teacher's if it is a mobilebert, else 128]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) bottleneck_size: Option<usize>,
    /// Feed-forward blocks in each layer of a mobilebert [default: the teacher's if it is a mobilebert, else 4]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) stacks: Option<usize>,
    /// Width of the embeddings of an electra or a mobilebert, which are then projected to the hidden states; those of a teacher
    /// are cut to their leading directions [default: the teacher's if it is of that type, else the hidden size, or 128]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Student")]
    pub(crate) embedding_size: Option<usize>,
    /// Cut the vocabulary to the pieces that occur in the data, and all single characters
    #[arg(long, help_heading = "Student")]
    pub(crate) prune_vocabulary: bool,
    /// Training data, labels optional: TSV, CSV, JSON, Parquet or plain text (.txt), also .gz or .zst
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    /// More texts to learn from, without labels. Those that also stand in --data or --validation are left out, and none is used
    /// for validation
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) unlabelled: Option<PathBuf>,
    /// Rows without a label in an epoch for each with one, in turn; by default all of them are in every epoch
    #[arg(long, value_name = "ROWS", value_parser = number(ABOVE_ZERO), help_heading = "Data")]
    pub(crate) unlabelled_rate: Option<f64>,
    /// Validation data [default: a tenth of --data, held out by a hash of the text]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) validation: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) packing: PackingArgs,
    // These three are optional, since --tune leaves alone what is given.
    /// Softmax temperature of the soft term: teacher and student logits are divided by it [default: 4]
    #[arg(long, value_name = "T", value_parser = number(ABOVE_ZERO), help_heading = "Objective")]
    pub(crate) temperature: Option<f64>,
    /// Weight of the soft term, T^2 * KL(teacher || student); 0 turns it off [default: 0.9]
    #[arg(long, value_name = "W", value_parser = number(ZERO_OR_MORE), help_heading = "Objective")]
    pub(crate) weight_soft: Option<f64>,
    /// Weight of the hard term, cross-entropy with the labels; 0 turns it off [default: 0.1]
    #[arg(long, value_name = "W", value_parser = number(ZERO_OR_MORE), help_heading = "Objective")]
    pub(crate) weight_hard: Option<f64>,
    /// Divergence of the soft term: forward, KL(teacher || student), reverse, KL(student || teacher), or jensen-shannon
    #[arg(long, value_parser = one_of(&Divergence::ALL, Divergence::name), value_name = "NAME",
          default_value_t = Divergence::default(), hide_possible_values = true, help_heading = "Objective")]
    pub(crate) divergence: Divergence,
    /// In the soft term, subtract the mean of each row's logits and divide by their standard deviation, on both sides
    #[arg(long, help_heading = "Objective")]
    pub(crate) standardize: bool,
    /// In the soft term, exchange the logits of the teacher's first class and of the label where the two differ
    #[arg(long, help_heading = "Objective")]
    pub(crate) correct_teacher: bool,
    /// One more term, as in a recipe: logits_mse,weight=0.1 or hidden_mse,weight=1,layers="1:2,2:4" and so on, see the README;
    /// may be given several times
    #[arg(long, value_name = "TERM,KEY=VALUE..", help_heading = "Objective")]
    pub(crate) term: Vec<LossTermRecipe>,
    /// Learning rate of projections, which make the student's hidden states as wide as the teacher's for a term that compares
    /// them [default: 1e-3]
    #[arg(long, value_name = "RATE", value_parser = number(ABOVE_ZERO), help_heading = "Objective")]
    pub(crate) projection_learning_rate: Option<f64>,
    #[command(flatten)]
    pub(crate) loss: LossArgs,
    #[command(flatten)]
    pub(crate) fitting: FittingArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Resume the interrupted training in --output
    #[arg(long, conflicts_with = "overwrite", help_heading = "Output")]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

impl TrainArgs {
    /// The loss terms whose weight is above 0.
    pub(crate) fn loss_terms(&self) -> anyhow::Result<Vec<LossTermRecipe>> {
        let [soft, hard] = LossTermRecipe::DEFAULT_WEIGHTS;
        let weight_hard = self.weight_hard.unwrap_or(hard);
        let temperature = self.temperature.unwrap_or(LossTermRecipe::DEFAULT_TEMPERATURE);
        let Self { divergence, standardize, correct_teacher, .. } = *self;
        let weight_soft = self.weight_soft.unwrap_or(soft);
        let soft = SoftTarget {
            weight: weight_soft,
            temperature,
            final_weight: None,
            final_temperature: None,
            divergence,
            standardize,
            correct_teacher,
        };
        if weight_soft > 0.0 {
            return self.loss.terms([&[LossTermRecipe::SoftTarget(soft)], &self.term[..]].concat(), weight_hard);
        }
        let about = [
            ("--divergence", divergence != Divergence::default()),
            ("--standardize", standardize),
            ("--correct-teacher", correct_teacher),
        ];
        if let Some((flag, _)) = about.iter().find(|(_, given)| *given) {
            anyhow::bail!("{flag} is about the soft term, which --weight-soft 0 turns off; leave out one of the two");
        }
        self.loss.terms(self.term.clone(), weight_hard)
    }

    /// Architecture and initialisation of the student.
    pub(crate) fn student(&self) -> StudentRecipe {
        StudentRecipe {
            model: self.student.clone(),
            revision: self.student_revision.clone(),
            shape: self.shape,
            family: self.model_type,
            layers: self.layers.clone(),
            head: self.head,
            num_layers: self.num_layers,
            hidden_size: self.hidden_size,
            num_heads: self.num_heads,
            intermediate_size: self.intermediate_size,
            bottleneck_size: self.bottleneck_size,
            stacks: self.stacks,
            embedding_size: self.embedding_size,
            prune_vocabulary: self.prune_vocabulary,
            dropout: self.fitting.dropout,
        }
    }

    /// Training settings.
    pub(crate) fn fit(&self) -> FitRecipe {
        let projection_learning_rate = self.projection_learning_rate;
        FitRecipe {
            projection_learning_rate,
            unlabelled_rate: self.unlabelled_rate,
            ..self.fitting.recipe(&self.compute)
        }
    }
}

/// `distill evaluate`: measure a model.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill evaluate --model student --teacher teacher --data test.tsv")]
pub(crate) struct EvaluateArgs {
    /// Model to measure: a folder, or a name on the Hub
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub(crate) model: String,
    /// Teacher to compare with: adds the share of rows on which both predict the same label
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub(crate) teacher: Option<String>,
    /// Labelled rows to measure on: TSV, CSV, JSON or Parquet, also .gz or .zst
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// `distill export`: write a model to ship.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill export --model student --data test.tsv --dtype f16 --output export")]
pub(crate) struct ExportArgs {
    /// Folder written by `distill train` or `distill finetune`
    #[arg(long, value_name = "RUN", help_heading = "Model")]
    pub(crate) model: PathBuf,
    /// Number format of the weights: f32, f16 or bf16
    #[arg(long, value_parser = one_of(&ExportDtype::ALL, ExportDtype::name), value_name = "DTYPE",
          default_value_t = ExportDtype::F32, hide_possible_values = true, help_heading = "Model")]
    pub(crate) dtype: ExportDtype,
    /// Labelled rows to measure the exported model on, for its model card [default: report the training run's own
    /// scores]
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
    /// Print the logits (before softmax) as well
    #[arg(long, help_heading = "Output")]
    pub(crate) logits: bool,
    /// Column that holds the text, where FILE is TSV, CSV, JSON or Parquet
    #[arg(long, value_name = "NAME", requires = "file", help_heading = "Data")]
    pub(crate) text_column: Option<String>,
    /// Column that holds the second text, for text pairs [default: text_b, if there is one]
    #[arg(long, value_name = "NAME", requires = "text_column", help_heading = "Data")]
    pub(crate) pair_column: Option<String>,
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

/// `distill run`: run a recipe.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill run recipe.toml --set train.epochs=10")]
pub(crate) struct RunArgs {
    /// Recipe in TOML; paths in it are relative to the current folder
    #[arg(value_name = "RECIPE.toml")]
    pub(crate) recipe: PathBuf,
    /// Override a value of the recipe; may be given several times
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub(crate) set: Vec<Setting>,
    /// Try these values of the student, objective or train table on the validation rows first, and run with the best; given
    /// several times, all combinations. The better third goes on with more steps, until one is left (successive halving)
    #[arg(long, value_name = "KEY=A,B,..", help_heading = "Recipe")]
    pub(crate) sweep: Vec<Sweep>,
    /// Folder to write, with a subfolder for each stage [default: `output` in the recipe]
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,
    /// Start over in a folder that is not empty: replaces the files that distill writes, keeps all others
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// `distill compare`: a recipe with and without its teacher, or two recipes, over several seeds.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill compare recipe.toml --seeds 5")]
pub(crate) struct CompareArgs {
    /// Recipe in TOML; paths in it are relative to the current folder
    #[arg(value_name = "RECIPE.toml")]
    pub(crate) recipe: PathBuf,
    /// Another recipe, in place of the same one without its teacher
    #[arg(long, value_name = "RECIPE.toml", help_heading = "Recipe")]
    pub(crate) against: Option<PathBuf>,
    /// Override a value of the recipe, or of both; may be given several times
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub(crate) set: Vec<Setting>,
    /// As in `run`: values to try on the validation rows, for each side by itself, with the first seed
    #[arg(long, value_name = "KEY=A,B,..", help_heading = "Recipe")]
    pub(crate) sweep: Vec<Sweep>,
    /// Trainings of each side: seeds from the recipe's `train.seed` on
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one, help_heading = "Recipe")]
    pub(crate) seeds: usize,
    /// Folder to write; what is there already of the same trainings is kept [default: `compare` in the recipe's `output`]
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,
    /// Start over in a folder that is not empty: replaces the files that distill writes, keeps all others
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// `distill demo`: the whole pipeline on built-in data.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill demo --output demo")]
pub(crate) struct DemoArgs {
    /// Skip the baseline: the same student trained without the teacher
    #[arg(long, help_heading = "Training")]
    pub(crate) no_baseline: bool,
    /// Passes over the training data [default: as in the demo's recipe]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Training")]
    pub(crate) epochs: Option<usize>,
    /// Random seed: the same seed gives the same model
    #[arg(long, value_name = "N", default_value_t = FitRecipe::DEFAULT.seed, help_heading = "Training")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Folder to write, with subfolders teacher, cache, student, baseline and export
    #[arg(long, value_name = "FOLDER", default_value = "distill-demo", help_heading = "Output")]
    pub(crate) output: PathBuf,
    /// Start over in a folder that is not empty: replaces the files that distill writes, keeps all others
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}
