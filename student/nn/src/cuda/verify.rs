//! Every kernel and every kind of matrix product against a plain computation on the host in `f64`, from the numbers
//! that it read, and a small encoder's passes and steps against the CPU's engine: on an emulated device in the tests,
//! on a real one by `distill bench kernels`. What is checked of a kernel stands beside it, in `op`.
//!
//! The emulation runs the kernels themselves, but has the CPU's matrix products in the place of cuBLASLt's: what those
//! may differ by is reasoned, not measured, where their sums are made otherwise.

pub(super) mod bench;
pub(super) mod engine;
mod matmul;

use bench::{Bench, KernelCheck, PRODUCTION_SLACK};

use super::device::Device;
use super::op::{activate, attention, embed, loss, norm, optimizer, rows, sums, top_k, trigram};
use super::operand::Precision;
use crate::Error;

/// What is checked together: by a process of its own, so that a fault in one part leaves the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Norms, alone and behind a residual connection.
    Norm,
    /// Embeddings and the gradients of their tables.
    Embed,
    /// Activation functions.
    Activation,
    /// Whole rows: gathered, dropped from, rounded, added up, in threes, and the largest of each.
    Rows,
    /// The loss.
    Loss,
    /// Attention.
    Attention,
    /// The gradient's norm and AdamW.
    Optimizer,
    /// Matrix products.
    Products,
    /// Passes and steps of small encoders.
    Engine,
    /// Kernels and products over as much as a step of training has: for a real GPU alone, since the emulation would take
    /// hours.
    Large,
}

/// Checks of one kernel or a few.
type Verify = fn(&mut Bench<'_>) -> Result<(), Error>;

impl Part {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Norm,
        Self::Embed,
        Self::Activation,
        Self::Rows,
        Self::Loss,
        Self::Attention,
        Self::Optimizer,
        Self::Products,
        Self::Engine,
        Self::Large,
    ];

    /// Its word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Norm => "norm",
            Self::Embed => "embed",
            Self::Activation => "activation",
            Self::Rows => "rows",
            Self::Loss => "loss",
            Self::Attention => "attention",
            Self::Optimizer => "optimizer",
            Self::Products => "products",
            Self::Engine => "engine",
            Self::Large => "large",
        }
    }

    /// What is run in each precision.
    fn kernels(self) -> (&'static [Precision], &'static [Verify]) {
        use Precision::{Bf16, F32, Tf32};
        match self {
            Self::Norm => (&[F32, Bf16], &[norm::verify::verify]),
            Self::Embed => (&[F32, Bf16], &[embed::verify::verify]),
            Self::Activation => (&[F32, Bf16], &[activate::verify::verify]),
            Self::Rows => (
                &[F32, Bf16],
                &[rows::verify::verify, sums::verify::verify, trigram::verify::verify, top_k::verify::verify],
            ),
            Self::Loss => (&[F32, Bf16], &[loss::verify::verify]),
            Self::Attention => (&[F32, Bf16], &[attention::verify::verify]),
            Self::Optimizer => (&[F32], &[optimizer::verify::verify]),
            Self::Products => (&[F32, Tf32, Bf16], &[matmul::verify]),
            Self::Engine => (&[], &[]),
            Self::Large => (
                &[F32, Bf16],
                &[
                    matmul::large,
                    norm::verify::large,
                    embed::verify::large,
                    activate::verify::large,
                    sums::verify::large,
                    rows::verify::large,
                    trigram::verify::large,
                    loss::verify::large,
                    top_k::verify::large,
                    attention::verify::large,
                    optimizer::verify::large,
                ],
            ),
        }
    }
}

/// Runs the kernels of a part over several shapes, or the engine, and reports each output. What fails is a check that does
/// not hold, and the rest is still run; an error is returned once nothing can be computed any more.
pub fn verify(device: &Device, part: Part, report: &mut dyn FnMut(KernelCheck)) -> Result<(), Error> {
    let device = &device.noting_faults();
    let report = &mut |mut check: KernelCheck| {
        let faults = device.take_faults();
        if !faults.is_empty() {
            (check.passed, check.fault) = (false, Some(faults.join("; ")));
        }
        report(check);
    };
    if part == Part::Engine {
        engine::verify(device, report)?;
    }
    let slack = if part == Part::Large { PRODUCTION_SLACK } else { 1.0 };
    let (precisions, kernels) = part.kernels();
    for &precision in precisions {
        for verify in kernels {
            let result = verify(&mut Bench { device, precision, slack, report });
            go_on(result, &format!("{} ({precision})", part.name()), "what comes after the check before", report)?;
        }
    }
    match device.take_faults() {
        faults if faults.is_empty() => Ok(()),
        faults => {
            report(KernelCheck::failed(part.name(), "behind its last check", faults.join("; ")));
            Ok(())
        }
    }
}

/// Reports an error as a check that failed, and returns it if nothing can be computed any more.
fn go_on(
    result: Result<(), Error>,
    kernel: &str,
    shape: &str,
    report: &mut dyn FnMut(KernelCheck),
) -> Result<(), Error> {
    match result {
        Ok(()) => Ok(()),
        Err(Error::Device(error)) if error.is_loss() => Err(error.into()),
        Err(error) => {
            report(KernelCheck::failed(kernel, shape, error.to_string()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::emulation;

    /// Runs parts, of which no check may fail, and returns how many there were.
    fn run(parts: &[Part]) -> Option<usize> {
        let device = emulation::device()?;
        let mut failures = Vec::new();
        let mut checks = 0;
        for &part in parts {
            let report = &mut |check: KernelCheck| {
                checks += 1;
                if !check.passed {
                    failures.push(format!("{check:?}"));
                }
            };
            verify(&device, part, report).expect("the emulated device is never lost");
        }
        assert!(failures.is_empty(), "{} of {checks} checks failed:\n{}", failures.len(), failures.join("\n"));
        Some(checks)
    }

    #[test]
    fn every_kernel_computes_what_the_host_computes() {
        use Part::{Activation, Attention, Embed, Loss, Norm, Optimizer, Rows};
        let Some(checks) = run(&[Norm, Embed, Activation, Rows, Loss, Attention, Optimizer]) else { return };
        assert!(checks > 1000, "{checks} checks");
    }

    #[test]
    fn every_kind_of_product_is_what_the_host_computes() {
        let Some(checks) = run(&[Part::Products]) else { return };
        assert!(checks > 200, "{checks} checks");
    }

    #[test]
    fn the_engine_is_the_cpu_s_in_every_precision() {
        let Some(checks) = run(&[Part::Engine]) else { return };
        assert_eq!(checks, 36);
    }
}
