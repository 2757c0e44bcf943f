// Looking up embeddings, with a norm behind them or without. Agrees with cpu/op/embed.rs; the norm is as in norm.cuh. Tables
// are read from the master weights, in float.

/// Up to three tables [., W], and which row of each a token looks up, [T]; those behind the first may be null.
#define LOOKUP_PARAMETERS                                                                                              \
    const u32 *__restrict__ rows_1, const float *__restrict__ table_1, const u32 *__restrict__ rows_2,                 \
        const float *__restrict__ table_2, const u32 *__restrict__ rows_3, const float *__restrict__ table_3
#define LOOKED_UP(token) (LookedUp(rows_1, table_1, rows_2, table_2, rows_3, table_3, token, width))

/// The rows of the tables that a token looks up.
struct LookedUp {
    const float *first, *second, *third;
    bool whole;

    __device__ __forceinline__ LookedUp(LOOKUP_PARAMETERS, int token, int width) {
        first = table_1 + static_cast<size_t>(rows_1[token]) * width;
        second = table_2 ? table_2 + static_cast<size_t>(rows_2[token]) * width : nullptr;
        third = table_3 ? table_3 + static_cast<size_t>(rows_3[token]) * width : nullptr;
        whole = width % LANES<T> == 0 && aligned16(table_1) && aligned16(table_2) && aligned16(table_3);
    }

    /// Their sum in the vector from `column` on.
    __device__ __forceinline__ void sum(int column, int count, float (&value)[LANES<T>]) const {
        load(first + column, whole, count, value);
        if (second) add(second + column, count, value);
        if (third) add(third + column, count, value);
    }

    __device__ __forceinline__ void add(const float* from, int count, float (&value)[LANES<T>]) const {
        float other[LANES<T>];
        load(from, whole, count, other);
#pragma unroll
        for (int i = 0; i < LANES<T>; i++) value[i] += other[i];
    }
};

/// out = the sum of what each token looks up: out [T, W].
TYPED_KERNEL(embed_sum, 256, LOOKUP_PARAMETERS, T* __restrict__ out, int tokens, int width) {
    each_vector(tokens, width, [&](int token, int column, bool whole, int count) {
        float value[LANES<T>];
        LOOKED_UP(token).sum(column, count, value);
        store(out + static_cast<size_t>(token) * width + column, whole, count, value);
    });
}

/// sum = the sum of what each token looks up, out = dropout(norm(sum) * norm_weight + norm_bias).
///
/// sum, out [T, W]; mean, rstd [T]. One warp a token; shared memory as residual_norm_forward.
TYPED_KERNEL(embed_norm_forward, 256, LOOKUP_PARAMETERS, const float* __restrict__ norm_weight,
             const float* __restrict__ norm_bias, float epsilon, DROPOUT_PARAMETERS, T* __restrict__ sum,
             float* __restrict__ means, float* __restrict__ rstds, T* __restrict__ out, int tokens, int width) {
    constexpr int N = LANES<T>;
    DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int token = blockIdx.x * (blockDim.x / 32) + warp;
    if (token >= tokens) return;
    float* kept = reinterpret_cast<float*>(shared) + warp * ((width + N - 1) / N * N);
    const bool rows_whole = width % N == 0;
    const size_t first = static_cast<size_t>(token) * width;
    const LookedUp looked_up = LOOKED_UP(token);
    for (int column = lane * N; column < width; column += 32 * N) {
        const int count = width - column;
        float value[N];
        looked_up.sum(column, count, value);
#pragma unroll
        for (int i = 0; i < N; i++) value[i] = stored<T>(value[i]);
        store(sum + first + column, rows_whole, count, value);
        store_whole(kept + column, value);
    }
    const Dropout dropout = DROPOUT;
    norm_row(kept, norm_weight, norm_bias, epsilon, dropout, dropout.row(token, width), means + token, rstds + token,
             out + first, width);
}

/// Backward of embed_norm_forward's norm: d_out [T, W] behind the dropout; d_sum [T, W] in float, for the tables;
/// partials [P, 2, W]: norm_weight, norm_bias.
TYPED_KERNEL(embed_norm_backward, 256, const T* __restrict__ d_out, const T* __restrict__ sum,
             const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ norm_weight,
             bool normalises, DROPOUT_PARAMETERS, float* __restrict__ d_sum, float* __restrict__ partials, int tokens,
             int width, int rows_per_block) {
    __shared__ NormScratch scratch;
    __shared__ float column_sums[256 * LANES<T>];
    norm_backward<false>(scratch, column_sums, d_out, sum, mean, rstd, norm_weight, normalises, DROPOUT,
                         static_cast<u32*>(nullptr), tokens, width, rows_per_block, d_sum, static_cast<T*>(nullptr),
                         partials);
}
