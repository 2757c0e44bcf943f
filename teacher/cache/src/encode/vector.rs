//! Loops over wide outputs, compiled for what the CPU has.

/// Defines a function by a plain one, compiled for AVX-512, AVX2 and the build's baseline; the best one runs. Nothing is
/// fused or reordered, so all give the same bits.
macro_rules! for_this_cpu {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $plain:ident) => {
        $(#[$doc])*
        $vis fn $name($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn widest($($argument: $type),*) $(-> $result)? {
                    $plain($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn wide($($argument: $type),*) $(-> $result)? {
                    $plain($($argument),*)
                }
                if std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512bw")
                {
                    // SAFETY: the CPU has what the function is compiled for.
                    #[expect(unsafe_code, reason = "vector instructions")]
                    return unsafe { widest($($argument),*) };
                }
                if std::is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has what the function is compiled for.
                    #[expect(unsafe_code, reason = "vector instructions")]
                    return unsafe { wide($($argument),*) };
                }
            }
            $plain($($argument),*)
        }
    };
}

pub(super) use for_this_cpu;

/// Lanes of the loops: their order is fixed by this, not by the machine.
pub(super) const LANES: usize = 16;

for_this_cpu! {
    /// Whether all values are numbers.
    pub(super) fn all_finite(values: &[f32]) -> bool = plain_all_finite
}

for_this_cpu! {
    /// The largest logit of each of the [`LANES`] lanes of some logits: lane `i` has those at `i`, `i + LANES` and so on.
    pub(super) fn lane_tops(logits: &[f32]) -> [f32; LANES] = plain_lane_tops
}

#[inline(always)]
fn plain_all_finite(values: &[f32]) -> bool {
    // Without its sign, what is infinite or no number is not below this.
    const INFINITE: u32 = 0x7f80_0000;
    let mut largest = [0_u32; LANES];
    let (lanes, rest) = values.as_chunks::<LANES>();
    for values in lanes {
        for (largest, value) in largest.iter_mut().zip(values) {
            *largest = (value.to_bits() & 0x7fff_ffff).max(*largest);
        }
    }
    largest.into_iter().all(|bits| bits < INFINITE) && rest.iter().all(|value| value.is_finite())
}

#[inline(always)]
fn plain_lane_tops(logits: &[f32]) -> [f32; LANES] {
    let mut tops = [f32::MIN; LANES];
    let (lanes, rest) = logits.as_chunks::<LANES>();
    for logits in lanes {
        for (top, logit) in tops.iter_mut().zip(logits) {
            *top = if *logit > *top { *logit } else { *top };
        }
    }
    for (top, logit) in tops.iter_mut().zip(rest) {
        *top = top.max(*logit);
    }
    tops
}
