//! Tools for checks: operands on the device with the same values on the host, and their comparison.

use crate::cuda::device::{Buffer, Device};
use crate::cuda::op::call::Mask;
use crate::cuda::operand::{Matrix, Number, Precision, Ptr, Vector, Words};
use crate::{DropoutRng, Error, Normal};

/// The check of one output of a kernel for one shape, or of the whole engine.
#[derive(Clone, Debug)]
pub struct KernelCheck {
    /// The kernel and its output.
    pub kernel: String,
    /// The shape.
    pub shape: String,
    /// Largest error of an element, `|found - expected| / (|expected| + rms(expected))`; infinite if the kernel wrote
    /// outside its output. For the engine: the Euclidean distance between a tensor and the CPU's, divided by the norm
    /// of the latter.
    pub worst: f64,
    /// The tolerance for [`worst`](Self::worst).
    pub tolerance: f64,
    /// Index of the element with the largest error.
    pub element: usize,
    /// Whether the error is within the tolerance.
    pub passed: bool,
    /// The error of a launch or copy before the comparison, in which case nothing was compared.
    pub fault: Option<String>,
}

impl KernelCheck {
    /// A check that could not be made.
    pub(super) fn failed(kernel: &str, shape: &str, fault: String) -> Self {
        let (kernel, shape) = (kernel.to_string(), shape.to_string());
        Self { kernel, shape, worst: f64::INFINITY, tolerance: 0.0, element: 0, passed: false, fault: Some(fault) }
    }
}

/// Reports an error as a failed check, and returns it if the GPU cannot compute any more.
pub(super) fn go_on(
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

/// The device with the type of activations under test, and where results go.
pub(in crate::cuda) struct Bench<'a> {
    pub(in crate::cuda) device: &'a Device,
    pub(in crate::cuda) precision: Precision,
    /// What tolerances are multiplied with.
    pub(super) slack: f64,
    pub(super) report: &'a mut dyn FnMut(KernelCheck),
}

/// What is allowed: three times what was measured, for activations in `f32`, in `bf16`, and for `f32` outputs of
/// kernels that read `bf16`.
#[derive(Clone, Copy)]
pub(in crate::cuda) struct Tolerance {
    pub(in crate::cuda) f32: f64,
    pub(in crate::cuda) bf16: f64,
}

/// Activations that a kernel rounds once, from `f32` arithmetic. Measured: 4.5e-7 and 3.1e-3.
pub(in crate::cuda) const ROUNDED: Tolerance = Tolerance { f32: 1.4e-6, bf16: 9.3e-3 };
/// Outputs in `f32`. Measured: 3.5e-7 and 3.1e-7.
pub(in crate::cuda) const FLOATS: Tolerance = Tolerance { f32: 1.1e-6, bf16: 9.3e-7 };

/// Rows and widths that kernels over rows are checked with.
pub(in crate::cuda) const SHAPES: [(usize, usize); 7] =
    [(1, 64), (3, 30), (17, 96), (5, 768), (67, 33), (2, 1025), (9, 2056)];

/// As many rows as a step of training has, and a few more, so that the last block is not full.
pub(in crate::cuda) const PRODUCTION_ROWS: usize = 192 * 128 + 3;
/// What such sums may differ by, in terms of what is allowed elsewhere: at most the root of how many times longer they are
/// than over 300 rows.
pub(super) const PRODUCTION_SLACK: f64 = 9.0;

/// Numbers on the device and, as the device sees them, on the host.
pub(in crate::cuda) struct Operand {
    buffer: Buffer,
    pub(in crate::cuda) values: Vec<f64>,
    pub(super) number: Number,
}

/// Words on the device.
pub(in crate::cuda) struct WordOperand {
    buffer: Buffer,
    len: usize,
}

/// Elements before and behind every operand that no kernel may change.
const GUARD: usize = 64;
const UNTOUCHED: f32 = -12345.0;

impl Operand {
    /// All of it in rows of `width`.
    pub(in crate::cuda) fn matrix(&self, width: usize) -> Matrix {
        Matrix::new(self.number, self.ptr(), [self.values.len() / width, width])
    }

    /// All of it.
    pub(in crate::cuda) fn vector(&self) -> Vector {
        Vector { at: self.ptr(), len: self.values.len() }
    }

    pub(super) fn ptr(&self) -> Ptr {
        self.at(0)
    }

    /// The address of element `index`.
    pub(in crate::cuda) fn at(&self, index: usize) -> Ptr {
        self.buffer.ptr().offset_bytes((GUARD + index) * self.number.bytes())
    }
}

impl WordOperand {
    pub(in crate::cuda) fn words(&self) -> Words {
        Words { at: self.buffer.ptr(), len: self.len }
    }
}

impl Bench<'_> {
    pub(in crate::cuda) fn number(&self) -> Number {
        self.precision.number()
    }

    /// These numbers, rounded to what the device stores.
    pub(in crate::cuda) fn operand(&self, values: &[f32], number: Number) -> Result<Operand, Error> {
        let guard = [UNTOUCHED; GUARD];
        let guarded = [&guard, values, &guard].concat();
        let buffer = Buffer::zeroed(self.device, guarded.len() * number.bytes())?;
        self.device.write(Matrix::new(number, buffer.ptr(), [1, guarded.len()]), &guarded)?;
        let seen = number.decode(&number.encode(values)).into_iter().map(f64::from).collect();
        Ok(Operand { buffer, values: seen, number })
    }

    /// Random activations.
    pub(in crate::cuda) fn activations(&self, purpose: &str, count: usize) -> Result<Operand, Error> {
        self.operand(&normal(purpose, count, 1.0), self.number())
    }

    /// Random numbers in `f32`.
    pub(in crate::cuda) fn floats(&self, purpose: &str, count: usize, deviation: f64) -> Result<Operand, Error> {
        self.operand(&normal(purpose, count, deviation), Number::F32)
    }

    /// Room for activations; NaN until written.
    pub(in crate::cuda) fn output(&self, count: usize) -> Result<Operand, Error> {
        self.operand(&vec![f32::NAN; count], self.number())
    }

    /// Room for `f32`; NaN until written.
    pub(in crate::cuda) fn output_floats(&self, count: usize) -> Result<Operand, Error> {
        self.operand(&vec![f32::NAN; count], Number::F32)
    }

    pub(in crate::cuda) fn words(&self, words: &[u32]) -> Result<WordOperand, Error> {
        let buffer = Buffer::zeroed(self.device, words.len() * 4)?;
        self.device.upload(buffer.ptr(), words)?;
        Ok(WordOperand { buffer, len: words.len() })
    }

    /// What stands there now, and whether what stands around it is untouched.
    pub(in crate::cuda) fn read(&self, operand: &Operand) -> Result<(Vec<f64>, bool), Error> {
        let count = operand.values.len() + 2 * GUARD;
        let found = self.device.read(Matrix::new(operand.number, operand.buffer.ptr(), [1, count]))?;
        let mut values: Vec<f64> = found.into_iter().map(f64::from).collect();
        let guard = f64::from(operand.number.decode(&operand.number.encode(&[UNTOUCHED]))[0]);
        let behind = values.split_off(GUARD + operand.values.len());
        let inside = values.split_off(GUARD);
        Ok((inside, values.iter().chain(&behind).all(|&value| value == guard)))
    }

    /// Some elements as an operand of their own; nothing but NaN if anything in the whole is NaN, or what stands around it
    /// was touched.
    pub(super) fn sample(&self, operand: &Operand, places: &[usize]) -> Result<Operand, Error> {
        let (found, untouched) = self.read(operand)?;
        let whole = untouched && !found.iter().any(|value| value.is_nan());
        let sampled = places.iter().map(|&place| if whole { found[place] as f32 } else { f32::NAN });
        self.operand(&sampled.collect::<Vec<_>>(), operand.number)
    }

    /// Reports whether two outputs are the same, bit for bit; by how many elements they differ.
    pub(in crate::cuda) fn same(
        &mut self,
        kernel: &str,
        output: &str,
        shape: &str,
        [one, other]: [&Operand; 2],
    ) -> Result<(), Error> {
        let (one, _) = self.read(one)?;
        let (other, _) = self.read(other)?;
        let differ = |index: &usize| one[*index].to_bits() != other[*index].to_bits();
        let different = (0..one.len()).filter(differ).count();
        (self.report)(KernelCheck {
            kernel: format!("{kernel} ({}): {output}", self.precision),
            shape: shape.to_string(),
            worst: different as f64,
            tolerance: 0.0,
            element: (0..one.len()).find(differ).unwrap_or(0),
            passed: different == 0,
            fault: None,
        });
        Ok(())
    }

    /// Reports an output against what it should be.
    pub(in crate::cuda) fn compare(
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
        let tolerance = self.slack * if self.precision == Precision::Bf16 { tolerance.bf16 } else { tolerance.f32 };
        (self.report)(KernelCheck {
            kernel: format!("{kernel} ({}): {output}", self.precision),
            shape: shape.to_string(),
            worst,
            tolerance,
            element,
            passed: worst <= tolerance,
            fault: None,
        });
        Ok(())
    }
}

/// Random numbers that depend on `purpose` alone.
pub(in crate::cuda) fn normal(purpose: &str, count: usize, deviation: f64) -> Vec<f32> {
    // A prime, so that rows and columns do not repeat with them.
    const DISTINCT: usize = 1_000_003;
    let mut values = vec![0.0; count.min(DISTINCT)];
    Normal::new(17, purpose, deviation).fill(&mut values);
    if count > DISTINCT {
        values = values.iter().copied().cycle().take(count).collect();
    }
    values
}

/// Masks for the tests over this many rows: none, then from the step's first row, from a later one, from one of the
/// last whose elements' numbers fit 32 bits, so that they end in the middle of the batch, and from far beyond.
pub(in crate::cuda) fn masks(rows: usize, row_elements: usize) -> [Mask; 5] {
    let mask = |rate, first| Mask { site: DropoutRng::new(7, 3, 0).site(5, rate), first };
    let row_of = |number: u64| number / row_elements as u64;
    let fit = row_of(1 << 32) - rows as u64 / 2;
    [mask(0.0, 0), mask(0.2, 0), mask(0.2, 1000), mask(0.2, fit), mask(0.2, row_of(9 << 32) + 5)]
}

/// What an element of the row whose first element has this number is multiplied with.
pub(in crate::cuda) fn factor(mask: Mask, row_number: u64, column: usize) -> f64 {
    mask.site.map_or(1.0, |site| {
        let (site, first) = site.row(row_number);
        f64::from(site.factor(first.wrapping_add(column as u32)))
    })
}

/// The factor of element `index` of rows of `width`, the first of which is row `mask.first` of the step.
pub(in crate::cuda) fn factor_at(mask: Mask, index: usize, width: usize) -> f64 {
    factor(mask, (mask.first + (index / width) as u64) * width as u64, index % width)
}

pub(in crate::cuda) fn describe(mask: Mask) -> String {
    mask.site.map_or("no dropout".to_string(), |_| format!("dropout from row {}", mask.first))
}

/// The sum over rows of `[rows, width]`.
pub(in crate::cuda) fn column_sums(rows: &[f64], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
    sums
}
