// The gradient's norm, clipping and AdamW (Loshchilov and Hutter, 2019), without asking the host in between. Agrees
// with adamw.rs and with the clipping of the training loop.

/// partials[blockIdx.x] = the sum of squares of the block's share of x [n].
KERNEL(sum_of_squares, 256, const float* __restrict__ x, float* __restrict__ partials, long long n) {
    __shared__ float sums[8];
    const long long vectors = n / 4, threads = static_cast<long long>(gridDim.x) * blockDim.x;
    const long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const bool aligned = aligned16(x);
    float lanes[4] = {};
#pragma unroll 4
    for (long long i = first; i < vectors; i += threads) {
        float value[4];
        load(x + 4 * i, aligned, 4, value);
#pragma unroll
        for (int j = 0; j < 4; j++) lanes[j] += value[j] * value[j];
    }
    float sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    const long long rest = 4 * vectors + first;
    if (rest < n) sum += x[rest] * x[rest];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0.0f;
        for (int i = 0; i < static_cast<int>(blockDim.x) / 32; i++) total += sums[i];
        partials[blockIdx.x] = total;
    }
}

/// The same of the rows of x [R, W] whose mark is not zero; no others are read. A warp a row.
KERNEL(sum_of_squares_marked, 256, const float* __restrict__ x, const u32* __restrict__ marks,
       float* __restrict__ partials, int rows, int width) {
    __shared__ float sums[8];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const bool whole = width % 4 == 0 && aligned16(x);
    float lanes[4] = {};
    for (int row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
        if (!marks[row]) continue;
        const float* from = x + static_cast<size_t>(row) * width;
#pragma unroll 4
        for (int column = lane * 4; column < width; column += 128) {
            float value[4];
            load(from + column, whole, width - column, value);
#pragma unroll
            for (int j = 0; j < 4; j++) lanes[j] += value[j] * value[j];
        }
    }
    const float sum = warp_sum((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0.0f;
        for (int i = 0; i < warps; i++) total += sums[i];
        partials[blockIdx.x] = total;
    }
}

/// control [4] out: the norm, what to multiply gradients with (1, or max_norm / (norm + 1e-6) where that is less), 1 if
/// the norm is not finite and the step is to be left out, 0. put_off [1] out, may be null: decay, or 1 if the step is
/// left out. One warp.
KERNEL(gradient_scale, 32, const float* __restrict__ partials, float max_norm, float* __restrict__ control,
       float* __restrict__ put_off, float decay, int count) {
    // Doubles: at least 32 sums of many non-negative numbers.
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += 32) sum += partials[i];
    for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(~0u, sum, bits);
    if (threadIdx.x == 0) {
        const float norm = static_cast<float>(sqrt(sum));
        const bool finite = fabsf(norm) < INFINITY;
        control[0] = norm;
        control[1] = finite ? fminf(1.0f, max_norm / (norm + 1e-6f)) : 0.0f;
        control[2] = finite ? 0.0f : 1.0f;
        control[3] = 0.0f;
        if (put_off) *put_off = finite ? decay : 1.0f;
    }
}

/// What a step of AdamW does with an element.
struct AdamW {
    float *p, *g, *m, *v;
    bf16* shadow;
    float* average;
    float scale, limit, step, decay, root_correction, follow;
    bool skip, clears;

    /// Elements from `at` on, 4 of them or the first `count`. `aligned`: all buffers but the shadow are, from their starts on.
    __device__ __forceinline__ void update(size_t at, int count, bool aligned) const {
        const bool whole = aligned && count >= 4;
        const float zeros[4] = {};
        if (clears && skip) store(g + at, whole, count, zeros);
        if (skip) return;
        float parameter[4], gradient[4], first[4], second[4];
        load(p + at, whole, count, parameter);
        load(g + at, whole, count, gradient);
        load(m + at, whole, count, first);
        load(v + at, whole, count, second);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float scaled = fminf(fmaxf(gradient[i] * scale, -limit), limit);
            first[i] += (scaled - first[i]) * static_cast<float>(1.0 - 0.9);
            second[i] = second[i] * 0.999f + scaled * scaled * static_cast<float>(1.0 - 0.999);
            parameter[i] = parameter[i] * decay - step * first[i] / (sqrtf(second[i]) * root_correction + 1e-8f);
        }
        store(p + at, whole, count, parameter);
        store(m + at, whole, count, first);
        store(v + at, whole, count, second);
        if (clears) store(g + at, whole, count, zeros);
        if (average) {
            float mean[4];
            load(average + at, whole, count, mean);
#pragma unroll
            for (int i = 0; i < 4; i++) mean[i] += (parameter[i] - mean[i]) * follow;
            store(average + at, whole, count, mean);
        }
        if (shadow) {
            bf16* destination = shadow + at;
            if (count >= 4 && reinterpret_cast<unsigned long long>(destination) % 8 == 0) {
                store8(destination, pack_bf16(parameter[0], parameter[1]), pack_bf16(parameter[2], parameter[3]));
            } else {
                // Unrolled, so that the parameters stay in registers.
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if (i < count) destination[i] = to_bf16(parameter[i]);
                }
            }
        }
    }
};

/// One step over p [n] with moments m and v along control[1] g, clipped to at most `limit` in either direction; sets g to
/// zero where it clears, moves average [n], if there is one, by `follow` of the way to p, and writes p to shadow, if there is
/// one, as bfloat16. Where control[2] says so, leaves all but g as it is.
KERNEL(adamw, 256, float* __restrict__ p, float* __restrict__ g, float* __restrict__ m, float* __restrict__ v,
       bf16* __restrict__ shadow, float* __restrict__ average, const float* __restrict__ control, float limit, float step,
       float decay, float root_correction, float follow, bool clears, long long n) {
    const long long at = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
    if (at >= n) return;
    const bool skip = control[2] != 0.0f;
    const AdamW adamw = {p, g, m, v, shadow, average, control[1], limit, step, decay, root_correction, follow, skip, clears};
    // Ranges of the flat buffers begin anywhere, all at the same place.
    const bool aligned = aligned16(p) && aligned16(g) && aligned16(m) && aligned16(v) && aligned16(average);
    adamw.update(at, n - at < 4 ? static_cast<int>(n - at) : 4, aligned);
}

/// The same step over the rows of p [R, W] whose mark is not zero; the others stay as they are. A warp a row.
KERNEL(adamw_marked, 256, float* __restrict__ p, float* __restrict__ g, float* __restrict__ m, float* __restrict__ v,
       float* __restrict__ average, const u32* __restrict__ marks, const float* __restrict__ control, float limit,
       float step, float decay, float root_correction, float follow, int rows, int width) {
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows || !marks[row]) return;
    const bool skip = control[2] != 0.0f;
    const AdamW adamw = {p, g, m, v, nullptr, average, control[1], limit, step, decay, root_correction, follow, skip, true};
    const bool aligned =
        width % 4 == 0 && aligned16(p) && aligned16(g) && aligned16(m) && aligned16(v) && aligned16(average);
    const size_t first = static_cast<size_t>(row) * width;
#pragma unroll 2
    for (int column = threadIdx.x % 32 * 4; column < width; column += 128) {
        adamw.update(first + column, width - column, aligned);
    }
}

/// Multiplies a row by the factors, one after another.
__device__ __forceinline__ void multiply_in_turn(float* row, const float* factors, int count, int width) {
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float value = row[column];
        for (int i = 0; i < count; i++) value *= factors[i];
        row[column] = value;
    }
}

/// Multiplies the rows of x [R, W] that `which` [gridDim.x] names by factors [F], and gives them a mark.
KERNEL(catch_up_and_mark, 256, float* __restrict__ x, const u32* __restrict__ which, u32* __restrict__ marks,
       const float* __restrict__ factors, int count, int width) {
    const u32 row = which[blockIdx.x];
    multiply_in_turn(x + static_cast<size_t>(row) * width, factors, count, width);
    if (threadIdx.x == 0) marks[row] = 1;
}

/// Multiplies the rows of x [R, W] that have no mark by factors [F]. A block a row.
KERNEL(catch_up_unmarked, 256, float* __restrict__ x, const u32* __restrict__ marks,
       const float* __restrict__ factors, int count, int width) {
    if (marks[blockIdx.x]) return;
    multiply_in_turn(x + static_cast<size_t>(blockIdx.x) * width, factors, count, width);
}
