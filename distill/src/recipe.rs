//! What is to be computed: the parts of a recipe file, which the flags of recipe-less commands map to as well.

use std::path::PathBuf;

use datasets::Task;
use serde::{Deserialize, Serialize};
use student::start::Sizes;

use crate::cli::{ColumnArgs, ComputeArgs, ExportDtype, FittingArgs, Keep, LayerChoice, StudentFamily};
use crate::objective::{LossTermRecipe, Objective};

/// A recipe file, as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    /// Folder to write, one folder a stage in it.
    pub(crate) output: Option<PathBuf>,
    pub(crate) teacher: TeacherRecipe,
    pub(crate) data: DataRecipe,
    #[serde(default)]
    pub(crate) student: StudentRecipe,
    #[serde(default = "default_objective")]
    pub(crate) objective: Vec<LossTermRecipe>,
    #[serde(default)]
    pub(crate) train: FitRecipe,
    #[serde(default)]
    pub(crate) export: ExportRecipe,
}

impl Recipe {
    /// Refuses values that no training survives, naming the key; the flags of the same meaning are checked as they are
    /// read.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let (train, student) = (&self.train, &self.student);
        let sizes = [
            ("train.epochs", Some(train.epochs)),
            ("train.batch_rows", Some(train.batch_rows)),
            ("train.batch_tokens", Some(train.batch_tokens)),
            ("train.evaluate_every", Some(train.evaluate_every)),
            ("student.num_layers", student.num_layers),
            ("student.hidden_size", student.hidden_size),
            ("student.num_heads", student.num_heads),
            ("student.intermediate_size", student.intermediate_size),
            ("student.bottleneck_size", student.bottleneck_size),
            ("student.stacks", student.stacks),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == Some(0)) {
            anyhow::bail!("the recipe's {key} is 0, expected at least 1");
        }
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let rate = |value: f64| (0.0..1.0).contains(&value);
        let numbers = [
            ("train.learning_rate", train.learning_rate, positive(train.learning_rate), "above 0"),
            ("train.max_gradient_norm", train.max_gradient_norm, positive(train.max_gradient_norm), "above 0"),
            (
                "train.weight_decay",
                train.weight_decay,
                train.weight_decay == 0.0 || positive(train.weight_decay),
                "0 or above",
            ),
            ("train.warmup_ratio", train.warmup_ratio, (0.0..=1.0).contains(&train.warmup_ratio), "from 0 to 1"),
            ("student.dropout", student.dropout, rate(student.dropout), "from 0 up to, not including, 1"),
        ];
        if let Some((key, value, _, expected)) = numbers.iter().find(|(_, _, good, _)| !good) {
            anyhow::bail!("the recipe's {key} is {value}, expected a number {expected}");
        }
        Objective::new(Task::SingleLabel, self.objective.clone())?;
        Ok(())
    }
}

/// Who teaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TeacherRecipe {
    /// A folder, or a name on the Hub.
    pub(crate) model: String,
    /// Branch, tag or commit on the Hub.
    pub(crate) revision: Option<String>,
    /// Goes on with a teacher that is no better than chance.
    #[serde(default)]
    pub(crate) force: bool,
}

/// What is learned from and measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataRecipe {
    pub(crate) train: PathBuf,
    pub(crate) validation: Option<PathBuf>,
    /// Rows for the final figures; the validation rows where there are none.
    pub(crate) test: Option<PathBuf>,
    pub(crate) text_column: Option<String>,
    pub(crate) pair_column: Option<String>,
    pub(crate) label_column: Option<String>,
    #[serde(default)]
    pub(crate) label_names: Vec<String>,
    pub(crate) max_length: Option<usize>,
}

impl DataRecipe {
    pub(crate) fn columns(&self) -> ColumnsRecipe {
        ColumnsRecipe {
            text_column: self.text_column.clone(),
            pair_column: self.pair_column.clone(),
            label_column: self.label_column.clone(),
            label_names: self.label_names.clone(),
            max_length: self.max_length,
        }
    }
}

/// How a data file is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ColumnsRecipe {
    pub(crate) text_column: Option<String>,
    pub(crate) pair_column: Option<String>,
    pub(crate) label_column: Option<String>,
    pub(crate) label_names: Vec<String>,
    pub(crate) max_length: Option<usize>,
}

impl From<&ColumnArgs> for ColumnsRecipe {
    fn from(args: &ColumnArgs) -> Self {
        Self {
            text_column: args.text_column.clone(),
            pair_column: args.pair_column.clone(),
            label_column: args.label_column.clone(),
            label_names: args.label_names.clone(),
            max_length: args.max_length,
        }
    }
}

/// What the student looks like, and what it starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StudentRecipe {
    pub(crate) family: StudentFamily,
    pub(crate) layers: LayerChoice,
    /// Half the teacher's, or as many as are listed, where not given.
    pub(crate) num_layers: Option<usize>,
    pub(crate) hidden_size: Option<usize>,
    pub(crate) num_heads: Option<usize>,
    pub(crate) intermediate_size: Option<usize>,
    pub(crate) bottleneck_size: Option<usize>,
    pub(crate) stacks: Option<usize>,
    pub(crate) prune_vocabulary: bool,
    pub(crate) dropout: f64,
}

impl Default for StudentRecipe {
    fn default() -> Self {
        Self {
            family: StudentFamily::DistilBert,
            layers: LayerChoice::Uniform,
            num_layers: None,
            hidden_size: None,
            num_heads: None,
            intermediate_size: None,
            bottleneck_size: None,
            stacks: None,
            prune_vocabulary: false,
            dropout: 0.1,
        }
    }
}

impl StudentRecipe {
    /// The sizes that are given.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            num_layers: self.num_layers,
            hidden_size: self.hidden_size,
            num_heads: self.num_heads,
            intermediate_size: self.intermediate_size,
            bottleneck_size: self.bottleneck_size,
            feed_forwards: self.stacks,
        }
    }
}

/// How a model is fitted, whatever it is fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FitRecipe {
    pub(crate) epochs: usize,
    pub(crate) batch_rows: usize,
    /// Most tokens in one forward pass.
    pub(crate) batch_tokens: usize,
    pub(crate) learning_rate: f64,
    pub(crate) weight_decay: f64,
    pub(crate) warmup_ratio: f64,
    pub(crate) max_gradient_norm: f64,
    pub(crate) keep: Keep,
    /// Epochs between two evaluations.
    pub(crate) evaluate_every: usize,
    pub(crate) seed: u64,
}

impl Default for FitRecipe {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch_rows: 32,
            batch_tokens: 4096,
            learning_rate: 1e-4,
            weight_decay: 0.01,
            warmup_ratio: 0.06,
            max_gradient_norm: 1.0,
            keep: Keep::Best,
            evaluate_every: 1,
            seed: 42,
        }
    }
}

impl FitRecipe {
    /// The recipe that the flags of `finetune` and `train` spell.
    pub(crate) fn of(epochs: usize, learning_rate: f64, fitting: &FittingArgs, compute: &ComputeArgs) -> Self {
        Self {
            epochs,
            batch_rows: fitting.batch_rows,
            batch_tokens: compute.batch_tokens,
            learning_rate,
            weight_decay: fitting.weight_decay,
            warmup_ratio: fitting.warmup_ratio,
            max_gradient_norm: fitting.max_gradient_norm,
            keep: fitting.keep,
            evaluate_every: fitting.evaluate_every,
            seed: fitting.seed,
        }
    }
}

/// What ships.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExportRecipe {
    pub(crate) dtype: ExportDtype,
}

impl Default for ExportRecipe {
    fn default() -> Self {
        Self { dtype: ExportDtype::F32 }
    }
}

fn default_objective() -> Vec<LossTermRecipe> {
    vec![LossTermRecipe::SoftTarget { weight: 0.5, temperature: 2.0 }, LossTermRecipe::HardLabel { weight: 0.5 }]
}
