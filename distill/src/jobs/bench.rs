//! Benchmarks: the speed of capture and training, compared with bare matrix products; and, in [`cache`](mod@cache), the
//! speed of writing and reading a cache.
//!
//! They time the code that `distill cache` and `distill train` run. Timing is in [`clock`], the choice of model and
//! rows in [`subject`] and [`rows`]; [`nn::Flops`] counts operations, and [`nn::Ceiling`] measures the upper limit.

pub(crate) mod cache;
mod clock;
pub(crate) mod kernels;
mod made_up;
mod overhead;
mod report;
mod rows;
mod subject;

use std::path::PathBuf;

use anyhow::bail;
use datasets::{Sampler, TokenBatch, forward_batches};
use nn::cuda::Device;
use nn::{AdamW, Clip, Compute, EncoderConfig, Flops, Model};
use teacher::HubOptions;

use super::capture::{Asked, StoredForm};
use crate::device;
use crate::inference::forward_each;
use crate::interrupt;
use crate::memory;
use crate::model;
use crate::objective::Objective;
use crate::signal::TeacherSignal;
use crate::tasks::{Questions, Targets, Task, single_label};
use crate::training::step::{Examples, Learner};
pub(crate) use clock::Budget;
use report::{Case, Data, GemmFigures};
pub(crate) use report::{GemmReport, Report, TrainSettings};
use rows::Rows;
pub(crate) use rows::RowsAsked;
pub(crate) use subject::Shape;
use subject::{Purpose, Subject};

/// The defaults of `train`; they do not affect the speed.
const LEARNING_RATE: f64 = 1e-4;
const WEIGHT_DECAY: f64 = 0.01;
const MAX_GRADIENT_NORM: f64 = 1.0;

/// The settings of `bench capture`.
pub(crate) struct CaptureBench {
    pub(crate) shape: Shape,
    pub(crate) rows: RowsAsked,
    /// Folder for caches, to measure the cost of writing; `None` to skip that.
    pub(crate) output: Option<PathBuf>,
    /// The form of storage.
    pub(crate) stored: StoredForm,
    pub(crate) measurement: Measurement,
    pub(crate) hub: HubOptions,
}

/// The settings of `bench train`.
pub(crate) struct TrainBench {
    pub(crate) shape: Shape,
    pub(crate) dropout: f64,
    /// Whether to time a student with a pruned vocabulary as well.
    pub(crate) prune_vocabulary: bool,
    pub(crate) settings: TrainSettings,
    pub(crate) rows: RowsAsked,
    pub(crate) measurement: Measurement,
    pub(crate) hub: HubOptions,
}

/// How it is timed.
pub(crate) struct Measurement {
    pub(crate) budget: Budget,
    pub(crate) seed: u64,
    /// Whether to time each launch on a GPU.
    pub(crate) launches: bool,
    /// Whether a GPU's products are chosen by timing.
    pub(crate) autotune: bool,
    /// Maximum tokens per forward pass; `None` for the device's default.
    pub(crate) batch_tokens: Option<usize>,
}

/// Times a teacher's forward passes.
pub(crate) fn capture(args: &CaptureBench, compute: &Compute) -> anyhow::Result<Report> {
    let subject = Subject::of(&args.shape, &args.hub, Purpose::Capture)?;
    let rows = Rows::of(&args.rows, &subject, Purpose::Capture, args.shape.labels, args.measurement.seed)?;
    let batch_tokens = batch_tokens(&args.measurement, compute, &rows);
    let mut bench = Bench::start("capture", &args.measurement, compute, &subject, &rows, None, batch_tokens)?;
    let (config, parameters) = subject.build(rows.classes, &args.hub, args.measurement.seed)?;
    let captured = args.stored.captured(Task::SingleLabel, &config.encoder)?;
    let mut model = Asked::new(compute, config, parameters, &captured)?;
    let batches = forward_batches(&rows.encodings.lengths(), batch_tokens);
    bench.case("full", &subject, &rows, batches.len(), Flops::forward, |passes| {
        let rows_of = (0..passes).flat_map(|_| &batches);
        let gathered = rows_of.map(|rows_of| TokenBatch::gather(&rows.encodings, rows_of));
        forward_each(&mut model.teacher, gathered, |_, _| Ok(()))?;
        Ok(None)
    })?;
    if let (Some(dir), Some(tokenizer)) = (&args.output, &subject.tokenizer) {
        bench.report.writing = Some(overhead::measure(dir, &mut model, tokenizer, &rows, batch_tokens, bench.budget)?);
    }
    Ok(bench.report)
}

/// Times training steps.
pub(crate) fn train(args: &TrainBench, compute: &Compute) -> anyhow::Result<Report> {
    let purpose = Purpose::Train(args.dropout);
    let subject = Subject::of(&args.shape, &args.hub, purpose)?;
    let rows = Rows::of(&args.rows, &subject, purpose, args.shape.labels, args.measurement.seed)?;
    let batch_tokens = batch_tokens(&args.measurement, compute, &rows);
    let batch_rows = args.rows.batch_rows;
    let mut bench = Bench::start("train", &args.measurement, compute, &subject, &rows, Some(batch_rows), batch_tokens)?;
    bench.report.settings = Some(args.settings);
    train_case(&mut bench, "full", compute, &subject, &rows, args)?;
    if args.prune_vocabulary {
        let subject = subject.prune(&rows.encodings)?;
        let rows = rows.encoded_for(&subject)?;
        train_case(&mut bench, "pruned", compute, &subject, &rows, args)?;
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
    args: &TrainBench,
) -> anyhow::Result<()> {
    let seed = args.measurement.seed;
    let (config, parameters) = subject.build(rows.classes, &args.hub, seed)?;
    let mut student = Model::on(compute, config, parameters)?;
    student.recompute(args.settings.recompute.then_some(1));
    let sampler = Sampler::new(rows.encodings.lengths(), seed, args.rows.batch_rows, bench.report.data.batch_tokens)?;
    let objective = Objective::new(&single_label::TERMS_WITH_TEACHER, &[], &[])?;
    let said = rows.teacher_logits(seed);
    let teacher = |batch: &[u32], _: &Questions| {
        let of = |&row: &u32| &said[row as usize * rows.classes..(row as usize + 1) * rows.classes];
        Ok(TeacherSignal::Dense(batch.iter().flat_map(of).copied().collect()))
    };
    let (encodings, labels) = (&rows.encodings, rows.labels.as_slice());
    let examples = Examples {
        encodings,
        labels,
        teacher: Some(&teacher),
        targets: &Targets::Labels,
        read_by_teacher: None,
        hidden_states: None,
        views: 1,
    };
    let weights = student.parameters();
    let optimizer = AdamW::new(weights.layout().clone(), WEIGHT_DECAY);
    let optimizer = match args.settings.ema_decay {
        Some(decay) => optimizer.with_average(decay, weights.flat().to_vec()),
        None => optimizer,
    };
    let mut learner = Learner::new(&mut student, &objective, optimizer, Clip::Norm(MAX_GRADIENT_NORM), true)?;
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

/// From now on chooses products by timing, if that is asked for.
fn start_tuning(autotune: bool, compute: &Compute) -> anyhow::Result<()> {
    device::check_autotune(autotune, compute)?;
    device::autotune(autotune, compute, None);
    Ok(())
}

fn batch_tokens(args: &Measurement, compute: &Compute, rows: &Rows) -> usize {
    let made_up = if rows.source.is_none() { rows.encodings.tokens() } else { 0 };
    args.batch_tokens.unwrap_or(device::batch_tokens(None, compute).max(made_up))
}

/// A measurement in the making.
struct Bench {
    budget: Budget,
    /// Where there is one, and whether its launches are timed.
    gpu: Option<(Device, bool)>,
    report: Report,
}

impl Bench {
    fn start(
        bench: &'static str,
        args: &Measurement,
        compute: &Compute,
        subject: &Subject,
        rows: &Rows,
        batch_rows: Option<usize>,
        batch_tokens: usize,
    ) -> anyhow::Result<Self> {
        start_tuning(args.autotune, compute)?;
        let truncated = rows.encodings.truncated_count();
        model::report_truncated(truncated, rows.encodings.len(), rows.max_length);
        let report = Report {
            bench,
            device: compute.kind(),
            precision: compute.precision(),
            autotune: args.autotune,
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
            settings: None,
            cases: Vec::new(),
            process_peak_memory_bytes: None,
            writing: None,
        };
        let gpu = if let Compute::Cuda { device, .. } = compute { Some((device.clone(), args.launches)) } else { None };
        if args.launches && gpu.is_none() {
            bail!("--launches: the CPU has none; give --device cuda");
        }
        Ok(Self { budget: args.budget, gpu, report })
    }

    /// Times one model; `passes` makes the given number of passes over all rows and returns the last loss.
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
        if let Some((device, _)) = &self.gpu {
            device.reset_peak();
        }
        let mut loss = None;
        let times = self.budget.time(|count| {
            loss = passes(count)?;
            Ok(())
        })?;
        let peak = memory::peak();
        let launches = match &self.gpu {
            Some((device, true)) => {
                device.time_launches()?;
                passes(1)?;
                Some(device.launch_times()?)
            }
            _ => None,
        };
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
            device_peak_memory_bytes: self.gpu.as_ref().map(|(device, _)| device.peak_bytes() as u64),
            loss,
            launches,
            times,
        });
        Ok(())
    }
}

/// Times bare matrix products; by default the feed-forward layers are four times as wide as the hidden states.
pub(crate) fn gemm(
    hidden_size: usize,
    intermediate_size: Option<usize>,
    autotune: bool,
    compute: &Compute,
) -> anyhow::Result<GemmReport> {
    start_tuning(autotune, compute)?;
    let encoder = EncoderConfig {
        hidden_size,
        intermediate_size: intermediate_size.unwrap_or(4 * hidden_size),
        num_heads: 1,
        embedding_size: hidden_size,
        ..super::student::bert_base()?
    };
    encoder.validate()?;
    let figures = GemmFigures::measure(compute, &encoder)?;
    let (device, precision, threads) = (compute.kind(), compute.precision(), rayon::current_num_threads());
    Ok(GemmReport { bench: "gemm", device, precision, autotune, threads, figures })
}
