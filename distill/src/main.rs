//! The program `distill`: knowledge distillation for text classifiers. Parses the command line, runs the command, and
//! returns its exit status: 0, 1 for an error, 2 for an invalid command line, 75 for SIGTERM (stopped in order, to be started
//! again), 130 for Ctrl-C.

mod card;
mod cli;
mod commands;
mod data;
mod default;
mod device;
#[cfg(test)]
mod emulated;
mod files;
mod fingerprint;
mod hint;
mod inference;
mod interrupt;
mod jobs;
mod memory;
mod model;
mod objective;
#[cfg(test)]
mod parity;
mod recipe;
mod run_record;
mod scores;
mod signal;
mod tasks;
mod telemetry;
mod training;
mod ui;

use anyhow::Context;
use clap::Parser;
use cli::{Cli, Command};
use interrupt::Interrupted;
use std::process::ExitCode;
use telemetry::Trace;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};
use ui::{OutputError, StderrAboveBars, Ui};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => conclude(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    memory::return_large_buffers();
    files::report_size_limit();
    let trace = cli.command.trace().map(Trace::create).transpose()?;
    log_to_stderr(trace.as_ref())?;
    interrupt::listen().context("cannot listen for Ctrl-C")?;
    start_threads(cli.global.threads)?;
    let ui = Ui::new(cli.global.json);
    let done = match cli.command {
        Command::Finetune(args) => commands::finetune::run(args, &ui),
        Command::Cache(args) => commands::cache::run(args, &ui),
        Command::Data(args) => commands::data::run(args.what, &ui),
        Command::Propose(args) => commands::propose::run(args, &ui),
        Command::Train(args) => commands::train::run(args, &ui),
        Command::Plot(args) => commands::plot::run(args, &ui),
        Command::Evaluate(args) => commands::evaluate::run(args, &ui),
        Command::Export(args) => commands::export::run(args, &ui),
        Command::Predict(args) => commands::predict::run(args, &ui),
        Command::Bench(args) => commands::bench::run(args, &ui),
        Command::Run(args) => commands::run::run(args, &ui),
        Command::Compare(args) => commands::compare::run(args, &ui),
        Command::Demo(args) => commands::demo::run(args, &ui),
    };
    // A command that failed or was stopped leaves a trace as well, but its own error is the one to tell.
    let traced = trace.map_or(Ok(()), Trace::finish);
    done.and(traced.map_err(anyhow::Error::from))
}

/// Logs warnings, or what `DISTILL_LOG` asks for (`DISTILL_LOG=debug`, `DISTILL_LOG=teacher=trace`). Spans go to the
/// trace, if there is one.
fn log_to_stderr(trace: Option<&Trace>) -> anyhow::Result<()> {
    const VARIABLE: &str = "DISTILL_LOG";
    let filter = match std::env::var(VARIABLE) {
        Ok(filter) => EnvFilter::try_new(filter).with_context(|| format!("{VARIABLE} is not a log filter"))?,
        Err(_) => EnvFilter::new("warn"),
    };
    let lines = fmt::layer().with_writer(|| StderrAboveBars).with_ansi(ui::on_terminal()).without_time();
    let log = tracing_subscriber::registry().with(lines.with_filter(filter));
    match trace {
        Some(trace) => log.with(trace.layer()).init(),
        None => log.init(),
    }
    Ok(())
}

/// Starts the thread pool; without `--threads`, rayon uses `RAYON_NUM_THREADS` or one thread per core.
fn start_threads(threads: Option<usize>) -> anyhow::Result<()> {
    let builder = rayon::ThreadPoolBuilder::new();
    let builder = threads.into_iter().fold(builder, rayon::ThreadPoolBuilder::num_threads);
    builder.build_global().context("cannot start the worker threads")
}

/// Prints the error and returns the exit status.
fn conclude(error: &anyhow::Error) -> ExitCode {
    if matches!(error.downcast_ref(), Some(OutputError::Closed)) {
        return ExitCode::SUCCESS;
    }
    if error.chain().any(|cause| cause.is::<Interrupted>()) {
        ui::say("interrupted");
        hint::hints(error).iter().for_each(ui::say);
        return ExitCode::from(interrupt::exit_code());
    }
    ui::say(hint::describe(error));
    ExitCode::FAILURE
}
