//! The flags of `distill data` and its subcommands.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use datasets::{Quotes, UnicodeForm};

use super::groups::HubArgs;
use super::values::{at_least_one, at_least_three, number, one_of};
use crate::jobs::data::select::{By, HowMany};
use crate::recipe::{AugmentRecipe, CleanRecipe, ColumnsRecipe, FRACTION, FitRecipe, PART};

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
    Inspect(Box<InspectArgs>),
    /// Clean data files into one: broken characters, HTML, white space, links, spelling; rows that stand there twice, nearly
    /// twice or in another split, in another language, too short or too long
    Clean(Box<CleanArgs>),
    /// Make new texts of those in data files, for a teacher to answer: by recombination, masking, synonyms, changes of words,
    /// mistakes, rules, templates
    Augment(Box<AugmentArgs>),
    /// Choose some rows of data files: by class, by how they stand for others, or by a cached teacher's answers, with the reason for
    /// each
    Select(Box<SelectArgs>),
}

/// `distill data inspect`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  distill data inspect train.tsv --validation dev.tsv --test test.tsv --model teacher"
)]
pub(crate) struct InspectArgs {
    /// Files to look into: TSV, CSV, JSON, Parquet or plain text (.txt), also .gz or .zst; patterns such as 'part-*.jsonl'; or -
    /// for stdin
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

/// `distill data clean`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill data clean train.tsv --usual --test test.tsv --output clean.jsonl")]
pub(crate) struct CleanArgs {
    /// Files to clean, all of whose columns are kept: TSV, CSV, JSON, Parquet or plain text (.txt), also .gz or .zst; patterns such
    /// as 'part-*.jsonl'; or - for stdin
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Validation data: rows whose texts stand there too are dropped; may be given several times, as --test
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) validation: Vec<PathBuf>,
    /// Test data
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) test: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// What suits nearly any data: --html, --mojibake, --control-characters, --unicode nfc, --whitespace and --duplicates
    #[arg(long, help_heading = "Texts")]
    pub(crate) usual: bool,
    /// Drop tags and comments, decode entities
    #[arg(long, help_heading = "Texts")]
    pub(crate) html: bool,
    /// Repair UTF-8 that was read as Windows-1252: `donâ€™t` becomes `don’t`
    #[arg(long, help_heading = "Texts")]
    pub(crate) mojibake: bool,
    /// Drop characters that cannot be seen: control characters, colours of terminals, zero-width spaces, byte order marks
    #[arg(long, help_heading = "Texts")]
    pub(crate) control_characters: bool,
    /// Make full-width letters, digits and signs ordinary ones; Chinese punctuation stays
    #[arg(long, help_heading = "Texts")]
    pub(crate) full_width: bool,
    /// Normal form of Unicode: nfc (composed accents) or nfkc (also ligatures, circled digits, all full-width forms)
    #[arg(long, value_parser = one_of(&UnicodeForm::ALL, UnicodeForm::name), value_name = "FORM", hide_possible_values = true,
          help_heading = "Texts")]
    pub(crate) unicode: Option<UnicodeForm>,
    /// Dictionary of OpenCC that maps Chinese characters or phrases, such as TSCharacters.txt (traditional to simplified); may be
    /// given several times
    #[arg(long, value_name = "FILE", help_heading = "Texts")]
    pub(crate) chinese: Vec<PathBuf>,
    /// Put this word in the place of each URL
    #[arg(long, value_name = "WORD", num_args = 0..=1, require_equals = true, default_missing_value = "[URL]",
          help_heading = "Texts")]
    pub(crate) urls: Option<String>,
    /// Put this word in the place of each e-mail address
    #[arg(long, value_name = "WORD", num_args = 0..=1, require_equals = true, default_missing_value = "[EMAIL]",
          help_heading = "Texts")]
    pub(crate) emails: Option<String>,
    /// One space between words, none at the ends
    #[arg(long, help_heading = "Texts")]
    pub(crate) whitespace: bool,
    /// Correct words in small Latin letters by this dictionary: a word and how often it occurs on each line. Words that are one
    /// token of --model stay
    #[arg(long, value_name = "FILE", help_heading = "Texts")]
    pub(crate) spelling: Option<PathBuf>,
    /// Drop rows with fewer characters
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Rows")]
    pub(crate) min_characters: Option<usize>,
    /// Drop rows with more characters
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Rows")]
    pub(crate) max_characters: Option<usize>,
    /// Drop rows with fewer tokens of --model, special ones included
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "model", help_heading = "Rows")]
    pub(crate) min_tokens: Option<usize>,
    /// Drop rows with more tokens
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "model", help_heading = "Rows")]
    pub(crate) max_tokens: Option<usize>,
    /// Drop rows of whose tokens more than this part are unknown to --model
    #[arg(long, value_name = "PART", value_parser = number(FRACTION), requires = "model", help_heading = "Rows")]
    pub(crate) max_unknown: Option<f64>,
    /// Drop rows in other languages than these, such as en,de; what cannot be told stays
    #[arg(long, value_name = "A,B,..", value_delimiter = ',', help_heading = "Rows")]
    pub(crate) languages: Vec<String>,
    /// Drop rows whose texts an earlier row has
    #[arg(long, help_heading = "Rows")]
    pub(crate) duplicates: bool,
    /// Drop rows whose texts are as similar as this to those of an earlier row with the same label: the part of their character
    /// n-grams that both have, by MinHash
    #[arg(long, value_name = "PART", num_args = 0..=1, require_equals = true, default_missing_value = "0.8",
          value_parser = number(PART), help_heading = "Rows")]
    pub(crate) near_duplicates: Option<f64>,
    /// Model whose tokenizer knows tokens and whole words: a folder, or a name on the Hub; its weights are not needed
    #[arg(long, visible_alias = "tokenizer", value_name = "MODEL", help_heading = "Model")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// File to write: .jsonl or .parquet
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) output: PathBuf,
    /// Replace the file if it exists
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,
}

impl CleanArgs {
    /// The steps. Files of other splits are given to be compared with, so that this needs no flag of its own.
    pub(crate) fn steps(&self) -> CleanRecipe {
        CleanRecipe {
            skip_bad_rows: self.reading.skip_bad_rows,
            usual: self.usual,
            html: self.html,
            mojibake: self.mojibake,
            control_characters: self.control_characters,
            full_width: self.full_width,
            unicode: self.unicode,
            chinese: self.chinese.clone(),
            urls: self.urls.clone(),
            emails: self.emails.clone(),
            whitespace: self.whitespace,
            spelling: self.spelling.clone(),
            min_characters: self.min_characters,
            max_characters: self.max_characters,
            min_tokens: self.min_tokens,
            max_tokens: self.max_tokens,
            max_unknown: self.max_unknown,
            languages: self.languages.clone(),
            shared: !(self.validation.is_empty() && self.test.is_empty()),
            duplicates: self.duplicates,
            near_duplicates: self.near_duplicates,
        }
    }
}

/// `distill data augment`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill data augment train.tsv --method recombine,copies=8 --output new.jsonl")]
pub(crate) struct AugmentArgs {
    /// Files whose rows are varied: TSV, CSV, JSON, Parquet or plain text (.txt), also .gz or .zst
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Validation data: no new text is one of these; may be given several times, as --test. Without it, nothing is made of the rows
    /// that a training would hold out
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) validation: Vec<PathBuf>,
    /// Test data
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) test: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// A way to make new texts: recombine, mask, fragment, synonyms, insert, swap, delete, replace, characters, keyboard, ocr,
    /// sentences, rules or templates, with the settings of a recipe behind it, see the README; may be given several times
    #[arg(long, value_name = "METHOD,KEY=VALUE..", required = true, help_heading = "Texts")]
    pub(crate) method: Vec<AugmentRecipe>,
    /// Words of Chinese texts, as in jieba's dict.txt; without it, each character is one
    #[arg(long, value_name = "FILE", help_heading = "Texts")]
    pub(crate) dictionary: Option<PathBuf>,
    /// Seed of what is drawn
    #[arg(long, value_name = "N", default_value_t = FitRecipe::DEFAULT.seed, help_heading = "Texts")]
    pub(crate) seed: u64,
    /// Vary the rows, too, that a training holds out for validation
    #[arg(long, help_heading = "Texts")]
    pub(crate) all_rows: bool,
    /// Give each new text the label of the one that it was made of, which may be wrong: a teacher's answer is better. Train on them
    /// with --validation, since a part of them would be held out beside the texts they were made of
    #[arg(long, help_heading = "Texts")]
    pub(crate) copy_labels: bool,
    /// Model whose mask token `mask` puts in: a folder, or a name on the Hub; its weights are not needed [default: BERT's]
    #[arg(long, visible_alias = "tokenizer", value_name = "MODEL", help_heading = "Model")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// File to write: .jsonl or .parquet
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) output: PathBuf,
    /// Replace the file if it exists
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,
}

/// `distill data select`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  distill data select train.tsv --by label-noise --cache cache --output doubtful.jsonl"
)]
#[command(group = clap::ArgGroup::new("how many").args(["count", "part"]))]
pub(crate) struct SelectArgs {
    /// Files to choose from: TSV, CSV, JSON, Parquet or plain text (.txt), also .gz or .zst. All their columns are kept
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// What rows are chosen by: random, stratified (as large a part of each class), balanced (as many of each class),
    /// representative (the others are similar to them), diverse (they differ from each other); by the teacher: margin or entropy
    /// (it is unsure), loss (it gives the label little probability), label-noise (it is sure of another class than the label)
    #[arg(long, value_parser = one_of(&By::ALL, By::name), value_name = "NAME", hide_possible_values = true,
          help_heading = "Rows")]
    pub(crate) by: By,
    /// So many rows; with label-noise at most so many [default: all doubtful ones]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Rows")]
    pub(crate) count: Option<usize>,
    /// So large a part of the rows
    #[arg(long, value_name = "PART", value_parser = number(PART), help_heading = "Rows")]
    pub(crate) part: Option<f64>,
    /// Take the other end of the teacher's order: what it is sure of
    #[arg(long, help_heading = "Rows")]
    pub(crate) reverse: bool,
    /// Choose within each class, as large a part of each
    #[arg(long, help_heading = "Rows")]
    pub(crate) per_class: bool,
    /// The teacher's answers: a folder written by `distill cache`, which has all logits
    #[arg(long, value_name = "FOLDER", help_heading = "Rows")]
    pub(crate) cache: Option<PathBuf>,
    /// Seed of what is drawn
    #[arg(long, value_name = "N", default_value_t = FitRecipe::DEFAULT.seed, help_heading = "Rows")]
    pub(crate) seed: u64,
    /// File to write, .jsonl or .parquet: the rows in the order of their worth (with --per-class, class by class), each with its
    /// `reason`
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) output: PathBuf,
    /// File for the rows that are not chosen, in their order
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) rest: Option<PathBuf>,
    /// Replace the files if they exist
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,
}

impl SelectArgs {
    /// How many rows are asked for.
    pub(crate) fn how_many(&self) -> HowMany {
        let count = self.count.map(HowMany::Count);
        count.or(self.part.map(HowMany::Part)).unwrap_or(HowMany::Suspected)
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
    /// Format of stdin, by its extension: jsonl, json, tsv, csv, txt, also with .gz or .zst behind it
    #[arg(long, value_name = "EXTENSION", default_value = "jsonl")]
    pub(crate) stdin_format: String,
    /// Skip rows that cannot be read: no text, a wrong type, too many columns, no JSON, no UTF-8. They are counted, and the first
    /// ones shown
    #[arg(long)]
    pub(crate) skip_bad_rows: bool,
}

impl ReadingArgs {
    /// How files are read.
    pub(crate) fn columns(&self) -> ColumnsRecipe {
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
