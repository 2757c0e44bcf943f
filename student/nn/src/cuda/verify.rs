//! Every kernel and every kind of matrix product against a plain computation on the host in `f64`, from the numbers
//! that it read, and a small encoder's passes and steps against the CPU's engine: on an emulated device in the tests,
//! on a real one by `distill bench kernels`. What is checked of a kernel stands beside it, in `op`.
//!
//! The emulation runs the kernels themselves, but has the CPU's matrix products in the place of cuBLASLt's: what those
//! may differ by is reasoned, not measured, where their sums are made otherwise.

pub(super) mod bench;
pub(super) mod engine;
mod matmul;

use bench::{Bench, KernelCheck};

use super::device::Device;
use super::op::{activate, attention, embed, loss, norm, optimizer, rows, sums, trigram};
use super::operand::Precision;
use crate::Error;

/// Runs every kernel over several shapes, then the engine, and reports each output.
pub fn verify(device: &Device, report: &mut dyn FnMut(KernelCheck)) -> Result<(), Error> {
    verify_kernels(device, report)?;
    verify_products(device, report)?;
    engine::verify(device, report)
}

fn verify_kernels(device: &Device, report: &mut dyn FnMut(KernelCheck)) -> Result<(), Error> {
    for precision in [Precision::F32, Precision::Bf16] {
        let bench = &mut Bench { device, precision, report };
        norm::verify::verify(bench)?;
        embed::verify::verify(bench)?;
        activate::verify::verify(bench)?;
        sums::verify::verify(bench)?;
        rows::verify::verify(bench)?;
        trigram::verify::verify(bench)?;
        loss::verify::verify(bench)?;
        attention::verify::verify(bench)?;
    }
    optimizer::verify::verify(&mut Bench { device, precision: Precision::F32, report })
}

fn verify_products(device: &Device, report: &mut dyn FnMut(KernelCheck)) -> Result<(), Error> {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        matmul::verify(&mut Bench { device, precision, report })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::emulation;

    type Part = fn(&Device, &mut dyn FnMut(KernelCheck)) -> Result<(), Error>;

    /// Runs a part, of which no check may fail, and returns how many there were.
    fn run(part: Part) -> Option<usize> {
        let device = emulation::device()?;
        let mut failures = Vec::new();
        let mut checks = 0;
        part(&device, &mut |check| {
            checks += 1;
            if !check.passed {
                failures.push(format!("{check:?}"));
            }
        })
        .expect("no kernel faults");
        assert!(failures.is_empty(), "{} of {checks} checks failed:\n{}", failures.len(), failures.join("\n"));
        Some(checks)
    }

    #[test]
    fn every_kernel_computes_what_the_host_computes() {
        let Some(checks) = run(verify_kernels) else { return };
        assert!(checks > 1000, "{checks} checks");
    }

    #[test]
    fn every_kind_of_product_is_what_the_host_computes() {
        let Some(checks) = run(verify_products) else { return };
        assert!(checks > 200, "{checks} checks");
    }

    #[test]
    fn the_engine_is_the_cpu_s_in_every_precision() {
        let Some(checks) = run(engine::verify) else { return };
        assert_eq!(checks, 36);
    }
}
