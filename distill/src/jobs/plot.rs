//! Draws training runs from their `metrics.jsonl`: one SVG with a panel for each quantity and a colour for each run.

mod curves;
mod draw;

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;

use crate::files::{starts_with, write_whole};
use crate::ui::{self, Table};
use curves::Run;

/// What every plot starts with; a file that does may be replaced by another plot.
const MARK: &[u8] = b"<!-- distill plot -->\n";

/// What `plot` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    runs: Vec<RunReport>,
    bytes: u64,
    output: String,
}

#[derive(Debug, Serialize)]
struct RunReport {
    run: String,
    /// The last one that was logged.
    steps: u64,
    evaluations: usize,
    last_loss: Option<f64>,
    best_accuracy: Option<f64>,
}

/// Draws these runs and writes the file.
pub(crate) fn plot(folders: &[PathBuf], output: &Path) -> anyhow::Result<Report> {
    if folders.len() > draw::RUNS {
        bail!("{} runs are more than can be told apart in one picture; give {} at most", folders.len(), draw::RUNS);
    }
    if output.exists() && !starts_with(output, MARK) {
        bail!("{}: is there already and no plot; choose another --output", output.display());
    }
    let runs = folders.iter().map(|folder| Run::read(folder)).collect::<anyhow::Result<Vec<_>>>()?;
    let names = names(folders);
    let svg = [MARK, draw::svg(&names, &runs)?.as_bytes()].concat();
    write_whole(output, &svg)?;
    let runs = names.into_iter().zip(&runs).map(|(run, read)| RunReport {
        run,
        steps: read.steps,
        evaluations: read.evaluations,
        last_loss: read.curve("loss").last().map(|point| point.value),
        best_accuracy: read.curve("accuracy").iter().map(|point| point.value).reduce(f64::max),
    });
    Ok(Report { runs: runs.collect(), bytes: svg.len() as u64, output: output.display().to_string() })
}

/// The folders' own names, or the whole paths if two would be the same.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let own = |folder: &PathBuf| {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
    };
    let short: Vec<String> = folders.iter().map(own).collect();
    let unique = short.iter().all(|name| short.iter().filter(|other| *other == name).count() == 1);
    if unique { short } else { folders.iter().map(|folder| folder.display().to_string()).collect() }
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let figure = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
        let mut table = Table::new(["run", "steps", "evaluations", "last loss", "best accuracy"]);
        for run in &self.runs {
            table.row([
                run.run.clone(),
                ui::count(run.steps),
                ui::count(run.evaluations as u64),
                figure(run.last_loss),
                figure(run.best_accuracy),
            ]);
        }
        format!("{table}\nwritten: {} ({})", self.output, ui::bytes(self.bytes))
    }
}
