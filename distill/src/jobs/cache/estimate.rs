//! Estimates size and time of a capture.

use std::time::{Duration, Instant};

use cache::Outputs;
use datasets::{TokenBatch, forward_batches};
use nn::Compute;
use serde::Serialize;

use crate::inference::announce;
use crate::interrupt;
use crate::jobs::capture::{Asked, Asking, Loaded, Windows};
use crate::ui::{self, Table};

/// What `cache estimate` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: u64,
    /// Number of rows with different keys.
    unique: u64,
    tokens: u64,
    bytes: u64,
    /// Estimated time of the whole capture.
    seconds: f64,
    rows_per_second: f64,
    /// Tokens that the probe ran the teacher over, and for how long.
    probe_tokens: u64,
    probe_seconds: f64,
    /// If hidden states are stored.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
}

/// What hidden states cost each epoch of a training: read from the cache, or computed by a teacher beside the student.
#[derive(Debug, Serialize)]
struct Live {
    /// Bytes of hidden states to read.
    read_bytes_per_epoch: u64,
    /// Time of the teacher's forward passes.
    live_seconds_per_epoch: f64,
}

/// Bytes that the index takes for a row, at most: a key, a number, and its share of the buckets and checksums.
const INDEX_BYTES: f64 = 21.1;

/// Bytes that say where a row's tokens or hidden states begin.
const START_BYTES: f64 = 8.0;

/// Bytes of the frame around a row's hidden states.
const FRAME_BYTES: f64 = 9.0;

/// Reads all rows once, runs the teacher for a short time, and extrapolates by the number of tokens.
pub(crate) fn estimate(asking: &Asking, probe_seconds: f64, compute: &Compute) -> anyhow::Result<Report> {
    let Loaded { teacher: model, source, captured, max_length, batch_tokens } = asking.load(compute)?;
    let tokenizer = model.tokenizer;
    let names = asking.task.class_names(&model.config)?;
    let targets = asking.task.targets(&tokenizer)?;
    let windows = Windows {
        source: &source,
        tokenizer: &tokenizer,
        names: names.as_ref(),
        targets: &targets,
        max_length,
        batch_tokens,
    };
    announce(compute);
    let mut teacher = Asked::new(compute, model.config, model.parameters, &captured)?;
    let mut seen = std::collections::HashSet::new();
    let (mut rows, mut tokens) = (0_u64, 0_u64);
    let (mut probed, mut forward) = (0_u64, Duration::ZERO);
    let mut result: anyhow::Result<()> = Ok(());
    let reading = Instant::now();
    windows.each(|window| {
        rows += window.keys.len() as u64;
        let new: Vec<u32> =
            (0..window.keys.len() as u32).filter(|&row| seen.insert(window.keys[row as usize])).collect();
        let lengths: Vec<u32> = new.iter().map(|&row| window.encodings.length(row as usize)).collect();
        tokens += lengths.iter().map(|&length| u64::from(length)).sum::<u64>();
        let mut batches = forward_batches(&lengths, batch_tokens).into_iter();
        // A batch of each window until the time is up, whose first batch only warms up.
        result = interrupt::check().map_err(anyhow::Error::new).and_then(|()| {
            let left = if forward.as_secs_f64() < probe_seconds { if probed == 0 { 4 } else { 1 } } else { 0 };
            for (number, batch) in batches.by_ref().take(left).enumerate() {
                let rows: Vec<u32> = batch.iter().map(|&index| new[index as usize]).collect();
                let batch = TokenBatch::gather(&window.encodings, &rows);
                let (length, clock) = (batch.input_ids.len() as u64, Instant::now());
                teacher.each(std::iter::once(batch), |_| Ok(()))?;
                let warming_up = number == 0 && probed == 0 && lengths.len() > rows.len();
                if !warming_up {
                    probed += length;
                    forward += clock.elapsed();
                }
            }
            Ok(())
        });
        result.is_ok()
    })?;
    result?;
    let reading = reading.elapsed().saturating_sub(forward);
    let per_token = forward.as_secs_f64() / probed.max(1) as f64;
    // Reading and tokenising go on beside the forward passes, on the same cores.
    let seconds = per_token * tokens as f64 + reading.as_secs_f64();
    let unique = seen.len() as u64;
    let hidden = captured.hidden_states.as_ref().map_or(0.0, |form| {
        let mean_tokens = match form.tokens {
            cache::HiddenTokens::First => 1.0,
            cache::HiddenTokens::All => tokens as f64 / unique.max(1) as f64,
        };
        // Compression gains little on such numbers: counted as none.
        FRAME_BYTES + 2.0 * form.layers.len() as f64 * form.width as f64 * mean_tokens
    });
    let (outputs, row_bytes) = match captured.outputs {
        Outputs::Row => (unique, INDEX_BYTES),
        Outputs::Token => (tokens, INDEX_BYTES + START_BYTES),
    };
    let row_bytes = if captured.hidden_states.is_some() { row_bytes + START_BYTES } else { row_bytes };
    let bytes = unique as f64 * (row_bytes + hidden) + outputs as f64 * captured.output_bytes() as f64;
    let attachment = tokenizer.canonical_json().len() as f64;
    Ok(Report {
        rows,
        unique,
        tokens,
        bytes: (bytes + attachment) as u64,
        seconds,
        rows_per_second: unique as f64 / seconds.max(1e-9),
        probe_tokens: probed,
        probe_seconds: forward.as_secs_f64(),
        live: captured.hidden_states.is_some().then(|| Live {
            read_bytes_per_epoch: (rows as f64 * hidden) as u64,
            live_seconds_per_epoch: per_token * tokens as f64 * rows as f64 / unique.max(1) as f64,
        }),
    })
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(["a capture of this", ""]);
        table.row(["rows".to_string(), ui::count(self.rows)]);
        table.row(["unique".to_string(), ui::count(self.unique)]);
        table.row(["tokens".to_string(), ui::count(self.tokens)]);
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        table.row(["time".to_string(), ui::duration(Duration::from_secs_f64(self.seconds))]);
        table.row(["rows a second".to_string(), format!("{:.0}", self.rows_per_second)]);
        if let Some(Live { read_bytes_per_epoch, live_seconds_per_epoch }) = self.live {
            table.row(["read an epoch".to_string(), ui::bytes(read_bytes_per_epoch)]);
            let live = Duration::from_secs_f64(live_seconds_per_epoch);
            table.row(["or live, an epoch".to_string(), ui::duration(live)]);
        }
        let probe = ui::duration(Duration::from_secs_f64(self.probe_seconds));
        format!("{table}\nfrom a probe of {} tokens in {probe}", ui::count(self.probe_tokens))
    }
}
