//! What can be watched of a run: `metrics.jsonl` in its folder, and how far a long stage is.

mod metrics;
mod progress;

pub(crate) use metrics::{METRICS, METRICS_START, Metrics};
pub(crate) use progress::Progress;
