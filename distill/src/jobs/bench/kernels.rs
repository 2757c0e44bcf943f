//! Every kernel of a GPU against a plain computation on the host.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use nn::cuda::{Device, KernelCheck, verify};
use serde::Serialize;

use crate::device::DeviceChoice;
use crate::ui::{self, Table};

/// What was checked.
#[derive(Debug, Serialize)]
pub(crate) struct KernelsReport {
    bench: &'static str,
    /// The GPU's name.
    device: String,
    checks: usize,
    failed: Vec<Failure>,
    /// By kernel and output.
    kernels: BTreeMap<String, Kernel>,
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
}

/// Checks them all.
pub(crate) fn check(choice: DeviceChoice) -> anyhow::Result<KernelsReport> {
    let device = match choice {
        DeviceChoice::Cpu => bail!("--device cpu: the CPU has no GPU kernels to check; give --device cuda"),
        DeviceChoice::Auto => Device::cuda(0),
        DeviceChoice::Cuda(ordinal) => Device::cuda(ordinal),
    };
    let device = device.with_context(|| format!("--device {choice}"))?;
    let mut report = KernelsReport {
        bench: "kernels",
        device: device.name(),
        checks: 0,
        failed: Vec::new(),
        kernels: BTreeMap::new(),
    };
    verify(&device, &mut |check| report.add(check))?;
    Ok(report)
}

impl KernelsReport {
    fn add(&mut self, check: KernelCheck) {
        let KernelCheck { kernel, shape, worst, tolerance, element, passed } = check;
        self.checks += 1;
        let of_kernel = self.kernels.entry(kernel.clone()).or_default();
        of_kernel.shapes += 1;
        if of_kernel.shapes == 1 || worst * of_kernel.tolerance > of_kernel.worst * tolerance {
            (of_kernel.worst, of_kernel.tolerance) = (worst, tolerance);
        }
        if !passed {
            of_kernel.failed += 1;
            ui::say(format!("{kernel}, {shape}: off by {worst:.2e} at element {element}, allowed {tolerance:.2e}"));
            self.failed.push(Failure { kernel, shape, worst, tolerance, element });
        }
    }

    /// An error if any check did not hold, once all of them have been listed.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        match self.failed.len() {
            0 => Ok(()),
            failed => bail!("{failed} of {} checks failed", ui::count(self.checks as u64)),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(["kernel", "shapes", "failed", "largest difference", "allowed"]);
        for (name, kernel) in &self.kernels {
            let Kernel { shapes, failed, worst, tolerance } = kernel;
            let figures = [shapes.to_string(), failed.to_string(), format!("{worst:.1e}"), format!("{tolerance:.1e}")];
            table.row(std::iter::once(name.clone()).chain(figures));
        }
        let (checks, failed) = (ui::count(self.checks as u64), self.failed.len());
        format!("{table}\n{}: {checks} checks, {failed} failed", self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_named_and_the_nearest_to_it_kept() {
        let device = String::from("a GPU");
        let mut report =
            KernelsReport { bench: "kernels", device, checks: 0, failed: vec![], kernels: BTreeMap::new() };
        for (worst, tolerance) in [(1.0, 10.0), (3.0, 2.0), (4.0, 8.0)] {
            let (kernel, shape) = ("norm".to_string(), "2 x 3".to_string());
            report.add(KernelCheck { kernel, shape, worst, tolerance, element: 5, passed: worst <= tolerance });
        }
        let norm = &report.kernels["norm"];
        assert_eq!((norm.shapes, norm.failed, norm.worst, norm.tolerance), (3, 1, 3.0, 2.0));
        assert_eq!((report.failed[0].element, report.failed[0].worst), (5, 3.0));
        assert!(report.text().ends_with("a GPU: 3 checks, 1 failed"), "{}", report.text());
    }
}
