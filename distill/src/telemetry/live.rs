//! The line of a stage on a terminal: how far it is, how fast, how long it will take and, of a training, its loss with a
//! curve of it and its latest score, in as many columns as there are.

use std::time::Duration;

use crate::ui::{count, duration};

/// What a line says.
pub(super) struct Line<'a> {
    pub(super) label: &'a str,
    pub(super) unit: &'a str,
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) per_second: f64,
    /// None before the first unit, when there is nothing to tell it from.
    pub(super) left: Option<Duration>,
    pub(super) live: &'a Live,
}

/// What of a stage changes besides its count.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// A short text; not shown beside a loss.
    pub(super) message: String,
    pub(super) losses: Losses,
    /// Such as `accuracy 0.9182`; empty before the first.
    pub(super) score: String,
}

/// What a line has room for.
struct Layout {
    bar: usize,
    /// Otherwise a percentage.
    counts: bool,
    curve: usize,
    score: bool,
}

/// From the widest to the narrowest.
const LAYOUTS: [Layout; 9] = [
    Layout { bar: 16, counts: true, curve: 16, score: true },
    Layout { bar: 8, counts: true, curve: 12, score: true },
    Layout { bar: 0, counts: true, curve: 12, score: true },
    Layout { bar: 0, counts: false, curve: 12, score: true },
    Layout { bar: 0, counts: false, curve: 8, score: true },
    Layout { bar: 0, counts: false, curve: 4, score: true },
    Layout { bar: 0, counts: false, curve: 0, score: true },
    Layout { bar: 0, counts: false, curve: 4, score: false },
    Layout { bar: 0, counts: false, curve: 0, score: false },
];

impl Line<'_> {
    /// The line with all that fits into so many columns.
    pub(super) fn within(&self, columns: usize) -> String {
        // A terminal wraps what ends in its last column.
        let room = columns.saturating_sub(1);
        let fits = |line: &String| line.chars().count() <= room;
        let line = LAYOUTS.iter().map(|layout| self.laid_out(layout)).find(fits);
        line.unwrap_or_else(|| self.laid_out(&LAYOUTS[LAYOUTS.len() - 1]).chars().take(room).collect())
    }

    fn laid_out(&self, layout: &Layout) -> String {
        let Self { label, unit, done, total, live, .. } = *self;
        let mut line = label.to_string();
        let part = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
        if layout.bar > 0 {
            line += &format!(" {}", bar(part, layout.bar));
        }
        line += &match layout.counts {
            true => format!(" {}/{} {unit}", count(done), count(total)),
            false => format!(" {:.0} %", (100.0 * part).floor()),
        };
        line += &format!(", {}", rate(self.per_second, unit));
        if let Some(left) = self.left {
            line += &format!(", {} left", duration(left));
        }
        match live.losses.latest {
            Some(loss) => line += &format!(", loss {loss:.4} {}", live.losses.curve(layout.curve)),
            None if !live.message.is_empty() => line += &format!(", {}", live.message),
            None => {}
        }
        let mut line = line.trim_end().to_string();
        if layout.score && !live.score.is_empty() {
            line += &format!(", {}", live.score);
        }
        line
    }
}

/// Units a second: `0.4 rows/s`, `3,412 rows/s`.
pub(super) fn rate(per_second: f64, unit: &str) -> String {
    if per_second < 10.0 {
        format!("{per_second:.1} {unit}/s")
    } else {
        format!("{} {unit}/s", count(per_second.round() as u64))
    }
}

fn bar(part: f64, width: usize) -> String {
    let full = (part * width as f64) as usize;
    let tip = if full < width { ">" } else { "" };
    format!("{:width$}", "=".repeat(full) + tip)
}

/// The losses of a training so far: a mean for each stretch of steps, the stretches as long as they have to be.
#[derive(Debug)]
pub(super) struct Losses {
    latest: Option<f64>,
    means: Vec<f64>,
    /// Steps of each mean.
    stretch: usize,
    /// The stretch that is not full yet.
    sum: f64,
    steps: usize,
}

/// Means kept at most; an even number, several times the widest curve.
const MEANS: usize = 128;

impl Default for Losses {
    fn default() -> Self {
        Self { latest: None, means: Vec::new(), stretch: 1, sum: 0.0, steps: 0 }
    }
}

impl Losses {
    pub(super) fn push(&mut self, loss: f64) {
        self.latest = Some(loss);
        self.sum += loss;
        self.steps += 1;
        if self.steps < self.stretch {
            return;
        }
        self.means.push(self.sum / self.steps as f64);
        (self.sum, self.steps) = (0.0, 0);
        if self.means.len() == MEANS {
            self.means = self.means.chunks(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
            self.stretch *= 2;
        }
    }

    /// A curve from the first step to the latest, from the lowest loss to the highest, in so many columns at most.
    fn curve(&self, columns: usize) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let columns = columns.min(self.means.len());
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let start = |column: usize| column * self.means.len() / columns;
        let values: Vec<f64> = (0..columns).map(|column| mean(&self.means[start(column)..start(column + 1)])).collect();
        let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let block = |value: f64| ((value - lowest) / (highest - lowest).max(1e-12) * 7.0).round() as usize;
        values.iter().map(|&value| BLOCKS[block(value).min(7)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(live: &Live, columns: usize) -> String {
        let left = Some(Duration::from_secs(725));
        Line { label: "train", unit: "rows", done: 45_000, total: 100_000, per_second: 3412.0, left, live }
            .within(columns)
    }

    fn training() -> Live {
        let mut live = Live { score: "accuracy 0.9182".to_string(), ..Live::default() };
        (1..=1000).for_each(|step| live.losses.push(4.0 / f64::from(step).sqrt()));
        live
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        assert_eq!(
            line(&training(), 150),
            "train =======>         45,000/100,000 rows, 3,412 rows/s, 12 min 05 s left, loss 0.1265 █▄▃▂▂▂▂▁▁▁▁▁▁▁▁▁, \
             accuracy 0.9182"
        );
    }

    #[test]
    fn in_80_columns_loss_curve_and_score_still_fit() {
        let line = line(&training(), 80);
        assert_eq!(line, "train 45 %, 3,412 rows/s, 12 min 05 s left, loss 0.1265 █▂▂▁, accuracy 0.9182");
        assert_eq!(line.chars().count(), 77);
    }

    #[test]
    fn no_line_is_wider_than_its_terminal() {
        let live = training();
        for columns in 0..200 {
            assert!(line(&live, columns).chars().count() < columns.max(1), "{columns}");
        }
        assert_eq!(line(&live, 12), "train 45 %,");
    }

    #[test]
    fn a_stage_without_a_loss_shows_its_message() {
        let live = Live { message: "shard 3".to_string(), ..Live::default() };
        assert_eq!(
            line(&live, 100),
            "train =======>         45,000/100,000 rows, 3,412 rows/s, 12 min 05 s left, shard 3"
        );
    }

    #[test]
    fn nothing_done_yet_is_an_empty_bar() {
        let live = Live::default();
        let line = Line { label: "cache", unit: "rows", done: 0, total: 10, per_second: 0.0, left: None, live: &live };
        assert_eq!(line.within(80), "cache >                0/10 rows, 0.0 rows/s");
    }

    #[test]
    fn the_curve_of_a_long_run_stays_small_and_keeps_its_ends() {
        let mut losses = Losses::default();
        (0..100_000).for_each(|step| losses.push(100_000.0 - f64::from(step)));
        assert!(losses.means.len() < MEANS);
        assert_eq!(losses.curve(8), "█▇▆▅▄▃▂▁");
        assert_eq!(losses.curve(0), "");
    }

    #[test]
    fn a_flat_loss_is_a_flat_curve() {
        let mut losses = Losses::default();
        (0..3).for_each(|_| losses.push(0.5));
        assert_eq!(losses.curve(8), "▁▁▁");
    }
}
