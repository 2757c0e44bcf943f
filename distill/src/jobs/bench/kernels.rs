//! Checks every GPU kernel against a plain computation on the host, one part at a time.
//!
//! Each part runs in a process of its own: a lost CUDA context, a crash or a kernel that never ends only affects the
//! rest of its own part.

mod process;

use std::collections::BTreeMap;

use anyhow::bail;
use serde::Serialize;

use crate::ui::{self, Table};
use process::Line;
pub(crate) use process::{KernelsBench, run_part};

/// What was checked.
#[derive(Debug, Default, Serialize)]
pub(crate) struct KernelsReport {
    bench: &'static str,
    /// The GPU's name.
    device: String,
    /// What computes products, and where it was found.
    library: String,
    checks: usize,
    failed: Vec<Failure>,
    parts: Vec<PartReport>,
    /// By kernel and output.
    kernels: BTreeMap<String, Kernel>,
}

/// How a part went.
#[derive(Debug, Serialize)]
struct PartReport {
    part: &'static str,
    checks: usize,
    failed: usize,
    seconds: f64,
    /// Why it ended before its last check.
    ended: Option<String>,
}

/// One output of a kernel over all shapes.
#[derive(Debug, Default, Serialize)]
struct Kernel {
    shapes: usize,
    failed: usize,
    /// Of the shape that comes nearest to what is allowed, or lies farthest beyond.
    worst: f64,
    tolerance: f64,
}

/// A check that did not hold.
#[derive(Debug, Serialize)]
struct Failure {
    kernel: String,
    shape: String,
    worst: f64,
    tolerance: f64,
    /// Where the difference is largest.
    element: usize,
    /// What failed on the way, in which case nothing was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// Checks all parts.
pub(crate) fn check(bench: &KernelsBench) -> anyhow::Result<KernelsReport> {
    let mut report = KernelsReport { bench: "kernels", ..KernelsReport::default() };
    for part in bench.parts() {
        let before = (report.checks, report.failed.len());
        let mut opened = false;
        let ran = process::run(bench, part, &mut |line| match line {
            Line::Opened { device, library } => {
                opened = true;
                (report.device, report.library) = (device, library);
            }
            Line::Check(check) => report.add(check),
            Line::Ended(_) => {}
        })?;
        if !opened && report.device.is_empty() {
            // This process says why in its own words, with what helps.
            drop(bench.open()?);
        }
        if let Some(why) = &ran.ended {
            ui::say(format!("{}: ended early: {why}", part.name()));
        }
        report.parts.push(PartReport {
            part: part.name(),
            checks: report.checks - before.0,
            failed: report.failed.len() - before.1,
            seconds: ran.seconds,
            ended: ran.ended,
        });
    }
    Ok(report)
}

impl KernelsReport {
    fn add(&mut self, check: process::Check) {
        let process::Check { kernel, shape, worst, tolerance, element, passed, fault } = check;
        let worst = worst.unwrap_or(f64::INFINITY);
        self.checks += 1;
        let of_kernel = self.kernels.entry(kernel.clone()).or_default();
        of_kernel.shapes += 1;
        if of_kernel.shapes == 1 || worst * of_kernel.tolerance > of_kernel.worst * tolerance {
            (of_kernel.worst, of_kernel.tolerance) = (worst, tolerance);
        }
        if !passed {
            of_kernel.failed += 1;
            ui::say(match &fault {
                Some(fault) => format!("{kernel}, {shape}: {fault}"),
                None => format!("{kernel}, {shape}: off by {worst:.2e} at element {element}, allowed {tolerance:.2e}"),
            });
            self.failed.push(Failure { kernel, shape, worst, tolerance, element, fault });
        }
    }

    /// An error if any check did not hold or was not made, once all of them have been listed.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        let early = self.ended_early();
        match (self.failed.len(), early.is_empty()) {
            (0, true) => Ok(()),
            (failed, true) => bail!("{failed} of {} checks failed", ui::count(self.checks as u64)),
            (failed, false) => bail!(
                "{failed} of {} checks failed, and these parts ended early: {}",
                ui::count(self.checks as u64),
                early.join(", ")
            ),
        }
    }

    fn ended_early(&self) -> Vec<&'static str> {
        self.parts.iter().filter(|part| part.ended.is_some()).map(|part| part.part).collect()
    }

    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(["kernel", "shapes", "failed", "largest difference", "allowed"]);
        for (name, kernel) in &self.kernels {
            let Kernel { shapes, failed, worst, tolerance } = kernel;
            let figures = [shapes.to_string(), failed.to_string(), format!("{worst:.1e}"), format!("{tolerance:.1e}")];
            table.row(std::iter::once(name.clone()).chain(figures));
        }
        let mut parts = Table::new(["part", "checks", "failed", "seconds", ""]);
        for PartReport { part, checks, failed, seconds, ended } in &self.parts {
            let ended = ended.as_ref().map_or_else(String::new, |why| format!("ended early: {why}"));
            parts.row([part.to_string(), checks.to_string(), failed.to_string(), format!("{seconds:.1}"), ended]);
        }
        let (checks, failed) = (ui::count(self.checks as u64), self.failed.len());
        format!("{table}\n{parts}\n{} with {}: {checks} checks, {failed} failed", self.device, self.library)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_named_and_the_nearest_to_it_kept() {
        let (device, library) = ("a GPU".to_string(), "a library".to_string());
        let mut report = KernelsReport { device, library, ..KernelsReport::default() };
        for (worst, tolerance) in [(1.0, 10.0), (3.0, 2.0), (4.0, 8.0)] {
            let (kernel, shape, passed) = ("norm".to_string(), "2 x 3".to_string(), worst <= tolerance);
            let worst = Some(worst);
            report.add(process::Check { kernel, shape, worst, tolerance, element: 5, passed, fault: None });
        }
        let norm = &report.kernels["norm"];
        assert_eq!((norm.shapes, norm.failed, norm.worst, norm.tolerance), (3, 1, 3.0, 2.0));
        assert_eq!((report.failed[0].element, report.failed[0].worst), (5, 3.0));
        assert!(report.text().ends_with("a GPU with a library: 3 checks, 1 failed"), "{}", report.text());
    }
}
