//! Every kernel and every kind of matrix product against a plain computation on the host in `f64`, from the numbers
//! that it read, and a small encoder's passes and steps against the CPU's engine: on an emulated device in the tests,
//! on a real one by `distill bench kernels`.
//!
//! The emulation runs the kernels themselves, but has the CPU's matrix products in the place of cuBLASLt's: what those
//! may differ by is reasoned, not measured, where their sums are made otherwise.

mod attention;
pub(super) mod engine;
mod matmul;
mod optimizer;
mod rows;

use half::bf16;

use super::device::{Buffer, Device, Precision, Ptr};
use crate::random::DropoutSite;
use crate::{DropoutRng, Error, Normal};

/// One output of one kernel for one shape, or of the whole engine.
#[derive(Clone, Debug)]
pub struct KernelCheck {
    /// The kernel and its output.
    pub kernel: String,
    /// What it ran over.
    pub shape: String,
    /// Largest difference from the host's result, over the result's size plus its root mean square over all elements;
    /// infinite where the kernel wrote beside its output. Of the engine, the Euclidean distance of one tensor from the
    /// CPU's over that one's length.
    pub worst: f64,
    /// What is allowed.
    pub tolerance: f64,
    /// Where the largest difference is.
    pub element: usize,
    /// Whether it is allowed.
    pub passed: bool,
}

/// Runs every kernel over several shapes, then the engine, and reports each output.
pub fn verify(device: &Device, report: &mut dyn FnMut(KernelCheck)) -> Result<(), Error> {
    verify_kernels(device, report)?;
    verify_products(device, report)?;
    engine::verify(device, report)
}

fn verify_kernels(device: &Device, report: &mut dyn FnMut(KernelCheck)) -> Result<(), Error> {
    for precision in [Precision::F32, Precision::Bf16] {
        let bench = &mut Bench { device, precision, report };
        rows::verify(bench)?;
        attention::verify(bench)?;
    }
    optimizer::verify(&mut Bench { device, precision: Precision::F32, report })
}

fn verify_products(device: &Device, report: &mut dyn FnMut(KernelCheck)) -> Result<(), Error> {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        matmul::verify(&mut Bench { device, precision, report })?;
    }
    Ok(())
}

/// The device with the type of activations under test, and where results go.
struct Bench<'a> {
    device: &'a Device,
    precision: Precision,
    report: &'a mut dyn FnMut(KernelCheck),
}

/// What is allowed: three times what was measured, for activations in `f32`, in `bf16`, and for `f32` outputs of
/// kernels that read `bf16`.
#[derive(Clone, Copy)]
struct Tolerance {
    f32: f64,
    bf16: f64,
}

/// Numbers on the device and, as the device sees them, on the host.
struct Operand {
    buffer: Buffer,
    values: Vec<f64>,
    number: Number,
}

#[derive(Clone, Copy, PartialEq)]
enum Number {
    F32,
    Bf16,
}

/// Elements before and behind every operand that no kernel may change.
const GUARD: usize = 64;
const UNTOUCHED: f32 = -12345.0;

impl Operand {
    fn ptr(&self) -> Ptr {
        self.at(0)
    }

    /// The address of element `index`.
    fn at(&self, index: usize) -> Ptr {
        self.buffer.ptr().offset_bytes((GUARD + index) * self.number.bytes())
    }
}

impl Number {
    fn bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 4 }
    }
}

impl Bench<'_> {
    fn number(&self) -> Number {
        if self.precision == Precision::Bf16 { Number::Bf16 } else { Number::F32 }
    }

    /// These numbers, rounded to what the device stores.
    fn operand(&self, values: &[f32], number: Number) -> Result<Operand, Error> {
        let guard = [UNTOUCHED; GUARD];
        let guarded = [&guard, values, &guard].concat();
        let buffer = Buffer::zeroed(self.device, guarded.len() * number.bytes())?;
        let seen = match number {
            Number::F32 => {
                self.device.upload(buffer.ptr(), &guarded)?;
                values.iter().map(|&value| f64::from(value)).collect()
            }
            Number::Bf16 => {
                let rounded: Vec<u16> = guarded.iter().map(|&value| bf16::from_f32(value).to_bits()).collect();
                self.device.upload(buffer.ptr(), &rounded)?;
                values.iter().map(|&value| bf16::from_f32(value).to_f64()).collect()
            }
        };
        Ok(Operand { buffer, values: seen, number })
    }

    /// Random activations.
    fn activations(&self, purpose: &str, count: usize) -> Result<Operand, Error> {
        self.operand(&normal(purpose, count, 1.0), self.number())
    }

    /// Random numbers in `f32`.
    fn floats(&self, purpose: &str, count: usize, deviation: f64) -> Result<Operand, Error> {
        self.operand(&normal(purpose, count, deviation), Number::F32)
    }

    /// Room for activations; NaN until written.
    fn output(&self, count: usize) -> Result<Operand, Error> {
        self.operand(&vec![f32::NAN; count], self.number())
    }

    /// Room for `f32`; NaN until written.
    fn output_floats(&self, count: usize) -> Result<Operand, Error> {
        self.operand(&vec![f32::NAN; count], Number::F32)
    }

    fn words(&self, words: &[u32]) -> Result<Buffer, Error> {
        let buffer = Buffer::zeroed(self.device, words.len().max(1) * 4)?;
        self.device.upload(buffer.ptr(), words)?;
        Ok(buffer)
    }

    /// What stands there now, and whether what stands around it is untouched.
    fn read(&self, operand: &Operand) -> Result<(Vec<f64>, bool), Error> {
        let count = operand.values.len() + 2 * GUARD;
        let mut values = match operand.number {
            Number::F32 => {
                let mut values = vec![0f32; count];
                self.device.download(operand.buffer.ptr(), &mut values)?;
                values.into_iter().map(f64::from).collect::<Vec<_>>()
            }
            Number::Bf16 => {
                let mut bits = vec![0u16; count];
                self.device.download(operand.buffer.ptr(), &mut bits)?;
                bits.into_iter().map(|bits| bf16::from_bits(bits).to_f64()).collect()
            }
        };
        let guard = match operand.number {
            Number::F32 => f64::from(UNTOUCHED),
            Number::Bf16 => bf16::from_f32(UNTOUCHED).to_f64(),
        };
        let behind = values.split_off(GUARD + operand.values.len());
        let inside = values.split_off(GUARD);
        Ok((inside, values.iter().chain(&behind).all(|&value| value == guard)))
    }

    /// Reports an output against what it should be.
    fn compare(
        &mut self,
        kernel: &str,
        output: &str,
        shape: &str,
        operand: &Operand,
        expected: &[f64],
        tolerance: Tolerance,
    ) -> Result<(), Error> {
        let (found, untouched) = self.read(operand)?;
        assert_eq!(found.len(), expected.len(), "{kernel}, {output}: the host's result has another size");
        let size = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len().max(1) as f64).sqrt().max(1e-30);
        let (mut worst, mut element) = (0.0, 0);
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (found - expected).abs() / (expected.abs() + size);
            // Not a number: neither the kernel's nor the host's may be.
            let error = if error.is_nan() { f64::INFINITY } else { error };
            if error > worst {
                (worst, element) = (error, index);
            }
        }
        if !untouched {
            worst = f64::INFINITY;
        }
        let tolerance = if self.precision == Precision::Bf16 { tolerance.bf16 } else { tolerance.f32 };
        (self.report)(KernelCheck {
            kernel: format!("{kernel} ({}): {output}", self.precision),
            shape: shape.to_string(),
            worst,
            tolerance,
            element,
            passed: worst <= tolerance,
        });
        Ok(())
    }
}

/// Random numbers that depend on `purpose` alone.
fn normal(purpose: &str, count: usize, deviation: f64) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Normal::new(17, purpose, deviation).fill(&mut values);
    values
}

/// A mask for the tests; `None` without dropout.
fn mask(on: bool) -> Option<DropoutSite> {
    DropoutRng::new(7, 3, 0).site(5, if on { 0.2 } else { 0.0 })
}

fn factor(site: Option<DropoutSite>, element: usize) -> f64 {
    site.map_or(1.0, |site| f64::from(site.factor(element as u32)))
}

/// The sum over rows of `[rows, width]`.
fn column_sums(rows: &[f64], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
    sums
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
        assert_eq!(checks, 18);
    }
}
