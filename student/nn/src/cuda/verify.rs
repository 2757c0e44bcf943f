//! Checks every kernel and every kind of matrix product against a plain `f64` computation on the host from the same
//! inputs, and a small encoder's passes and steps against the CPU engine: on the emulated device in the tests, on a
//! real one with `distill bench kernels`. The check of a kernel is next to it, in `op`.
//!
//! The emulation runs the actual kernels, but uses the CPU's matrix products instead of cuBLASLt's. Tolerances for
//! products that cuBLASLt may sum in another order are therefore estimated, not measured.

pub(super) mod bench;
pub(super) mod engine;
mod matmul;
mod settings;

use bench::{Bench, KernelCheck, PRODUCTION_SLACK, go_on};

use super::device::Device;
use super::op::{activate, attention, embed, loss, norm, optimizer, rows, sums, top_k, trigram};
use super::operand::Precision;
use crate::Error;

/// A group of checks. `distill bench kernels` runs each in a process of its own, so that a crash does not affect the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Norms, alone and after a residual connection.
    Norm,
    /// Embeddings and the gradients of their tables.
    Embed,
    /// Activation functions.
    Activation,
    /// Operations on rows: gather, dropout, rounding, sums, trigrams and top k.
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
    /// Kernels and products at the sizes of a training step; only for a real GPU, since the emulation would take hours.
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

    /// Its name on the command line.
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

    /// The precisions, and the checks to run in each.
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

/// Runs the checks of a part over several shapes, and reports each output. A failing launch is reported as a failed
/// check, and the rest still runs; an error is returned only if the GPU cannot compute any more.
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
        settings::verify(device, report)?;
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
        assert_eq!(checks, 63);
    }
}
