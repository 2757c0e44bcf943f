//! Checks the matrix products that the engine uses, in each precision: by cuBLASLt, and by the fallback kernels for
//! products that cuBLASLt refuses.

use super::bench::{Bench, Operand, PRODUCTION_ROWS, Tolerance, normal};
use crate::Error;
use crate::cuda::op::product;
use crate::cuda::operand::{Matrix, Number, Precision};
use crate::cuda::work::Matmul;

/// Rounded once to `bf16`. Measured: 3.2e-3.
const BF16: f64 = 9.7e-3;
/// Sums in `f32` of operands in `f32`. Measured: 2.1e-6, in sums of 1,536 terms.
const F32: f64 = 6.4e-6;
/// Sums in `f32` of operands in `bf16`. Measured: 7.8e-7. Tensor cores may cut off what they add up where the emulation
/// rounds, sixteen terms at a time: over 1,000 terms at most 63 times `2^-23`, on top of three times what was measured.
const FLOATS_OF_BF16: f64 = 1e-5;
/// Operands that lose all but ten bits of the mantissa, which the emulation does not imitate. Cut off, an operand is
/// off by up to `2^-10` of itself: `0.35 * 2^-10` in the mean, with a deviation of `0.21 * 2^-10`. A term is off by two
/// such, a sum of terms by `0.7 * 2^-10` of itself for the means, and for the rest by `0.3 * 2^-10` of the root mean
/// square of sums, five times as much at the worst of many elements: `2.2 * 2^-10` together. These operands, cut off on
/// the host, gave at most 2.8e-3, and like ones rounded to `bf16` mostly 7e-3 and more, which fails.
const TF32: f64 = 1.0 / 256.0;

/// A linear map's sizes.
#[derive(Clone, Copy)]
struct Map {
    outer: usize,
    inner: usize,
    /// Elements that stand before weight and bias, as those of the queries stand before those of the keys.
    before: usize,
}

impl Map {
    /// `[outer, inner]`, behind what stands before.
    fn of(self, operand: &Operand) -> Matrix {
        Matrix::new(operand.number, operand.at(self.before), [self.outer, self.inner])
    }
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// cuBLASLt, or on the emulated device the CPU's engine.
    Device,
    /// The kernel that stands in for cuBLASLt.
    Kernel,
}

impl By {
    fn name(self) -> &'static str {
        if self == Self::Device { "matmul" } else { "product" }
    }
}

pub(super) fn verify(bench: &mut Bench<'_>) -> Result<(), Error> {
    let by = By::Device;
    let maps: [(Map, &[usize]); 3] = [
        // 33 and 40 tokens share a plan, made for 48; so do 999 and 1,000, 249 and 250.
        (Map { outer: 1536, inner: 384, before: 0 }, &[1, 17, 33, 40]),
        (Map { outer: 96, inner: 128, before: 0 }, &[250, 999, 1000]),
        (Map { outer: 40, inner: 24, before: 24 }, &[1, 17, 250, 1000]),
    ];
    for (map, counts) in maps {
        for &tokens in counts {
            each_way(bench, by, map, tokens)?;
        }
    }
    linear(bench, by, Map { outer: 384, inner: 1536, before: 0 }, 17, None)?;
    for classes in [2, 3, 77] {
        for tokens in [1, 17, 250] {
            let head = Map { outer: classes, inner: 96, before: 0 };
            linear(bench, by, head, tokens, Some(Number::F32))?;
            backward(bench, by, head, tokens)?;
        }
    }
    for tokens in [1, 17, 250] {
        decode(bench, by, Map { outer: 66, inner: 24, before: 0 }, 40, tokens)?;
        // A pruned vocabulary is as often odd.
        decode(bench, by, Map { outer: 77, inner: 24, before: 0 }, 40, tokens)?;
        decode(bench, by, Map { outer: 96, inner: 128, before: 0 }, 384, tokens)?;
    }
    // Few results of long sums, which the library splits.
    same_bits(bench, Map { outer: 96, inner: 128, before: 0 }, 1000)?;
    same_bits(bench, Map { outer: 77, inner: 384, before: 0 }, 17)?;
    sampled(bench, Map { outer: 96, inner: 128, before: 0 }, 250)?;
    // What stands in for TF32 reads all digits.
    if bench.precision != Precision::Tf32 {
        let by = By::Kernel;
        each_way(bench, by, Map { outer: 33, inner: 70, before: 24 }, 17)?;
        each_way(bench, by, Map { outer: 66, inner: 30, before: 901 }, 50)?;
        linear(bench, by, Map { outer: 3, inner: 96, before: 0 }, 17, Some(Number::F32))?;
        decode(bench, by, Map { outer: 77, inner: 24, before: 0 }, 40, 17)?;
    }
    // Last, since others have seen such a bias end all work on a GPU: not at a multiple of 16 bytes.
    for tokens in [1, 17, 249, 250] {
        each_way(bench, by, Map { outer: 66, inner: 30, before: 901 }, tokens)?;
    }
    each_way(bench, by, Map { outer: 64, inner: 32, before: 3 }, 40)
}

/// Forwards with a bias and without, and backwards.
fn each_way(bench: &mut Bench<'_>, by: By, map: Map, tokens: usize) -> Result<(), Error> {
    let bias = Some(bench.number());
    linear(bench, by, map, tokens, bias)?;
    linear(bench, by, map, tokens, None)?;
    backward(bench, by, map, tokens)
}

/// Over as many tokens as training has.
pub(super) fn large(bench: &mut Bench<'_>) -> Result<(), Error> {
    let square = Map { outer: 768, inner: 768, before: 0 };
    sampled(bench, Map { outer: 3072, inner: 768, before: 0 }, PRODUCTION_ROWS)?;
    same_bits(bench, square, PRODUCTION_ROWS)?;
    same_bits(bench, square, 512)
}

/// Forwards and backwards, of which some elements are computed on the host.
fn sampled(bench: &mut Bench<'_>, map: Map, tokens: usize) -> Result<(), Error> {
    let Map { outer, inner, .. } = map;
    let shape = format!("{}, sampled", shape(map, tokens));
    let (x, d) = (bench.activations("x", tokens * inner)?, bench.activations("d", tokens * outer)?);
    let weight = bench.weight(map)?;
    // The first and the last, and others far apart in both directions.
    let places = |rows: usize, width: usize| -> Vec<usize> {
        let count = rows * width;
        (0..500).map(|i| i * 7919 * (count / 500_000 + 1) % count).chain([count - 1]).collect()
    };
    // The sum over k of a[i][k] b[k][j], by the distance from one k to the next in each.
    let term = |a: &[f64], b: &[f64], terms: usize| (0..terms).map(|k| a[k] * b[k]).sum::<f64>();
    let column = |values: &[f64], width: usize, column: usize| -> Vec<f64> {
        values.iter().skip(column).step_by(width).copied().collect()
    };

    let bias = bench.operand(&normal("bias", outer, (inner as f64).sqrt()), bench.number())?;
    let out = bench.output(tokens * outer)?;
    let product = bench.product([x.matrix(inner), map.of(&weight), out.matrix(outer)]);
    bench.device.matmul(Matmul { b_transposed: true, bias: Some(bias.at(0)), ..product })?;
    let at = places(tokens, outer);
    let expected: Vec<f64> = at
        .iter()
        .map(|&at| {
            let (token, unit) = (at / outer, at % outer);
            bias.values[unit] + term(&x.values[token * inner..], &weight.values[unit * inner..], inner)
        })
        .collect();
    let found = bench.sample(&out, &at)?;
    let tolerance = bench.product_tolerance(bench.number());
    bench.compare("matmul", "x W^T + bias", &shape, &found, &expected, tolerance)?;

    let d_x = bench.output(tokens * inner)?;
    bench.device.matmul(bench.product([d.matrix(outer), map.of(&weight), d_x.matrix(inner)]))?;
    let at = places(tokens, inner);
    let expected: Vec<f64> = at
        .iter()
        .map(|&at| term(&d.values[at / inner * outer..], &column(&weight.values, inner, at % inner), outer))
        .collect();
    let found = bench.sample(&d_x, &at)?;
    bench.compare("matmul", "d W", &shape, &found, &expected, tolerance)?;

    let gradient = bench.floats("gradient", outer * inner, 1.0)?;
    let product = bench.product([d.matrix(outer), x.matrix(inner), gradient.matrix(inner)]);
    bench.device.matmul(Matmul { a_transposed: true, accumulate: true, ..product })?;
    let at: Vec<usize> = places(outer, inner).into_iter().step_by(8).collect();
    let expected: Vec<f64> = at
        .iter()
        .map(|&at| {
            let (d, x) = (column(&d.values, outer, at / inner), column(&x.values, inner, at % inner));
            gradient.values[at] + term(&d, &x, tokens)
        })
        .collect();
    let found = bench.sample(&gradient, &at)?;
    let tolerance = bench.product_tolerance(Number::F32);
    bench.compare("matmul", "+= d^T x", &shape, &found, &expected, tolerance)
}

/// A product, and a weight's gradient, each computed twice from the same operands.
fn same_bits(bench: &mut Bench<'_>, map: Map, tokens: usize) -> Result<(), Error> {
    let Map { outer, inner, .. } = map;
    let (x, d) = (bench.activations("x", tokens * inner)?, bench.activations("d", tokens * outer)?);
    let weight = bench.weight(map)?;
    let mut outputs = Vec::new();
    let mut gradients = Vec::new();
    for _ in 0..2 {
        let out = bench.output(tokens * outer)?;
        let product = bench.product([x.matrix(inner), map.of(&weight), out.matrix(outer)]);
        bench.device.matmul(Matmul { b_transposed: true, ..product })?;
        outputs.push(out);
        let gradient = bench.floats("gradient", outer * inner, 1.0)?;
        let product = bench.product([d.matrix(outer), x.matrix(inner), gradient.matrix(inner)]);
        bench.device.matmul(Matmul { a_transposed: true, accumulate: true, ..product })?;
        gradients.push(gradient);
    }
    let shape = shape(map, tokens);
    bench.same("matmul", "x W^T, twice", &shape, [&outputs[0], &outputs[1]])?;
    bench.same("matmul", "+= d^T x, twice", &shape, [&gradients[0], &gradients[1]])
}

impl Bench<'_> {
    /// What is allowed in a product with this output.
    fn product_tolerance(&self, output: Number) -> Tolerance {
        let f32 = if self.precision == Precision::Tf32 { TF32 } else { F32 };
        Tolerance { f32, bf16: if output == Number::F32 { FLOATS_OF_BF16 } else { BF16 } }
    }

    /// `c = a b`
    fn product(&self, [a, b, c]: [Matrix; 3]) -> Matmul {
        let tf32 = self.precision == Precision::Tf32;
        Matmul { a, a_transposed: false, b, b_transposed: false, c, accumulate: false, bias: None, tf32 }
    }

    fn multiply(&self, by: By, matmul: Matmul) -> Result<(), Error> {
        if by == By::Device {
            return self.device.matmul(matmul);
        }
        let (launch, arguments) = product::launch::product(&matmul);
        self.device.launch(launch, &arguments)
    }

    /// A weight `[outer, inner]`.
    fn weight(&self, map: Map) -> Result<Operand, Error> {
        self.activations("weight", map.before + map.outer * map.inner)
    }
}

/// `x W^T`, with a bias of the output's number format; as the head has it where that is `f32`.
fn linear(bench: &mut Bench<'_>, by: By, map: Map, tokens: usize, bias: Option<Number>) -> Result<(), Error> {
    let Map { outer, inner, before } = map;
    let x = bench.activations("x", tokens * inner)?;
    let weight = bench.weight(map)?;
    let output = bias.unwrap_or(bench.number());
    let bias =
        bias.map(|number| bench.operand(&normal("bias", before + outer, (inner as f64).sqrt()), number)).transpose()?;
    let out = bench.operand(&vec![f32::NAN; tokens * outer], output)?;
    bench.multiply(
        by,
        Matmul {
            b_transposed: true,
            bias: bias.as_ref().map(|bias| bias.at(before)),
            ..bench.product([x.matrix(inner), map.of(&weight), out.matrix(outer)])
        },
    )?;
    let mut expected: Vec<f64> = match &bias {
        Some(bias) => bias.values[before..].repeat(tokens),
        None => vec![0.0; tokens * outer],
    };
    let transposed = transpose(&weight.values[before..], inner);
    add_product(&x.values, &transposed, inner, outer, &mut expected);
    let kind = match (&bias, output) {
        (None, _) => "x W^T",
        (Some(_), Number::F32) if bench.number() == Number::Bf16 => "x W^T + bias in f32",
        _ => "x W^T + bias",
    };
    let tolerance = bench.product_tolerance(output);
    bench.compare(by.name(), kind, &shape(map, tokens), &out, &expected, tolerance)
}

/// `d W`, alone and added to what is there, and `d^T x` added to a weight's gradient.
fn backward(bench: &mut Bench<'_>, by: By, map: Map, tokens: usize) -> Result<(), Error> {
    let Map { outer, inner, before } = map;
    let d = bench.activations("d", tokens * outer)?;
    let weight = bench.weight(map)?;
    let mut product = vec![0.0; tokens * inner];
    add_product(&d.values, &weight.values[before..], outer, inner, &mut product);
    let number = bench.number();
    let tolerance = bench.product_tolerance(number);
    for accumulate in [false, true] {
        let d_x = match accumulate {
            true => bench.activations("destination", tokens * inner)?,
            false => bench.output(tokens * inner)?,
        };
        bench.multiply(
            by,
            Matmul { accumulate, ..bench.product([d.matrix(outer), map.of(&weight), d_x.matrix(inner)]) },
        )?;
        let (kind, expected) = match accumulate {
            true => ("+= d W", d_x.values.iter().zip(&product).map(|(a, b)| a + b).collect()),
            false => ("d W", product.clone()),
        };
        bench.compare(by.name(), kind, &shape(map, tokens), &d_x, &expected, tolerance)?;
    }

    let x = bench.activations("x", tokens * inner)?;
    let gradient = bench.floats("gradient", before + outer * inner, 1.0)?;
    bench.multiply(
        by,
        Matmul {
            a_transposed: true,
            accumulate: true,
            ..bench.product([d.matrix(outer), x.matrix(inner), map.of(&gradient)])
        },
    )?;
    let mut expected = gradient.values.clone();
    add_product(&transpose(&d.values, outer), &x.values, tokens, inner, &mut expected[before..]);
    let tolerance = bench.product_tolerance(Number::F32);
    bench.compare(by.name(), "+= d^T x", &shape(map, tokens), &gradient, &expected, tolerance)
}

/// An output matrix of two parts, `words [outer, inner]` and `rest [width - inner, outer]`: what each makes of its columns
/// of `x`, added up in `f32`; the gradients in these columns, and that of `rest`.
fn decode(bench: &mut Bench<'_>, by: By, words_map: Map, width: usize, tokens: usize) -> Result<(), Error> {
    let Map { outer, inner, .. } = words_map;
    let more = width - inner;
    let shape = format!("{}, width {width}", shape(words_map, tokens));
    let (x, d) = (bench.activations("x", tokens * width)?, bench.activations("d", tokens * outer)?);
    let (words, rest) = (bench.weight(words_map)?, bench.activations("rest", more * outer)?);
    let bias = bench.floats("bias", outer, (width as f64).sqrt())?;
    let out = bench.output_floats(tokens * outer)?;
    let columns = [0..inner, inner..width];
    let [x_words, x_rest] = columns.clone().map(|columns| x.matrix(width).columns(columns));
    let bias_at = Some(bias.at(0));
    let products = [
        Matmul {
            b_transposed: true,
            bias: bias_at,
            ..bench.product([x_words, words_map.of(&words), out.matrix(outer)])
        },
        Matmul { accumulate: true, ..bench.product([x_rest, rest.matrix(outer), out.matrix(outer)]) },
    ];
    products.into_iter().try_for_each(|product| bench.multiply(by, product))?;
    let whole = [transpose(&words.values, inner), rest.values.clone()].concat();
    let mut expected = bias.values.repeat(tokens);
    add_product(&x.values, &whole, width, outer, &mut expected);
    let tolerance = bench.product_tolerance(Number::F32);
    bench.compare(by.name(), "x W^T + bias + y R", &shape, &out, &expected, tolerance)?;

    let d_x = bench.output(tokens * width)?;
    let [d_words, d_rest] = columns.map(|columns| d_x.matrix(width).columns(columns));
    let d_out = d.matrix(outer);
    let products = [
        bench.product([d_out, words_map.of(&words), d_words]),
        Matmul { b_transposed: true, ..bench.product([d_out, rest.matrix(outer), d_rest]) },
    ];
    products.into_iter().try_for_each(|product| bench.multiply(by, product))?;
    let mut expected = vec![0.0; tokens * width];
    add_product(&d.values, &transpose(&whole, outer), outer, width, &mut expected);
    let of_activations = bench.product_tolerance(bench.number());
    bench.compare(by.name(), "d W, d R^T", &shape, &d_x, &expected, of_activations)?;

    let gradient = bench.floats("gradient", more * outer, 1.0)?;
    let product = bench.product([x_rest, d_out, gradient.matrix(outer)]);
    bench.multiply(by, Matmul { a_transposed: true, accumulate: true, ..product })?;
    let mut expected = gradient.values.clone();
    let of_rest = &transpose(&x.values, width)[inner * tokens..];
    add_product(of_rest, &d.values, tokens, outer, &mut expected);
    bench.compare(by.name(), "+= y^T d", &shape, &gradient, &expected, tolerance)
}

fn shape(map: Map, tokens: usize) -> String {
    format!("tokens {tokens}, outer {}, inner {}", map.outer, map.inner)
}

/// Adds `a [m, k] b [k, n]` to `c [m, n]`.
fn add_product(a: &[f64], b: &[f64], k: usize, n: usize, c: &mut [f64]) {
    for (a, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        for (a, b) in a.iter().zip(b.chunks_exact(n)) {
            for (c, b) in c.iter_mut().zip(b) {
                *c += a * b;
            }
        }
    }
}

/// `[rows, columns]` as `[columns, rows]`.
fn transpose(values: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}
