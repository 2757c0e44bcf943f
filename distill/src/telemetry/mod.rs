//! Monitoring of a run: `metrics.jsonl` in its folder, and progress bars.

mod live;
mod metrics;
mod progress;

pub(crate) use metrics::{METRICS, METRICS_START, Metrics};
pub(crate) use progress::Progress;
