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

/// control [4] out: the norm, what to multiply gradients with (1, or max_norm / (norm + 1e-6) where that is less), 1 if
/// the norm is not finite and the step is to be left out, 0. One warp.
KERNEL(gradient_scale, 32, const float* __restrict__ partials, float max_norm, float* __restrict__ control, int count) {
    // Doubles: 32 sums of many non-negative numbers.
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
    }
}

/// One step over p [n] with moments m and v along control[1] g; sets g to zero and writes p to shadow, if there is one,
/// as bfloat16. Where control[2] says so only sets g to zero.
KERNEL(adamw, 256, float* __restrict__ p, float* __restrict__ g, float* __restrict__ m, float* __restrict__ v,
       bf16* __restrict__ shadow, const float* __restrict__ control, float step, float decay, float root_correction,
       long long n) {
    const long long at = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
    if (at >= n) return;
    const int count = n - at < 4 ? static_cast<int>(n - at) : 4;
    // Ranges of the flat buffers begin anywhere, all four at the same place.
    const bool whole = count == 4 && aligned16(p) && aligned16(g) && aligned16(m) && aligned16(v);
    const float zeros[4] = {};
    const float scale = control[1];
    if (control[2] != 0.0f) {
        store(g + at, whole, count, zeros);
        return;
    }
    float parameter[4], gradient[4], first[4], second[4];
    load(p + at, whole, count, parameter);
    load(g + at, whole, count, gradient);
    load(m + at, whole, count, first);
    load(v + at, whole, count, second);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float scaled = gradient[i] * scale;
        first[i] += (scaled - first[i]) * static_cast<float>(1.0 - 0.9);
        second[i] = second[i] * 0.999f + scaled * scaled * static_cast<float>(1.0 - 0.999);
        parameter[i] = parameter[i] * decay - step * first[i] / (sqrtf(second[i]) * root_correction + 1e-8f);
    }
    store(p + at, whole, count, parameter);
    store(m + at, whole, count, first);
    store(v + at, whole, count, second);
    store(g + at, whole, count, zeros);
    if (shadow) {
        bf16* destination = shadow + at;
        if (count == 4 && reinterpret_cast<unsigned long long>(destination) % 8 == 0) {
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
