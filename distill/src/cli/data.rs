//! The flags of `distill data` and its subcommands.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use datasets::Quotes;

use super::groups::HubArgs;
use super::values::{at_least_three, one_of};
use crate::recipe::ColumnsRecipe;

/// `distill data`: look into data files, and clean them.
#[derive(Debug, Clone, Args)]
#[command(subcommand_required = true, after_help = "Example:\n  distill data inspect train.tsv --validation dev.tsv")]
pub(crate) struct DataArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) what: DataCommand,
}

/// What to do with data files.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DataCommand {
    /// Show what data files hold: labels, lengths and what --max-length cuts, repeated texts, texts that other splits have too,
    /// unknown tokens, scripts and languages
    Inspect(InspectArgs),
}

/// `distill data inspect`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  distill data inspect train.tsv --validation dev.tsv --test test.tsv --model teacher"
)]
pub(crate) struct InspectArgs {
    /// Files to look into: TSV, CSV, JSON, Parquet or plain text (.txt), also .gz or .zst
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Validation data: texts that stand there too are counted; may be given several times, as --test
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) validation: Vec<PathBuf>,
    /// Test data
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) test: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Model whose tokens are counted: a folder, or a name on the Hub; its weights are not needed. Without one, lengths are in
    /// characters
    #[arg(long, visible_alias = "tokenizer", value_name = "MODEL", help_heading = "Model")]
    pub(crate) model: Option<String>,
    /// Tokens kept of a text, special tokens included, to see what that cuts [default: the model's own limit]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_three, help_heading = "Model")]
    pub(crate) max_length: Option<usize>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

impl InspectArgs {
    /// How files are read.
    pub(crate) fn columns(&self) -> ColumnsRecipe {
        ColumnsRecipe { max_length: self.max_length, ..self.reading.columns() }
    }
}

/// How a data file is read, where nothing is trained on it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct ReadingArgs {
    /// Column of the text [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) text_column: Option<String>,
    /// Column of the second text, for text pairs [default: text_b, if there is one]
    #[arg(long, value_name = "NAME")]
    pub(crate) pair_column: Option<String>,
    /// Column that holds the label, or a list of them [default: label, or else labels, in any letters]
    #[arg(long, value_name = "NAME")]
    pub(crate) label_column: Option<String>,
    /// What stands in that column of a row without a label, besides nothing at all; -1 in many data sets
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) unlabelled_value: Option<String>,
    /// Quotes in TSV and CSV: csv (cells may stand in quotes, inner ones doubled) or none (quotes are part of a text)
    /// [default: none in TSV, csv in CSV]
    #[arg(long, value_parser = one_of(&Quotes::ALL, Quotes::name), value_name = "QUOTES", hide_possible_values = true)]
    pub(crate) quotes: Option<Quotes>,
}

impl ReadingArgs {
    pub(super) fn columns(&self) -> ColumnsRecipe {
        ColumnsRecipe {
            text_column: self.text_column.clone(),
            pair_column: self.pair_column.clone(),
            label_column: self.label_column.clone(),
            unlabelled_value: self.unlabelled_value.clone(),
            quotes: self.quotes,
            ..ColumnsRecipe::default()
        }
    }
}
