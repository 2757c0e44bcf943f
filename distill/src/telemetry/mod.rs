//! Monitoring of a run: `metrics.jsonl` in its folder, event files for TensorBoard, traces, and progress bars.

mod events;
mod live;
mod metrics;
mod progress;
mod trace;

pub(crate) use events::{EVENTS, event_files};
pub(crate) use metrics::{METRICS, METRICS_START, METRICS_VERSION, Metrics};
pub(crate) use progress::Progress;
pub(crate) use trace::Trace;
