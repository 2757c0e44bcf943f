//! The reports of `bench capture`, `bench train` and `bench gemm`.

use nn::cuda::{LaunchTime, Precision};
use nn::{Ceiling, Compute, EncoderConfig};
use serde::Serialize;

use super::clock::{Budget, Times};
use super::overhead::Overhead;
use crate::ui::{self, Table};

/// What `bench capture` and `bench train` print.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(super) bench: &'static str,
    pub(super) device: &'static str,
    pub(super) precision: Precision,
    /// Whether a GPU's products were chosen by timing.
    pub(super) autotune: bool,
    pub(super) threads: usize,
    pub(super) seed: u64,
    pub(super) data: Data,
    pub(super) gemm: GemmFigures,
    /// Of a training; absent in capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) settings: Option<TrainSettings>,
    /// One a model: the full one, and the one with a pruned vocabulary if asked for.
    pub(super) cases: Vec<Case>,
    /// The most memory that this process ever took, preparations included.
    pub(super) process_peak_memory_bytes: Option<u64>,
    /// What writing a cache adds to a capture, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) writing: Option<Overhead>,
}

/// Settings of a training that change what a step does.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct TrainSettings {
    /// Whether values of each layer are computed again in the backward pass.
    pub(crate) recompute: bool,
    /// The decay of the weights' moving average; none is kept without.
    pub(crate) ema_decay: Option<f64>,
}

/// The rows of one pass.
#[derive(Debug, Serialize)]
pub(crate) struct Data {
    /// A file; none if they are made up.
    pub(super) source: Option<String>,
    pub(super) rows: usize,
    pub(super) tokens: usize,
    pub(super) truncated: usize,
    /// Rows in a training step; absent in capture.
    pub(super) batch_rows: Option<usize>,
    /// Most tokens in a forward pass.
    pub(super) batch_tokens: usize,
}

/// One model's figures.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    pub(super) vocabulary: &'static str,
    pub(super) model_type: nn::Family,
    pub(super) layers: usize,
    pub(super) hidden_size: usize,
    pub(super) heads: usize,
    pub(super) intermediate_size: usize,
    pub(super) vocab_size: usize,
    pub(super) labels: usize,
    pub(super) parameters: usize,
    /// `model` or `random`.
    pub(super) weights: &'static str,
    #[serde(flatten)]
    pub(super) times: Times,
    /// Optimiser steps, or forward passes in capture, in one pass over the rows.
    pub(super) steps: usize,
    pub(super) samples_per_second: f64,
    pub(super) tokens_per_second: f64,
    /// Of one pass over the rows, in products that are really done.
    pub(super) flops: u64,
    /// The same by the conventional count: see [`Flops`](nn::Flops).
    pub(super) conventional_flops: u64,
    pub(super) flops_per_second: f64,
    pub(super) conventional_flops_per_second: f64,
    /// `flops_per_second` over the ceiling's.
    pub(super) gemm_share: f64,
    /// The most memory taken while this was timed, its model, rows and buffers included.
    pub(super) peak_memory_bytes: Option<u64>,
    /// The most of a GPU's memory that buffers had at once meanwhile; none on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device_peak_memory_bytes: Option<u64>,
    /// Of the last step; none in capture.
    pub(super) loss: Option<f64>,
    /// What one pass over the rows launched, if that was asked for, the longest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) launches: Option<Vec<LaunchTime>>,
}

/// What bare products do here: see [`Ceiling`].
#[derive(Debug, Serialize)]
pub(crate) struct GemmFigures {
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    /// Of the fastest of several repeats, since a ceiling is not an average.
    pub(super) flops_per_second: f64,
    #[serde(flatten)]
    pub(super) times: Times,
}

impl GemmFigures {
    /// Repeats of about a quarter of a second.
    const REPEATS: usize = 5;

    pub(super) fn measure(compute: &Compute, encoder: &EncoderConfig) -> anyhow::Result<Self> {
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
pub(crate) struct GemmReport {
    pub(super) bench: &'static str,
    pub(super) device: &'static str,
    pub(super) precision: Precision,
    /// Whether a GPU's products were chosen by timing.
    pub(super) autotune: bool,
    pub(super) threads: usize,
    #[serde(flatten)]
    pub(super) figures: GemmFigures,
}

impl GemmReport {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(["bench gemm", ""]);
        table.row(["hidden size".to_string(), ui::count(self.figures.hidden_size as u64)]);
        table.row(["intermediate size".to_string(), ui::count(self.figures.intermediate_size as u64)]);
        table.row(["threads".to_string(), self.threads.to_string()]);
        table.row(["products, fastest repeat".to_string(), ui::flops(self.figures.flops_per_second)]);
        table.row(["spread of the repeats".to_string(), ui::percent(self.figures.times.spread)]);
        table.to_string()
    }
}

impl Report {
    pub(crate) fn text(&self) -> String {
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
        row("spread of the repeats", &|case| ui::percent(case.times.spread));
        row("products done", &|case| ui::flops(case.flops_per_second));
        row("by the whole model's count", &|case| ui::flops(case.conventional_flops_per_second));
        row("bare products just before", &|_| ui::flops(self.gemm.flops_per_second));
        row("share of these", &|case| ui::percent(case.gemm_share));
        row("peak memory", &|case| case.peak_memory_bytes.map_or("-".to_string(), ui::bytes));
        if self.cases.iter().any(|case| case.device_peak_memory_bytes.is_some()) {
            row("peak memory on the device", &|case| case.device_peak_memory_bytes.map_or("-".to_string(), ui::bytes));
        }
        let model = self.cases.first().map(|case| {
            format!("{} {}x{}, {} heads, ", case.model_type.model_type(), case.layers, case.hidden_size, case.heads)
        });
        let process = self.process_peak_memory_bytes.map_or("-".to_string(), ui::bytes);
        let (device, precision, threads) = (self.device, self.precision, self.threads);
        let model = model.unwrap_or_default();
        let writing = self.writing.as_ref().map_or(String::new(), |writing| format!("{}\n", writing.text()));
        let launches: String = self.cases.iter().filter_map(Case::launches_text).collect();
        format!(
            "{table}\n{launches}{writing}{model}{device} {precision}, {threads} threads; the process took {process} at most"
        )
    }
}

impl Case {
    /// The launches as a table, per step.
    fn launches_text(&self) -> Option<String> {
        let launches = self.launches.as_ref()?;
        let all: f64 = launches.iter().map(|launch| launch.microseconds).sum();
        let mut table =
            Table::new([&format!("launches, {}", self.vocabulary), "a step", "us each", "us a step", "share"]);
        let steps = self.steps as f64;
        for LaunchTime { name, launches, microseconds } in launches {
            table.row([
                name.clone(),
                format!("{:.1}", *launches as f64 / steps),
                format!("{:.1}", microseconds / *launches as f64),
                format!("{:.1}", microseconds / steps),
                ui::percent(microseconds / all),
            ]);
        }
        let number: usize = launches.iter().map(|launch| launch.launches).sum();
        let figures = [format!("{:.1}", number as f64 / steps), String::new(), format!("{:.1}", all / steps)];
        table.row(std::iter::once("all".to_string()).chain(figures));
        Some(format!("{table}\n"))
    }
}
