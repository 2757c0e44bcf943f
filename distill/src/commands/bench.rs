//! `distill bench`: how fast capture and training are here, and how near that is to what matrix products alone could do;
//! and, in [`cache`](mod@cache), how fast what a teacher said is written and read.
//!
//! What is timed is what `distill cache` and `distill train` run. How it is timed is in [`clock`]; on which model and
//! rows in [`subject`] and [`rows`]; how operations are counted in [`nn::Flops`], and what the ceiling is in
//! [`nn::Ceiling`].

mod cache;
mod clock;
mod kernels;
mod overhead;
mod rows;
mod subject;

use ::cache::{Captured, Fingerprint};
use datasets::{Sampler, Task, TokenBatch, forward_batches};
use nn::cuda::Precision;
use nn::{AdamW, Ceiling, Compute, EncoderConfig, Flops, Model};
use serde::Serialize;

use crate::capture::Asked;
use crate::cli::{BenchArgs, BenchCaptureArgs, BenchCommand, BenchGemmArgs, BenchTrainArgs, MeasurementArgs};
use crate::inference::forward_each;
use crate::interrupt;
use crate::memory;
use crate::model;
use crate::objective::{LossTermRecipe, Objective, TeacherSignal};
use crate::step::{Examples, Learner};
use crate::ui::{self, Table, Ui};
use clock::{Budget, Times};
use overhead::Overhead;
use rows::Rows;
use subject::{Purpose, Subject};

/// Most tokens in a forward pass of real rows: on the CPU as in the other commands, on a GPU as many as keep it busy.
const BATCH_TOKENS: usize = 4096;
const GPU_BATCH_TOKENS: usize = 32768;

/// What `train` does unless told otherwise; none of it changes the work.
const TERMS: [LossTermRecipe; 2] =
    [LossTermRecipe::SoftTarget { weight: 0.5, temperature: 2.0 }, LossTermRecipe::HardLabel { weight: 0.5 }];
const LEARNING_RATE: f64 = 1e-4;
const WEIGHT_DECAY: f64 = 0.01;
const MAX_GRADIENT_NORM: f64 = 1.0;

/// Measures what is asked for.
pub(crate) fn run(args: BenchArgs, ui: &Ui) -> anyhow::Result<()> {
    match args.what {
        BenchCommand::Capture(args) => ui.result(&capture(&args)?, Report::text)?,
        BenchCommand::Train(args) => ui.result(&train(&args)?, Report::text)?,
        BenchCommand::Cache(args) => cache::run(&args, ui)?,
        BenchCommand::Gemm(args) => ui.result(&gemm(&args)?, GemmReport::text)?,
        BenchCommand::Kernels(args) => kernels::run(&args, ui)?,
    }
    Ok(())
}

/// What `bench capture` and `bench train` print.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    device: &'static str,
    precision: Precision,
    threads: usize,
    seed: u64,
    data: Data,
    gemm: GemmFigures,
    /// One a model: the full one, and the one with a pruned vocabulary if asked for.
    cases: Vec<Case>,
    /// The most memory that this process ever took, preparations included.
    process_peak_memory_bytes: Option<u64>,
    /// What writing a cache adds to a capture, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    writing: Option<Overhead>,
}

/// The rows of one pass.
#[derive(Debug, Serialize)]
struct Data {
    /// A file; none if they are made up.
    source: Option<String>,
    rows: usize,
    tokens: usize,
    truncated: usize,
    /// Rows in a training step; absent in capture.
    batch_rows: Option<usize>,
    /// Most tokens in a forward pass.
    batch_tokens: usize,
}

/// One model's figures.
#[derive(Debug, Serialize)]
struct Case {
    vocabulary: &'static str,
    model_type: nn::Family,
    layers: usize,
    hidden_size: usize,
    heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    labels: usize,
    parameters: usize,
    /// `model` or `random`.
    weights: &'static str,
    #[serde(flatten)]
    times: Times,
    /// Optimiser steps, or forward passes in capture, in one pass over the rows.
    steps: usize,
    samples_per_second: f64,
    tokens_per_second: f64,
    /// Of one pass over the rows, in products that are really done.
    flops: u64,
    /// The same by the conventional count: see [`Flops`].
    conventional_flops: u64,
    flops_per_second: f64,
    conventional_flops_per_second: f64,
    /// `flops_per_second` over the ceiling's.
    gemm_share: f64,
    /// The most memory taken while this was timed, its model, rows and buffers included.
    peak_memory_bytes: Option<u64>,
    /// Of the last step; none in capture.
    loss: Option<f64>,
}

/// Times a teacher's forward passes.
fn capture(args: &BenchCaptureArgs) -> anyhow::Result<Report> {
    let compute = args.measurement.device.resolve()?;
    let subject = Subject::of(&args.shape, &args.hub, Purpose::Capture)?;
    let rows = Rows::of(&args.rows, &subject, Purpose::Capture, args.shape.labels, args.measurement.seed)?;
    let batch_tokens = batch_tokens(&args.measurement, &compute, &rows);
    let mut bench = Bench::start("capture", &args.measurement, &compute, &subject, &rows, None, batch_tokens)?;
    let (config, parameters) = subject.build(rows.classes, &args.hub, args.measurement.seed)?;
    let captured = super::cache::captured(&args.writing.stored(), &config.encoder)?;
    let mut model = Asked::new(&compute, config, parameters, &captured)?;
    let batches = forward_batches(&rows.encodings.lengths(), batch_tokens);
    bench.case("full", &subject, &rows, batches.len(), Flops::forward, |passes| {
        let rows_of = (0..passes).flat_map(|_| &batches);
        let gathered = rows_of.map(|rows_of| TokenBatch::gather(&rows.encodings, rows_of));
        forward_each(&mut model.teacher, gathered, |_, _| Ok(()))?;
        Ok(None)
    })?;
    if let (Some(dir), Some(tokenizer)) = (&args.writing.output, &subject.tokenizer) {
        bench.report.writing = Some(overhead::measure(dir, &mut model, tokenizer, &rows, batch_tokens, bench.budget)?);
    }
    Ok(bench.report)
}

/// The fingerprint of a cache whose teacher does not matter.
fn made_up_fingerprint(teacher: &str, captured: &Captured) -> Fingerprint {
    Fingerprint {
        teacher: teacher.to_owned(),
        head: Vec::new(),
        config: String::new(),
        tokenizer: String::new(),
        labels: Vec::new(),
        max_length: 0,
        preprocessing: String::new(),
        task: String::new(),
        precision: String::new(),
        captured: captured.clone(),
    }
}

/// Times training steps.
fn train(args: &BenchTrainArgs) -> anyhow::Result<Report> {
    let compute = args.measurement.device.resolve()?;
    let purpose = Purpose::Train(args.dropout);
    let subject = Subject::of(&args.shape, &args.hub, purpose)?;
    let rows = Rows::of(&args.rows, &subject, purpose, args.shape.labels, args.measurement.seed)?;
    let batch_tokens = batch_tokens(&args.measurement, &compute, &rows);
    let batch_rows = args.rows.batch_rows;
    let mut bench =
        Bench::start("train", &args.measurement, &compute, &subject, &rows, Some(batch_rows), batch_tokens)?;
    train_case(&mut bench, "full", &compute, &subject, &rows, args)?;
    if args.prune_vocabulary {
        let (subject, rows) = subject.prune(&rows)?;
        train_case(&mut bench, "pruned", &compute, &subject, &rows, args)?;
    }
    Ok(bench.report)
}

/// Times training steps of one student: a pass is an epoch.
fn train_case(
    bench: &mut Bench,
    vocabulary: &'static str,
    compute: &Compute,
    subject: &Subject,
    rows: &Rows,
    args: &BenchTrainArgs,
) -> anyhow::Result<()> {
    let seed = args.measurement.seed;
    let (config, parameters) = subject.build(rows.classes, &args.hub, seed)?;
    let mut student = Model::on(compute, config, parameters)?;
    let sampler = Sampler::new(rows.encodings.lengths(), seed, args.rows.batch_rows, bench.report.data.batch_tokens)?;
    let objective = Objective::new(Task::SingleLabel, TERMS.to_vec())?;
    let said = rows.teacher_logits(seed);
    let teacher = |batch: &[u32]| {
        let of = |&row: &u32| &said[row as usize * rows.classes..(row as usize + 1) * rows.classes];
        Ok(TeacherSignal::Dense(batch.iter().flat_map(of).copied().collect()))
    };
    let (encodings, labels) = (&rows.encodings, rows.labels.as_slice());
    let examples = Examples { encodings, labels, teacher: Some(&teacher), masking: None };
    let optimizer = AdamW::new(student.parameters().layout().clone(), WEIGHT_DECAY);
    let mut learner = Learner::new(&mut student, &objective, optimizer, MAX_GRADIENT_NORM, true)?;
    let (mut step, mut loss) = (0, None);
    let steps = sampler.steps_per_epoch();
    bench.case(vocabulary, subject, rows, steps, Flops::training, |passes| {
        for _ in 0..passes {
            let epoch = sampler.epoch((step / steps) as u64);
            for _ in 0..steps {
                interrupt::check()?;
                let micro_batches = examples.prepare((step / steps) as u64, &epoch.step(step % steps))?;
                learner.take_step(step, &micro_batches, seed, LEARNING_RATE)?;
                step += 1;
                loss = learner.outcomes(false)?.last().map(|outcome| outcome.loss.total()).or(loss);
            }
        }
        // A GPU's last steps are waited for.
        loss = learner.outcomes(true)?.last().map(|outcome| outcome.loss.total()).or(loss);
        Ok(loss)
    })
}

fn batch_tokens(args: &MeasurementArgs, compute: &Compute, rows: &Rows) -> usize {
    let made_up = if rows.source.is_none() { rows.encodings.tokens() } else { 0 };
    let least = if let Compute::Cpu = compute { BATCH_TOKENS } else { GPU_BATCH_TOKENS };
    args.batch_tokens.unwrap_or(least.max(made_up))
}

/// A measurement in the making.
struct Bench {
    budget: Budget,
    report: Report,
}

impl Bench {
    fn start(
        bench: &'static str,
        args: &MeasurementArgs,
        compute: &Compute,
        subject: &Subject,
        rows: &Rows,
        batch_rows: Option<usize>,
        batch_tokens: usize,
    ) -> anyhow::Result<Self> {
        let truncated = rows.encodings.truncated_count();
        model::report_truncated(truncated, rows.encodings.len(), rows.max_length);
        let report = Report {
            bench,
            device: compute.kind(),
            precision: compute.precision(),
            threads: rayon::current_num_threads(),
            seed: args.seed,
            data: Data {
                source: rows.source.clone(),
                rows: rows.encodings.len(),
                tokens: rows.encodings.tokens(),
                truncated,
                batch_rows,
                batch_tokens,
            },
            gemm: GemmFigures::measure(compute, &subject.encoder)?,
            cases: Vec::new(),
            process_peak_memory_bytes: None,
            writing: None,
        };
        Ok(Self { budget: args.into(), report })
    }

    /// Times one model; `passes` goes over all rows as often as it is told, and says what the last loss was.
    fn case(
        &mut self,
        vocabulary: &'static str,
        subject: &Subject,
        rows: &Rows,
        steps: usize,
        count: impl FnOnce(&EncoderConfig, Vec<usize>) -> Flops,
        mut passes: impl FnMut(usize) -> anyhow::Result<Option<f64>>,
    ) -> anyhow::Result<()> {
        let before = memory::peak();
        let anew = memory::reset_peak();
        let mut loss = None;
        let times = self.budget.time(|count| {
            loss = passes(count)?;
            Ok(())
        })?;
        let peak = memory::peak();
        let process = &mut self.report.process_peak_memory_bytes;
        *process = (*process).max(before).max(peak);

        let encoder = EncoderConfig { num_labels: rows.classes, ..subject.encoder.clone() };
        let lengths = rows.encodings.lengths().iter().map(|&length| length as usize).collect();
        let flops = count(&encoder, lengths);
        let per_second = |number: f64| number / times.median_seconds;
        let flops_per_second = per_second(flops.done as f64);
        self.report.cases.push(Case {
            vocabulary,
            model_type: encoder.family,
            layers: encoder.num_layers,
            hidden_size: encoder.hidden_size,
            heads: encoder.num_heads,
            intermediate_size: encoder.intermediate_size,
            vocab_size: encoder.vocab_size,
            labels: encoder.num_labels,
            parameters: nn::Layout::new(&encoder).len(),
            weights: subject.weights(),
            steps,
            samples_per_second: per_second(rows.encodings.len() as f64),
            tokens_per_second: per_second(rows.encodings.tokens() as f64),
            flops: flops.done,
            conventional_flops: flops.conventional,
            flops_per_second,
            conventional_flops_per_second: per_second(flops.conventional as f64),
            gemm_share: flops_per_second / self.report.gemm.flops_per_second,
            peak_memory_bytes: peak.filter(|_| anew),
            loss,
            times,
        });
        Ok(())
    }
}

/// What bare products do here: see [`Ceiling`].
#[derive(Debug, Serialize)]
struct GemmFigures {
    hidden_size: usize,
    intermediate_size: usize,
    /// Of the fastest of several repeats, since a ceiling is not an average.
    flops_per_second: f64,
    #[serde(flatten)]
    times: Times,
}

impl GemmFigures {
    /// Repeats of about a quarter of a second.
    const REPEATS: usize = 5;

    fn measure(compute: &Compute, encoder: &EncoderConfig) -> anyhow::Result<Self> {
        let ceiling = Ceiling::new(compute, encoder)?;
        let times = Budget::Repeats(Self::REPEATS).time(|rounds| Ok(ceiling.run(rounds)?))?;
        Ok(Self {
            hidden_size: encoder.hidden_size,
            intermediate_size: encoder.intermediate_size,
            flops_per_second: ceiling.flops(1) as f64 / times.least_seconds(),
            times,
        })
    }
}

/// What `bench gemm` prints.
#[derive(Debug, Serialize)]
struct GemmReport {
    bench: &'static str,
    device: &'static str,
    precision: Precision,
    threads: usize,
    #[serde(flatten)]
    figures: GemmFigures,
}

fn gemm(args: &BenchGemmArgs) -> anyhow::Result<GemmReport> {
    let compute = args.device.resolve()?;
    let encoder = EncoderConfig {
        hidden_size: args.hidden_size,
        intermediate_size: args.intermediate_size.unwrap_or(4 * args.hidden_size),
        num_heads: 1,
        embedding_size: args.hidden_size,
        ..subject::bert_base()?
    };
    encoder.validate()?;
    let figures = GemmFigures::measure(&compute, &encoder)?;
    let (device, precision, threads) = (compute.kind(), compute.precision(), rayon::current_num_threads());
    Ok(GemmReport { bench: "gemm", device, precision, threads, figures })
}

impl GemmReport {
    fn text(&self) -> String {
        let mut table = Table::new(["bench gemm", ""]);
        table.row(["hidden size".to_string(), ui::count(self.figures.hidden_size as u64)]);
        table.row(["intermediate size".to_string(), ui::count(self.figures.intermediate_size as u64)]);
        table.row(["threads".to_string(), self.threads.to_string()]);
        table.row(["products, fastest repeat".to_string(), ui::flops(self.figures.flops_per_second)]);
        table.row(["spread of the repeats".to_string(), percent(self.figures.times.spread)]);
        table.to_string()
    }
}

impl Report {
    fn text(&self) -> String {
        let heading = format!("bench {}", self.bench);
        let headings = std::iter::once(heading.as_str()).chain(self.cases.iter().map(|case| case.vocabulary));
        let mut table = Table::new(headings);
        let mut row = |what: &str, figure: &dyn Fn(&Case) -> String| {
            table.row(std::iter::once(what.to_string()).chain(self.cases.iter().map(figure)));
        };
        row("parameters", &|case| ui::count(case.parameters as u64));
        row("rows", &|_| ui::count(self.data.rows as u64));
        row("tokens", &|_| ui::count(self.data.tokens as u64));
        row("samples a second", &|case| format!("{:.1}", case.samples_per_second));
        row("tokens a second", &|case| ui::count(case.tokens_per_second.round() as u64));
        row("milliseconds a step", &|case| format!("{:.3}", 1e3 * case.times.median_seconds / case.steps as f64));
        row("repeats", &|case| case.times.seconds.len().to_string());
        row("spread of the repeats", &|case| percent(case.times.spread));
        row("products done", &|case| ui::flops(case.flops_per_second));
        row("by the whole model's count", &|case| ui::flops(case.conventional_flops_per_second));
        row("bare products just before", &|_| ui::flops(self.gemm.flops_per_second));
        row("share of these", &|case| percent(case.gemm_share));
        row("peak memory", &|case| case.peak_memory_bytes.map_or("-".to_string(), ui::bytes));
        let model = self.cases.first().map(|case| {
            format!("{} {}x{}, {} heads, ", case.model_type.model_type(), case.layers, case.hidden_size, case.heads)
        });
        let process = self.process_peak_memory_bytes.map_or("-".to_string(), ui::bytes);
        let (device, precision, threads) = (self.device, self.precision, self.threads);
        let model = model.unwrap_or_default();
        let writing = self.writing.as_ref().map_or(String::new(), |writing| format!("{}\n", writing.text()));
        format!("{table}\n{writing}{model}{device} {precision}, {threads} threads; the process took {process} at most")
    }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}
