//! Progress of a long stage: a bar with rate and remaining time on a terminal, occasional plain lines elsewhere.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::live::{Line, Live, rate};
use crate::ui::{BARS, count, duration, on_terminal, say};

/// Time between two plain lines of one stage.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// The progress of one stage. May be advanced from several threads.
pub(crate) struct Progress {
    label: String,
    unit: &'static str,
    total: u64,
    started: Instant,
    state: Mutex<State>,
    bar: Option<Bar>,
}

/// A line that a terminal keeps up to date.
struct Bar {
    bar: ProgressBar,
    live: Arc<Mutex<Live>>,
}

struct State {
    done: u64,
    message: String,
    last_line: Instant,
}

impl Progress {
    /// Starts a stage of `total` units: `Progress::new("caching", rows, "rows")`.
    pub(crate) fn new(label: &str, total: u64, unit: &'static str) -> Self {
        let started = Instant::now();
        let bar = on_terminal().then(|| Bar::new(label, total, unit));
        let state = State { done: 0, message: String::new(), last_line: started };
        Self { label: label.to_owned(), unit, total, started, state: Mutex::new(state), bar }
    }

    /// Adds `units` to what is done.
    pub(crate) fn inc(&self, units: u64) {
        self.update(|state| state.done += units);
        if let Some(Bar { bar, .. }) = &self.bar {
            bar.inc(units);
        }
    }

    /// Shows a short text next to the bar, such as the loss.
    pub(crate) fn message(&self, message: impl fmt::Display) {
        let message = message.to_string();
        if let Some(bar) = &self.bar {
            bar.live().message.clone_from(&message);
        }
        self.update(|state| state.message = message);
    }

    /// Shows the loss of each step, and its curve, where there is a terminal.
    pub(crate) fn loss(&self, loss: f64) {
        if let Some(bar) = &self.bar {
            bar.live().losses.push(loss);
        }
    }

    /// Shows the latest score, such as `accuracy 0.9182`, where there is a terminal.
    pub(crate) fn score(&self, score: String) {
        if let Some(bar) = &self.bar {
            bar.live().score = score;
        }
    }

    /// Ends the stage with a line that reports amount and time.
    pub(crate) fn finish(self) {
        let elapsed = self.started.elapsed();
        let done = self.state.lock().unwrap_or_else(PoisonError::into_inner).done;
        if let Some(Bar { bar, .. }) = &self.bar {
            bar.finish_and_clear();
        }
        say(final_line(&self.label, done, self.unit, elapsed));
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if self.bar.is_none() && state.last_line.elapsed() >= PLAIN_INTERVAL {
            state.last_line = Instant::now();
            say(plain_line(&self.label, state.done, self.total, self.unit, self.started.elapsed(), &state.message));
        }
    }
}

impl Drop for Progress {
    /// Removes the bar if the stage ended with an error.
    fn drop(&mut self) {
        if let Some(Bar { bar, .. }) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Bar {
    fn new(label: &str, total: u64, unit: &'static str) -> Self {
        let live = Arc::new(Mutex::new(Live::default()));
        let (label, shown) = (label.to_owned(), Arc::clone(&live));
        let line = move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let done = state.pos();
            let (per_second, left) = (state.per_sec(), (done > 0).then(|| state.eta()));
            let live = &*lock(&shown);
            let line = Line { label: &label, unit, done, total, per_second, left, live };
            let columns = Term::stderr().size().1;
            let _ = write!(out, "{}", line.within(columns.into()));
        };
        let style = ProgressStyle::with_template("{line}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = BARS.add(ProgressBar::new(total).with_style(style.with_key("line", line)));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, live }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }
}

fn lock(live: &Mutex<Live>) -> MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plain_line(label: &str, done: u64, total: u64, unit: &str, elapsed: Duration, message: &str) -> String {
    let per_second = per_second(done, elapsed);
    let mut line = format!("{label}: {}/{} {unit}, {}", count(done), count(total), rate(per_second, unit));
    if per_second > 0.0 {
        let left = Duration::from_secs_f64(total.saturating_sub(done) as f64 / per_second);
        line += &format!(", {} left", duration(left));
    }
    if !message.is_empty() {
        line += &format!(", {message}");
    }
    line
}

fn final_line(label: &str, done: u64, unit: &str, elapsed: Duration) -> String {
    let rate = rate(per_second(done, elapsed), unit);
    format!("{label}: {} {unit} in {} ({rate})", count(done), duration(elapsed))
}

fn per_second(done: u64, elapsed: Duration) -> f64 {
    done as f64 / elapsed.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_has_rate_and_time_left() {
        let line = plain_line("training", 1200, 3000, "steps", Duration::from_secs(40), "loss 0.41");
        assert_eq!(line, "training: 1,200/3,000 steps, 30 steps/s, 1 min 00 s left, loss 0.41");
    }

    #[test]
    fn nothing_done_yet_has_no_time_left() {
        let line = plain_line("caching", 0, 10, "rows", Duration::from_secs(10), "");
        assert_eq!(line, "caching: 0/10 rows, 0.0 rows/s");
    }

    #[test]
    fn the_final_line_has_total_seconds_and_rate() {
        assert_eq!(
            final_line("training", 3000, "steps", Duration::from_millis(85_100)),
            "training: 3,000 steps in 1 min 25 s (35 steps/s)"
        );
    }

    #[test]
    fn threads_share_one_progress() {
        let progress = Progress::new("test", 400, "rows");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| progress.inc(1)));
            }
        });
        progress.message("done");
        assert_eq!(progress.state.lock().expect("unpoisoned").done, 400);
    }

    #[test]
    fn the_template_of_the_bar_is_valid() {
        assert!(ProgressStyle::with_template("{line}").is_ok());
    }
}
