//! Loops compiled for several instruction sets, chosen at run time, and the elementary functions they use.
//!
//! The loops are plain Rust that the compiler turns into vector code. Nothing is fused or reordered, so every
//! instruction set gives the same bits.

/// Width of the accumulators in sums: their order is fixed by this, not by the machine.
pub(crate) const LANES: usize = 16;

/// Defines a function whose body is compiled for AVX-512, AVX2 and the build's baseline; the best one runs.
macro_rules! vectorized {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, clippy::too_many_arguments, reason = "instruction sets checked before the call")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                if $crate::cpu::simd::has_avx512() {
                    // SAFETY: the processor has these instructions.
                    return unsafe { avx512($($arg),*) };
                }
                if $crate::cpu::simd::has_avx2() {
                    // SAFETY: the processor has these instructions.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use vectorized;

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Sum of `f(i)` over `0..n` in the fixed order of [`LANES`] accumulators.
#[inline(always)]
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = n - n % LANES;
    let mut i = 0;
    while i < whole {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(i + l);
        }
        i += LANES;
    }
    for (l, i) in (whole..n).enumerate() {
        lanes[l] += f(i);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `e^x`, largest relative error 2e-7 on `[-87, 88]`; 0 below, capped above.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial, 2^n by the exponent bits.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let clamped = x.clamp(-87.0, 88.0);
    let n = clamped * std::f32::consts::LOG2_E + ROUND - ROUND;
    // ln 2 in two parts, the first with few enough bits that its product with n is exact.
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let scale = f32::from_bits(((n as i32 + 127) << 23) as u32);
    if x < -87.0 { 0.0 } else { p * scale }
}

/// `tanh(x)`, largest error 3e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let small = x * (1.0 - x * x / 3.0);
    let large = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if x.abs() < 0.01 { small } else { large }
}

/// The error function, largest error 3e-7: the rational approximation on `[-4, 4]` known from Eigen's `erf` for floats.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let p = -2.726_142_3e-10;
    let p = p * s + 2.770_681_4e-8;
    let p = p * s - 2.101_024e-6;
    let p = p * s - 5.692_506_4e-5;
    let p = p * s - 7.349_906_2e-4;
    let p = p * s - 2.954_6e-3;
    let p = p * s - 1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * s - 2.133_740_5e-4;
    let q = q * s - 1.682_827e-3;
    let q = q * s - 7.373_329e-3;
    let q = q * s - 1.426_473_9e-2;
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error of `f` against `reference`, absolute or, where values are above 1, relative, and where it stands.
    fn worst(f: fn(f32) -> f32, reference: fn(f64) -> f64, from: f32, to: f32) -> (f64, f32) {
        let n = 200_001;
        let errors = (0..n).map(|i| {
            let x = from + (to - from) * i as f32 / (n - 1) as f32;
            let r = reference(f64::from(x));
            ((f64::from(f(x)) - r).abs() / r.abs().max(1.0), x)
        });
        errors.fold((0.0, 0.0), |worst, e| if e.0 > worst.0 { e } else { worst })
    }

    /// The series 2/sqrt(pi) sum (-1)^n x^(2n+1) / (n! (2n+1)), exact enough in f64 up to |x| = 4.
    fn erf_series(x: f64) -> f64 {
        let x = x.clamp(-4.0, 4.0);
        let (mut term, mut total) = (x, x);
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            total += term / f64::from(2 * n + 1);
        }
        total * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn elementary_functions_are_accurate() {
        // Measured: exp 1.2e-7 relative, tanh 1.6e-7, erf 2.1e-7.
        let (error, at) = worst(|x| exp(x) * 2f32.powi(20), |x| x.exp() * 2f64.powi(20), -13.0, 74.0);
        assert!(error < 3e-7, "exp({at}): {error:e}");
        let (error, at) = worst(tanh, f64::tanh, -12.0, 12.0);
        assert!(error < 5e-7, "tanh({at}): {error:e}");
        let (error, at) = worst(erf, erf_series, -4.5, 4.5);
        assert!(error < 6e-7, "erf({at}): {error:e}");
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan() && erf(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }

    #[test]
    fn sums_cover_every_element() {
        for n in 0..70 {
            assert_eq!(sum(n, |i| i as f32 + 1.0), (n * (n + 1) / 2) as f32);
        }
    }
}
