//! A frozen model over a whole data set.

use std::time::{Duration, Instant};

use datasets::{Encodings, TokenBatch, forward_batches};
use nn::{Capture, Compute, PackedInput};
use teacher::Teacher;

use crate::interrupt;
use crate::ui::Progress;

/// Where a model runs, and in what portions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running<'a> {
    pub(crate) compute: &'a Compute,
    /// Most tokens in one forward pass.
    pub(crate) batch_tokens: usize,
}

/// What a model said of every row.
pub(crate) struct Predictions {
    /// `[N, K]`, in the order of the rows.
    pub(crate) logits: Vec<f32>,
    /// Time spent in the model.
    pub(crate) elapsed: Duration,
}

impl Predictions {
    /// Rows a second.
    pub(crate) fn rows_per_second(&self, rows: usize) -> f64 {
        rows as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// A packed batch as the engine takes it.
pub(crate) fn packed(batch: &TokenBatch) -> PackedInput<'_> {
    PackedInput { input_ids: &batch.input_ids, token_type_ids: &batch.token_type_ids, starts: &batch.starts }
}

/// Runs the model over all rows, longest first.
pub(crate) fn predict(
    model: &mut Teacher,
    encodings: &Encodings,
    batch_tokens: usize,
    label: &str,
) -> anyhow::Result<Predictions> {
    let classes = model.config().labels.len();
    let mut elapsed = Duration::ZERO;
    let progress = Progress::new(label, encodings.len() as u64, "rows");
    let logits = forward_all(encodings, classes, batch_tokens, |batch| {
        interrupt::check()?;
        let start = Instant::now();
        let output = model.forward(packed(batch), Capture::LOGITS)?;
        elapsed += start.elapsed();
        progress.inc(batch.rows.len() as u64);
        Ok(output.logits)
    })?;
    progress.finish();
    Ok(Predictions { logits, elapsed })
}

/// Calls `forward` with batches of all rows, longest first, and puts what it returns in the order of the rows.
///
/// # Shapes
/// - `forward` returns `[B, classes]`; the result is `[N, classes]`
pub(crate) fn forward_all(
    encodings: &Encodings,
    classes: usize,
    batch_tokens: usize,
    mut forward: impl FnMut(&TokenBatch) -> anyhow::Result<Vec<f32>>,
) -> anyhow::Result<Vec<f32>> {
    let mut logits = vec![0.0; encodings.len() * classes];
    for rows in forward_batches(&encodings.lengths(), batch_tokens) {
        let batch = TokenBatch::gather(encodings, &rows);
        for (&row, from) in rows.iter().zip(forward(&batch)?.chunks_exact(classes)) {
            logits[row as usize * classes..(row as usize + 1) * classes].copy_from_slice(from);
        }
    }
    Ok(logits)
}
