//! Runs a frozen model over a whole data set.

use std::collections::VecDeque;
use std::sync::Once;
use std::time::{Duration, Instant};

use datasets::{Encodings, TokenBatch, forward_batches};
use nn::{Compute, Model, PackedInput};
use tracing::debug_span;

use crate::device;
use crate::interrupt;
use crate::telemetry::Progress;
use crate::ui;

/// Device and batch size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running<'a> {
    pub(crate) compute: &'a Compute,
    /// Maximum tokens per forward pass.
    pub(crate) batch_tokens: usize,
}

impl<'a> Running<'a> {
    /// With the requested batch size, or the device's default.
    pub(crate) fn new(compute: &'a Compute, batch_tokens: Option<usize>) -> Self {
        Self { compute, batch_tokens: device::batch_tokens(batch_tokens, compute) }
    }
}

/// Reports once which GPU is used and with which precision; says nothing for the CPU.
pub(crate) fn announce(compute: &Compute) {
    static SAID: Once = Once::new();
    if let Compute::Cuda { device, precision } = compute {
        SAID.call_once(|| ui::say(format!("computing on {} in {precision}", device.name())));
    }
}

/// The logits of every row.
pub(crate) struct Predictions {
    /// `[N, K]`, in the order of the rows.
    pub(crate) logits: Vec<f32>,
    /// Time spent in the model, without tokenising.
    pub(crate) elapsed: Duration,
}

impl Predictions {
    /// Rows a second.
    pub(crate) fn rows_per_second(&self, rows: usize) -> f64 {
        rows as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// A packed batch as input for the engine.
pub(crate) fn packed(batch: &TokenBatch) -> PackedInput<'_> {
    let TokenBatch { input_ids, token_type_ids, starts, .. } = batch;
    PackedInput { input_ids, token_type_ids, starts, positions: None }
}

/// Runs the model over all rows, longest first.
pub(crate) fn predict(
    model: &mut Model,
    encodings: &Encodings,
    batch_tokens: usize,
    label: &str,
) -> anyhow::Result<Predictions> {
    let progress = Progress::new(label, encodings.len() as u64, "rows");
    let start = Instant::now();
    let logits = forward_all(model, encodings, batch_tokens, |rows| progress.inc(rows as u64))?;
    progress.finish();
    Ok(Predictions { logits, elapsed: start.elapsed() })
}

/// Runs the model over all rows, longest first, and returns logits in the order of the rows; `done` is called with the
/// number of rows of each batch.
///
/// # Shapes
/// - the result is `[N, classes]`
pub(crate) fn forward_all(
    model: &mut Model,
    encodings: &Encodings,
    batch_tokens: usize,
    mut done: impl FnMut(usize),
) -> anyhow::Result<Vec<f32>> {
    let classes = model.config().labels.len();
    let batches = forward_batches(&encodings.lengths(), batch_tokens);
    let batches = batches.iter().map(|rows| TokenBatch::gather(encodings, rows));
    let mut logits = vec![0.0; encodings.len() * classes];
    forward_each(model, batches, |rows, from| {
        for (&row, from) in rows.iter().zip(from.chunks_exact(classes)) {
            logits[row as usize * classes..(row as usize + 1) * classes].copy_from_slice(from);
        }
        done(rows.len());
        Ok(())
    })?;
    Ok(logits)
}

/// Runs the model over batches, and passes on each batch's rows and logits, in order. A GPU computes one batch ahead.
pub(crate) fn forward_each(
    model: &mut Model,
    batches: impl Iterator<Item = TokenBatch>,
    mut then: impl FnMut(&[u32], &[f32]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let submit = |model: &mut Model, batch: &TokenBatch| model.submit(packed(batch));
    let collect = |model: &mut Model, behind: usize| model.collect(behind);
    forward_ahead(model, batches, submit, collect, |batch, logits| then(&batch.rows, &logits))
}

/// The same with other ways to submit a batch and collect its result.
pub(crate) fn forward_ahead<T>(
    model: &mut Model,
    batches: impl Iterator<Item = TokenBatch>,
    submit: impl Fn(&mut Model, &TokenBatch) -> Result<(), nn::Error>,
    collect: impl Fn(&mut Model, usize) -> Result<Option<T>, nn::Error>,
    mut then: impl FnMut(TokenBatch, T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut submitted = VecDeque::new();
    let mut batches = batches.fuse();
    loop {
        let batch = batches.next();
        if let Some(batch) = &batch {
            interrupt::check()?;
            debug_span!("forward", rows = batch.rows.len()).in_scope(|| submit(model, batch))?;
        }
        let behind = usize::from(batch.is_some());
        submitted.extend(batch);
        while let Some(collected) = collect(model, behind)? {
            if let Some(batch) = submitted.pop_front() {
                then(batch, collected)?;
            }
        }
        if behind == 0 {
            return Ok(());
        }
    }
}
