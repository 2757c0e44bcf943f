//! The command line, parsed by clap: one struct per command, in [`commands`] (those of `bench` and `cache` in files of
//! their own); flags that commands share, in [`groups`]; parsers of values, in [`values`]. Each struct comes with its
//! conversion to a recipe or a job, which know nothing of flags.

mod bench;
mod cache;
mod commands;
mod data;
mod groups;
mod plot;
mod propose;
mod telemetry;
mod values;

pub(crate) use bench::{BenchArgs, BenchCommand};
pub(crate) use cache::{CacheArgs, CacheCommand};
pub(crate) use commands::{
    CompareArgs, DemoArgs, EvaluateArgs, ExportArgs, FinetuneArgs, PredictArgs, RunArgs, TrainArgs,
};
pub(crate) use data::{DataArgs, DataCommand};
pub(crate) use plot::PlotArgs;
pub(crate) use propose::ProposeArgs;

use std::path::Path;

use clap::{ArgAction, Parser, Subcommand};

/// Distils a large text classifier into a small one: fine-tune a teacher, cache its logits, train a student, export it.
#[derive(Debug, Parser)]
#[command(
    name = "distill",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_flag = true,
    disable_version_flag = true,
    max_term_width = 120,
    after_help = "Example:\n  distill demo"
)]
pub(crate) struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Flags that every command takes.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = "General", display_order = 903)]
    version: Option<bool>,
}

/// A command with its flags.
#[expect(clippy::large_enum_variant, reason = "a program has one of them")]
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look into data files and clean them: labels, lengths, repeated texts, broken characters
    Data(DataArgs),
    /// Fine-tune a pretrained model, to be the teacher
    Finetune(FinetuneArgs),
    /// Run a teacher over a data set and store its logits; manage stored caches
    Cache(CacheArgs),
    /// List students that fit: their parameters, bytes and time a text, and the flags that make them
    Propose(ProposeArgs),
    /// Train a student on a teacher's cached logits and on labels
    Train(TrainArgs),
    /// Draw the losses, scores and learning rates of training runs as one picture
    Plot(PlotArgs),
    /// Measure a model on labelled text: accuracy, macro-F1 (over the classes that occur), calibration, size and speed
    Evaluate(EvaluateArgs),
    /// Write a trained model as a folder that Hugging Face transformers loads, with a model card
    Export(ExportArgs),
    /// Classify text, one line at a time: label and probabilities
    Predict(PredictArgs),
    /// Measure speed on this machine: teacher, training steps, cache; check the GPU's kernels
    Bench(BenchArgs),
    /// Cache, train, evaluate and export, as described in a recipe file
    Run(RunArgs),
    /// Compare a recipe with and without its teacher, or with another recipe, over several seeds
    Compare(CompareArgs),
    /// Run the whole pipeline on a built-in data set and teacher; needs no downloads
    Demo(DemoArgs),
}

impl Command {
    /// The file to write a trace to.
    pub(crate) fn trace(&self) -> Option<&Path> {
        let args = match self {
            Self::Finetune(args) => &args.telemetry.trace,
            Self::Cache(CacheArgs::Capture(args)) => &args.trace,
            Self::Train(args) => &args.telemetry.trace,
            Self::Run(args) => &args.telemetry.trace,
            Self::Compare(args) => &args.telemetry.trace,
            Self::Demo(args) => &args.telemetry.trace,
            _ => return None,
        };
        args.trace.as_deref()
    }
}

/// Flags that every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct GlobalArgs {
    /// Print results on stdout as JSON instead of text; progress stays on stderr
    #[arg(long, global = true, help_heading = "General", display_order = 900)]
    pub(crate) json: bool,
    /// CPU threads [default: RAYON_NUM_THREADS, or one per core]
    #[arg(long, global = true, value_name = "N", value_parser = values::at_least_one,
          help_heading = "General", display_order = 901)]
    pub(crate) threads: Option<usize>,
    // Replaces clap's own, so that help lists it last, with the other general flags.
    /// Print this help
    #[arg(short, long, action = ArgAction::Help, global = true, help_heading = "General", display_order = 902)]
    help: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceChoice;
    use crate::objective::LossTermRecipe;
    use crate::recipe::{Keep, LayerChoice};
    use clap::CommandFactory;
    use datasets::Quotes;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    fn refused(line: &str, expected: &str) {
        let message = parse(line).expect_err("must be refused").to_string();
        assert!(message.contains(expected), "`{line}` gave: {message}");
    }

    #[test]
    fn the_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command and subcommand, with the words that call it.
    fn commands() -> Vec<(String, clap::Command)> {
        fn visit(words: &str, command: &clap::Command, all: &mut Vec<(String, clap::Command)>) {
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                let words = format!("{words} {}", inner.get_name());
                all.push((words.clone(), inner.clone()));
                visit(&words, inner, all);
            }
        }
        let mut all = Vec::new();
        visit("distill", &Cli::command(), &mut all);
        all
    }

    #[test]
    fn every_command_ends_its_help_with_one_example() {
        for (words, mut command) in commands() {
            let help = command.render_long_help().to_string();
            let (_, example) = help.split_once("Example:\n").unwrap_or_else(|| panic!("{words}: no example in {help}"));
            assert!(example.contains(&words), "{words}: {example}");
        }
    }

    #[test]
    fn the_examples_parse() {
        for (_, mut command) in commands() {
            let help = command.render_long_help().to_string();
            let (_, example) = help.split_once("Example:\n").expect("an example");
            // In a pipe, only one part is a call of distill.
            let line = example.replace("\\\n", " ");
            let line = line.split('|').find(|part| part.trim_start().starts_with("distill")).expect("a distill call");
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn train_has_the_documented_defaults() {
        let Ok(Command::Train(train)) = parse("distill train --teacher t --cache c --data d.tsv --output o") else {
            panic!("train parses");
        };
        let terms = [LossTermRecipe::soft_target(0.9, 4.0), LossTermRecipe::hard_label(0.1)];
        assert_eq!(train.loss_terms().expect("terms"), terms);
        let help = Cli::command().find_subcommand_mut("train").expect("train").render_long_help().to_string();
        for (name, default) in [
            ("dropout", 0.1),
            ("temperature", LossTermRecipe::DEFAULT_TEMPERATURE),
            ("weight-hard", LossTermRecipe::DEFAULT_WEIGHTS[1]),
        ] {
            let (_, text) = help.split_once(&format!("      --{name} ")).expect("a flag");
            let (_, text) = text.split_once("[default: ").expect("a default");
            assert!(text.starts_with(&format!("{default}]")), "--{name}: {text}");
        }
        assert_eq!((train.fitting.learning_rate, train.fitting.epochs), (None, None));
        assert_eq!((train.fitting.batch_rows, train.fitting.seed), (32, 42));
        assert_eq!((train.fitting.weight_decay, train.fitting.warmup_ratio), (0.01, 0.06));
        assert_eq!((train.fitting.max_gradient_norm, train.fitting.dropout), (1.0, 0.1));
        assert_eq!((train.fitting.keep, train.fitting.evaluate_every), (Keep::Best, 1));
        assert_eq!(train.layers, LayerChoice::Uniform);
        assert_eq!((train.compute.batch_tokens, train.compute.device.device), (None, DeviceChoice::Auto));
        assert_eq!(train.columns.max_length, None);
        assert_eq!(train.columns.label_names, None);
    }

    #[test]
    fn shared_flags_reach_their_fields() {
        let line = "distill evaluate --model m --data d.csv --text-column a --pair-column b --label-column c \
                    --label-names x,y,z --unlabelled-value -1 --quotes csv --max-length 64 --device cuda:1 --batch-tokens 512 --offline --revision r1 \
                    --json --threads 3";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("parses");
        assert!(cli.global.json);
        assert_eq!(cli.global.threads, Some(3));
        let Command::Evaluate(evaluate) = cli.command else { panic!("evaluate parses") };
        assert_eq!(evaluate.data, Path::new("d.csv"));
        assert_eq!(evaluate.columns.text_column.as_deref(), Some("a"));
        assert_eq!(evaluate.columns.pair_column.as_deref(), Some("b"));
        assert_eq!(evaluate.columns.label_column.as_deref(), Some("c"));
        assert_eq!(evaluate.columns.label_names.expect("names").0, ["x", "y", "z"]);
        assert_eq!(evaluate.columns.unlabelled_value.as_deref(), Some("-1"));
        assert_eq!(evaluate.columns.quotes, Some(Quotes::Csv));
        assert_eq!(evaluate.columns.max_length, Some(64));
        assert_eq!(evaluate.compute.device.device, DeviceChoice::Cuda(1));
        assert!(evaluate.hub.offline);
        assert_eq!(evaluate.hub.revision.as_deref(), Some("r1"));
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_reason() {
        let train = "distill train --teacher t --cache c --data d --output o";
        refused(&format!("{train} --temperature 0"), "must be a number above 0");
        refused(&format!("{train} --temperature nan"), "must be a number above 0");
        refused(&format!("{train} --weight-soft=-0.5"), "must be 0 or more");
        refused(&format!("{train} --weight-hard inf"), "must be 0 or more");
        refused(&format!("{train} --epochs 0"), "must be a whole number, at least 1");
        refused(&format!("{train} --batch-rows 0"), "must be a whole number, at least 1");
        refused(&format!("{train} --dropout 1"), "must be from 0 to below 1");
        refused(&format!("{train} --warmup-ratio 1.5"), "must be from 0 to 1");
        refused(&format!("{train} --max-length 2"), "at least 3");
        refused(&format!("{train} --layers middle"), "uniform, first, last, random");
        refused(&format!("{train} --device gpu"), "auto, cpu or cuda:N");
        refused(&format!("{train} --resume --overwrite"), "cannot be used with");
    }
}
