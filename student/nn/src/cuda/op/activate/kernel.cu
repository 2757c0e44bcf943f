// Activation functions and their derivatives. Agrees with cpu/op/activate.rs; `kind` counts the variants of
// `Activation` in their order.

enum ActivationKind { GELU = 0, GELU_NEW = 1, RELU = 2, TANH = 3 };

__device__ __forceinline__ float activation(int kind, float x) {
    if (kind == GELU) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    if (kind == GELU_NEW) return 0.5f * x * (1.0f + tanhf(0.7978846f * (x + 0.044715f * x * x * x)));
    if (kind == RELU) return fmaxf(x, 0.0f);
    return tanhf(x);
}

__device__ __forceinline__ float activation_derivative(int kind, float x) {
    if (kind == GELU) {
        return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.3989423f * exp2_fast(-0.72134752f * x * x);
    }
    if (kind == GELU_NEW) {
        const float t = tanhf(0.7978846f * (x + 0.044715f * x * x * x));
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978846f * (1.0f + 0.134145f * x * x);
    }
    if (kind == RELU) return x > 0.0f ? 1.0f : 0.0f;
    const float t = tanhf(x);
    return 1.0f - t * t;
}

/// out = activation(pre), element by element: pre, out [count].
TYPED_KERNEL(activation_forward, 256, int kind, const T* __restrict__ pre, T* __restrict__ out, long long count) {
    constexpr int N = LANES<T>;
    const long long at = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (at >= count) return;
    const long long left = count - at;
    const bool whole = left >= N;
    const int few = whole ? N : static_cast<int>(left);
    float value[N];
    load(pre + at, whole, few, value);
#pragma unroll
    for (int i = 0; i < N; i++) value[i] = activation(kind, value[i]);
    store(out + at, whole, few, value);
}

/// Turns d, the gradient behind the activation, into that before it: pre, d [R, N]; partials [P, N] out, sums over
/// blocks of rows_per_block rows: the gradient of the bias.
TYPED_KERNEL(activation_backward, 128, int kind, const T* __restrict__ pre, T* __restrict__ d,
             float* __restrict__ partials, int rows, int width, int rows_per_block) {
    constexpr int N = LANES<T>;
    const bool rows_whole = width % N == 0;
    const auto visit = [&](int row, int column, bool whole, float(&sums)[N]) {
        const size_t at = static_cast<size_t>(row) * width + column;
        float x[N], gradient[N];
        load(pre + at, whole, width - column, x);
        load(d + at, whole, width - column, gradient);
#pragma unroll
        for (int i = 0; i < N; i++) {
            gradient[i] *= activation_derivative(kind, x[i]);
            sums[i] += gradient[i];
        }
        store(d + at, whole, width - column, gradient);
    };
    sum_columns(rows, width, rows_per_block, rows_whole, partials, visit);
}
