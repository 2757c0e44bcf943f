//! Monitoring of a run: `metrics.jsonl` in its folder, event files for TensorBoard, and progress bars.

mod events;
mod live;
mod metrics;
mod progress;

pub(crate) use events::{EVENTS, event_files};
pub(crate) use metrics::{METRICS, METRICS_START, Metrics};
pub(crate) use progress::Progress;
