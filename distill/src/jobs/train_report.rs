//! The report of a training run.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::train::Trained;
use super::tune::Tuned;
use crate::memory;
use crate::scores::{MACRO_F1, Scores};
use crate::ui::{self, Table};

/// What `finetune` and `train` print.
#[derive(Debug, Serialize)]
pub(crate) struct TrainReport {
    accuracy: Option<f64>,
    macro_f1: Option<f64>,
    agreement: Option<f64>,
    ece: Option<f64>,
    parameters: usize,
    bytes: u64,
    /// The share of each of several terms in the gradient when it was last measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gradient_shares: Vec<(String, f64)>,
    /// Speed of training; `None` if a complete run was kept.
    rows_per_second: Option<f64>,
    /// Time that training waited for rows and cached outputs.
    waited_seconds: Option<f64>,
    /// Most memory, of the process or of buffers on a GPU: as estimated before the first step, and as it came.
    estimated_memory_bytes: Option<u64>,
    peak_memory_bytes: Option<u64>,
    /// Time of the training, estimated by a few steps; none of a short one.
    estimated_seconds: Option<f64>,
    seconds: f64,
    output: String,
    /// Of a training whose settings were searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    tuned: Option<Tuned>,
}

impl TrainReport {
    pub(crate) fn new(folder: &Path, trained: &Trained, tuned: Option<Tuned>, start: Instant) -> Self {
        let Trained { figures, speed, estimate } = trained;
        let scores = |f: fn(&Scores) -> Option<f64>| figures.validation.as_ref().and_then(f);
        Self {
            accuracy: scores(|s| s.accuracy),
            macro_f1: scores(|s| s.macro_f1),
            agreement: scores(|s| s.agreement),
            ece: scores(|s| s.ece),
            parameters: figures.parameters,
            bytes: figures.bytes,
            gradient_shares: figures.gradient_shares.clone(),
            rows_per_second: speed.map(|speed| speed.rows_per_second),
            waited_seconds: speed.map(|speed| speed.waited_seconds),
            estimated_memory_bytes: estimate.and_then(|estimate| estimate.bytes),
            peak_memory_bytes: speed.and_then(|_| figures.device_peak_memory_bytes.or_else(memory::peak)),
            estimated_seconds: estimate.and_then(|estimate| estimate.seconds),
            seconds: start.elapsed().as_secs_f64(),
            output: folder.display().to_string(),
            tuned,
        }
    }

    pub(crate) fn text(&self) -> String {
        let figure = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
        let mut table = Table::new(["on the validation rows", ""]);
        table.row(["accuracy".to_string(), figure(self.accuracy)]);
        table.row([MACRO_F1.to_string(), figure(self.macro_f1)]);
        if self.agreement.is_some() {
            table.row(["agreement with the teacher".to_string(), figure(self.agreement)]);
        }
        table.row(["calibration error (ECE)".to_string(), figure(self.ece)]);
        table.row(["parameters".to_string(), ui::count(self.parameters as u64)]);
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        if !self.gradient_shares.is_empty() {
            let shares = self.gradient_shares.iter().map(|(name, share)| format!("{name} {:.0} %", 100.0 * share));
            table.row(["share of the gradient".to_string(), shares.collect::<Vec<_>>().join(", ")]);
        }
        if let Some(rate) = self.rows_per_second {
            table.row(["rows a second in training".to_string(), format!("{rate:.0}")]);
        }
        if let Some(seconds) = self.waited_seconds {
            table.row(["seconds waited for data".to_string(), format!("{seconds:.3}")]);
        }
        if let (Some(estimated), Some(peak)) = (self.estimated_memory_bytes, self.peak_memory_bytes) {
            table.row(["peak memory".to_string(), format!("{} (estimated {})", ui::bytes(peak), ui::bytes(estimated))]);
        }
        let tuned = self.tuned.as_ref().map_or(String::new(), |tuned| format!("{}\n", tuned.text()));
        format!("{tuned}{table}\nwritten: {}", self.output)
    }
}
