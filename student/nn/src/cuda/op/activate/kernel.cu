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

/// An activation and its derivative, which share what is expensive, of a kind that the compiler knows.
template <int KIND>
struct Activated {
    float value, derivative;

    __device__ __forceinline__ explicit Activated(float x) {
        if constexpr (KIND == GELU && sizeof(T) == 2) {
            // erf to 1.5e-7 (Abramowitz and Stegun, 7.1.26), far below what bf16 keeps: the upper tail of the normal
            // distribution is a polynomial in 1 / (1 + 0.3275911 |x| / sqrt(2)) times the density, which the derivative
            // wants as well. float keeps more, and has erff.
            const float density = exp2_fast(-0.72134752f * x * x);
            const float t = reciprocal_fast(1.0f + 0.23164189f * fabsf(x));
            float tail = 0.53070271f;
            tail = tail * t - 0.72657601f;
            tail = tail * t + 0.71070687f;
            tail = tail * t - 0.14224837f;
            tail = tail * t + 0.12741480f;
            tail = tail * t * density;
            const float below = x < 0.0f ? tail : 1.0f - tail;
            value = x * below;
            derivative = below + x * 0.3989423f * density;
        } else {
            value = activation(KIND, x);
            derivative = activation_derivative(KIND, x);
        }
    }
};

/// Calls a function for the kind that the compiler knows.
#define OF_KIND(kind, function, ...)                                                                                   \
    switch (kind) {                                                                                                    \
        case GELU: return function<GELU>(__VA_ARGS__);                                                                 \
        case GELU_NEW: return function<GELU_NEW>(__VA_ARGS__);                                                         \
        case RELU: return function<RELU>(__VA_ARGS__);                                                                 \
        default: return function<TANH>(__VA_ARGS__);                                                                   \
    }

/// out = activation(pre), element by element: pre, out [count]; out may be pre itself.
TYPED_KERNEL(activation_forward, 256, int kind, const T* pre, T* out, long long count) {
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

template <int KIND>
__device__ __forceinline__ void whole_activation_forward(const T* pre, T* out, long long count) {
    const long long first = (static_cast<long long>(blockIdx.x) * 512 + threadIdx.x) * EIGHT;
    constexpr int NEXT = 256 * EIGHT;
    if (first >= count) return;
    const bool both = first + NEXT < count;
    Packed<T> packed[2];
    packed[0] = fetch(pre + first);
    packed[1] = fetch(pre + first + (both ? NEXT : 0));
#pragma unroll
    for (int v = 0; v < 2; v++) {
        float value[EIGHT];
        unpack(packed[v], value);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) value[i] = Activated<KIND>(value[i]).value;
        if (v == 0 || both) store_whole(out + first + v * NEXT, value);
    }
}

/// The same for whole, aligned vectors of eight elements, two a thread.
TYPED_KERNEL(activation_forward_whole, 256, int kind, const T* pre, T* out, long long count) {
    OF_KIND(kind, whole_activation_forward, pre, out, count)
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

/// What the backward pass reads of one vector.
struct PreAndGradient {
    Packed<T> pre, d;
};

template <int KIND>
__device__ __forceinline__ void whole_activation_backward(const T* __restrict__ pre, T* d, float* partials, int rows,
                                                          int width, int rows_per_block) {
    const auto read = [&](int row, int column) {
        const size_t at = static_cast<size_t>(row) * width + column;
        return PreAndGradient{fetch(pre + at), fetch(d + at)};
    };
    const auto visit = [&](int row, int column, const PreAndGradient& fetched, float(&sums)[EIGHT]) {
        float x[EIGHT], gradient[EIGHT];
        unpack(fetched.pre, x);
        unpack(fetched.d, gradient);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            gradient[i] *= Activated<KIND>(x[i]).derivative;
            sums[i] += gradient[i];
        }
        store_whole(d + static_cast<size_t>(row) * width + column, gradient);
    };
    sum_whole_columns<4>(rows, width, rows_per_block, partials, read, visit);
}

/// The same for whole, aligned rows.
TYPED_RESIDENT_KERNEL(activation_backward_whole, 128, sizeof(T) == 2 ? 6 : 4, int kind, const T* __restrict__ pre,
                      T* d, float* __restrict__ partials, int rows, int width, int rows_per_block) {
    OF_KIND(kind, whole_activation_backward, pre, d, partials, rows, width, rows_per_block)
}
#undef OF_KIND
