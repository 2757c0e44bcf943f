//! Draws curves as an SVG: small panels in rows of three, all over the same steps, with the runs' names above.
//!
//! Colours are those of Okabe and Ito, which people with any kind of colour vision can tell apart.

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::curves::{Point, Run};
use crate::ui::count;

/// Runs in one picture at most: a solid and a dashed line in each colour.
pub(super) const RUNS: usize = 2 * COLOURS.len();

/// Without their yellow, too light on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    BLACK,
];

const GRID: RGBColor = RGBColor(228, 228, 228);
const AXIS: RGBColor = RGBColor(150, 150, 150);
const TEXT: RGBColor = RGBColor(60, 60, 60);

/// Sizes in pixels.
const PANEL: (u32, u32) = (400, 250);
const COLUMNS: usize = 3;
const MARGIN: u32 = 12;
const LEGEND_LINE: u32 = 24;
const SAMPLE: i32 = 26;

/// Points of a curve at most; of more, neighbours are drawn as their mean.
const POINTS: usize = 150;

/// Curves of up to so many points have a dot at each.
const DOTTED: usize = 40;

/// An area of the picture.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the runs, in this order of colours.
pub(super) fn svg(names: &[String], runs: &[Run]) -> anyhow::Result<String> {
    let panels = panels(runs);
    let columns = COLUMNS.min(panels.len());
    let rows = panels.len().div_ceil(columns);
    let width = columns as u32 * PANEL.0 + 2 * MARGIN;
    let legend = legend(names, width);
    let lines = legend.last().map_or(0, |entry| entry.line + 1);
    let above = lines * LEGEND_LINE + MARGIN;
    let size = (width, above + rows as u32 * PANEL.1 + MARGIN);
    let mut svg = String::new();
    {
        let whole = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        whole.fill(&WHITE).map_err(refused)?;
        for (entry, line) in legend.iter().zip(LINES) {
            draw_entry(&whole, entry, line)?;
        }
        let below = whole.margin(above, MARGIN, MARGIN, MARGIN);
        let last_step = runs.iter().map(|run| run.steps).max().unwrap_or(1).max(1) as f64;
        for (number, (panel, area)) in panels.iter().zip(below.split_evenly((rows, columns))).enumerate() {
            let lowest = number + columns >= panels.len();
            draw_panel(&area, panel, runs, last_step, lowest)?;
        }
        whole.present().map_err(refused)?;
    }
    Ok(svg)
}

/// A panel: a quantity by its key in `metrics.jsonl`, and what to call it.
struct Panel {
    key: String,
    title: String,
}

/// The quantities that the runs have values of.
fn panels(runs: &[Run]) -> Vec<Panel> {
    let panel = |key: &str, title: &str| Panel { key: key.to_string(), title: title.to_string() };
    let mut terms: Vec<&String> = Vec::new();
    for term in runs.iter().flat_map(Run::terms) {
        if !terms.contains(&term) {
            terms.push(term);
        }
    }
    let losses = std::iter::once(panel("loss", "loss"))
        .chain(terms.into_iter().map(|term| panel(term, &format!("loss term {term}"))));
    let scores = [
        panel("validation_loss", "validation loss"),
        panel("accuracy", "validation accuracy"),
        panel("macro_f1", "validation macro-F1"),
        panel("agreement", "agreement with the teacher"),
        panel("learning_rate", "learning rate"),
        panel("gradient_norm", "gradient norm"),
    ];
    losses.chain(scores).filter(|panel| runs.iter().any(|run| !run.curve(&panel.key).is_empty())).collect()
}

/// How a run's curves are drawn.
#[derive(Debug, Clone, Copy)]
struct Line {
    colour: RGBColor,
    dashed: bool,
}

const LINES: [Line; RUNS] = {
    let mut lines = [Line { colour: BLACK, dashed: false }; RUNS];
    let mut number = 0;
    while number < RUNS {
        lines[number] = Line { colour: COLOURS[number % COLOURS.len()], dashed: number >= COLOURS.len() };
        number += 1;
    }
    lines
};

/// A run's name and where it stands.
struct Entry<'a> {
    name: &'a str,
    left: i32,
    line: u32,
}

/// Puts the names side by side, on as many lines as they take.
fn legend(names: &[String], width: u32) -> Vec<Entry<'_>> {
    let (mut left, mut line) = (MARGIN as i32, 0);
    let mut entries = Vec::new();
    for name in names {
        // About the width of the text: there is no font here to ask.
        let wide = SAMPLE + 8 + 8 * name.chars().count() as i32 + 20;
        if left > MARGIN as i32 && left + wide > width as i32 {
            (left, line) = (MARGIN as i32, line + 1);
        }
        entries.push(Entry { name, left, line });
        left += wide;
    }
    entries
}

fn draw_entry(area: &Area<'_>, entry: &Entry<'_>, line: Line) -> anyhow::Result<()> {
    let middle = (MARGIN + entry.line * LEGEND_LINE + LEGEND_LINE / 2) as i32;
    let sample = [(entry.left, middle), (entry.left + SAMPLE, middle)];
    let style = line.colour.stroke_width(3);
    match line.dashed {
        true => area.draw(&DashedPathElement::new(sample, 6, 4, style)),
        false => area.draw(&PathElement::new(sample, style)),
    }
    .map_err(refused)?;
    let style = TextStyle::from(("sans-serif", 16)).color(&TEXT);
    let place = (entry.left + SAMPLE + 8, middle - 7);
    area.draw(&Text::new(entry.name.to_string(), place, style)).map_err(refused)
}

/// Draws a panel; the `lowest` of a column says what its axis is.
fn draw_panel(area: &Area<'_>, panel: &Panel, runs: &[Run], last_step: f64, lowest: bool) -> anyhow::Result<()> {
    let curves: Vec<Vec<(f64, f64)>> = runs.iter().map(|run| thinned(run.curve(&panel.key))).collect();
    let (low, high) = range(curves.iter().flatten().map(|(_, value)| *value));
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(20)
        .caption(&panel.title, TextStyle::from(("sans-serif", 17)).color(&TEXT))
        .x_label_area_size(if lowest { 40 } else { 26 })
        .y_label_area_size(54)
        .build_cartesian_2d(0.0..last_step, low..high)
        .map_err(refused)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .label_style(TextStyle::from(("sans-serif", 13)).color(&TEXT))
        .x_labels(5)
        .y_labels(5)
        .x_desc(if lowest { "step" } else { "" })
        .x_label_formatter(&|step| count(step.round() as u64))
        .y_label_formatter(&|value| label(*value, high - low))
        .draw()
        .map_err(refused)?;
    for (curve, Line { colour, dashed }) in curves.into_iter().zip(LINES) {
        if curve.len() <= DOTTED {
            let dots = curve.iter().map(|point| Circle::new(*point, 3, colour.filled()));
            chart.draw_series(dots).map_err(refused)?;
        }
        let style = colour.stroke_width(2);
        match dashed {
            true => chart.draw_series(DashedLineSeries::new(curve, 6, 4, style)),
            false => chart.draw_series(LineSeries::new(curve, style)),
        }
        .map_err(refused)?;
    }
    Ok(())
}

/// A curve of few enough points.
fn thinned(points: &[Point]) -> Vec<(f64, f64)> {
    let mean = |points: &[Point], of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let stretches = points.chunks(points.len().div_ceil(POINTS).max(1));
    stretches.map(|points| (mean(points, |point| point.step), mean(points, |point| point.value))).collect()
}

/// The values' range with some air.
fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    let air = if high > low { 0.05 * (high - low) } else { 0.1 * low.abs().max(1e-6) };
    // Nothing here is below 0, so no axis has to be.
    (if low >= 0.0 { (low - air).max(0.0) } else { low - air }, high + air)
}

/// A value on an axis of this length, with the decimals that tell neighbours apart.
fn label(value: f64, length: f64) -> String {
    if value.abs() < 1e-6 * length {
        return "0".to_string();
    }
    if length < 0.01 && value.abs() < 0.01 {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let decimals = (0.7 - length.log10()).ceil().clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

fn refused<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_neighbours_apart_and_say_no_more() {
        let cases = [(6.0, 3.6, "6.0"), (0.78, 0.08, "0.78"), (40.0, 90.0, "40"), (0.0, 3.0, "0")];
        let small = [(5e-5, 1e-4, "5e-5"), (2.5e-6, 1e-5, "2.5e-6"), (1e-12, 1e-4, "0"), (0.905, 0.02, "0.905")];
        for (value, length, expected) in cases.into_iter().chain(small) {
            assert_eq!(label(value, length), expected);
        }
    }

    #[test]
    fn an_axis_has_a_length_and_nothing_below_0_unless_a_value_is() {
        assert_eq!(range([0.5, 0.5].into_iter()), (0.45, 0.55));
        assert_eq!(range([0.01, 1.0].into_iter()).0, 0.0);
        assert!(range([-1.0, 1.0].into_iter()).0 < -1.0);
    }

    #[test]
    fn a_long_curve_is_thinned_to_its_means() {
        let points: Vec<Point> = (0..3000).map(|n| Point { step: f64::from(n), value: f64::from(n % 2) }).collect();
        let curve = thinned(&points);
        assert_eq!(curve.len(), POINTS);
        assert_eq!(curve[0], (9.5, 0.5));
        assert_eq!(thinned(&points[..3]), [(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]);
        assert_eq!(thinned(&[]), []);
    }

    #[test]
    fn as_many_runs_as_allowed_look_different() {
        for (number, line) in LINES.iter().enumerate() {
            let same = |other: &&Line| other.colour == line.colour && other.dashed == line.dashed;
            assert_eq!(LINES.iter().filter(same).count(), 1, "{number}");
        }
    }

    #[test]
    fn names_that_do_not_fit_go_on_below() {
        let names: Vec<String> = (0..6).map(|number| format!("a-run-with-a-long-name-{number}")).collect();
        let entries = legend(&names, 600);
        let lines: Vec<u32> = entries.iter().map(|entry| entry.line).collect();
        assert_eq!(lines, [0, 0, 1, 1, 2, 2]);
        assert!(entries.iter().all(|entry| entry.left < 400));
    }
}
