// Looking up embeddings, with a norm behind them or without. Agrees with cpu/op/embed.rs; the norm is as in norm.cuh. Tables
// are read from the master weights, in float.

/// Up to three tables [., W], and which row of each a token looks up, [T]; those behind the first may be null.
#define LOOKUP_PARAMETERS                                                                                              \
    const u32 *__restrict__ rows_1, const float *__restrict__ table_1, const u32 *__restrict__ rows_2,                 \
        const float *__restrict__ table_2, const u32 *__restrict__ rows_3, const float *__restrict__ table_3
#define LOOKUP_ARGUMENTS rows_1, table_1, rows_2, table_2, rows_3, table_3
#define LOOKED_UP(token) (LookedUp(LOOKUP_ARGUMENTS, token, width))

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
/// sum, out [T, W]; mean, rstd [T]; the sum is written with keeps_sum. One warp a token; shared memory as
/// residual_norm_forward.
#define EMBED_NORM_PARAMETERS                                                                                          \
    LOOKUP_PARAMETERS, const float *__restrict__ norm_weight, const float *__restrict__ norm_bias, float epsilon,      \
        DROPOUT_PARAMETERS, bool keeps_sum, T *__restrict__ sum, float *__restrict__ means, float *__restrict__ rstds, \
        T *__restrict__ out, int tokens, int width
TYPED_KERNEL(embed_norm_forward, 256, EMBED_NORM_PARAMETERS) {
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
        if (keeps_sum) store(sum + first + column, rows_whole, count, value);
        store_whole(kept + column, value);
    }
    const Dropout dropout = DROPOUT;
    norm_row(kept, norm_weight, norm_bias, epsilon, dropout, dropout.row(token, width), means + token, rstds + token,
             out + first, width);
}

/// The same for whole, aligned rows of at most 256 V elements.
template <int V>
__device__ __forceinline__ void whole_embed_norm_forward(EMBED_NORM_PARAMETERS) {
    const int token = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (token >= tokens) return;
    const Lanes<V> lanes{width};
    const LookedUp looked_up = LOOKED_UP(token);
    Packed<float> first[V], second[V], third[V];
    lanes.fetch_row(looked_up.first, first);
    // Where there are fewer tables the first is read again, and not added.
    lanes.fetch_row(looked_up.second ? looked_up.second : looked_up.first, second);
    lanes.fetch_row(looked_up.third ? looked_up.third : looked_up.first, third);
    const size_t start = static_cast<size_t>(token) * width;
    float value[V][EIGHT];
#pragma unroll
    for (int v = 0; v < V; v++) {
        float other[EIGHT];
        unpack(first[v], value[v]);
        unpack(second[v], other);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) value[v][i] += looked_up.second ? other[i] : 0.0f;
        unpack(third[v], other);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) value[v][i] = stored<T>(value[v][i] + (looked_up.third ? other[i] : 0.0f));
        if (keeps_sum && lanes.inside(v)) store_whole(sum + start + lanes.column(v), value[v]);
    }
    const Dropout dropout = DROPOUT;
    whole_norm_row(lanes, value, norm_weight, norm_bias, epsilon, dropout, dropout.row(token, width), means + token,
                   rstds + token, out + start);
}

/// `embed_norm_forward_V_T`, of 128 threads, for V from 1 to 4.
#define WHOLE_EMBED_NORM_FORWARD(name, V)                                                                              \
    TYPED_RESIDENT_KERNEL(name, 128, WHOLE_LOOKUP_BLOCKS<V>, EMBED_NORM_PARAMETERS) {                                                                   \
        whole_embed_norm_forward<V>(LOOKUP_ARGUMENTS, norm_weight, norm_bias, epsilon, DROPOUT_ARGUMENTS, keeps_sum,   \
                                    sum, means, rstds, out, tokens, width);                                            \
    }
WHOLE_EMBED_NORM_FORWARD(embed_norm_forward_1, 1)
WHOLE_EMBED_NORM_FORWARD(embed_norm_forward_2, 2)
WHOLE_EMBED_NORM_FORWARD(embed_norm_forward_3, 3)
WHOLE_EMBED_NORM_FORWARD(embed_norm_forward_4, 4)
#undef WHOLE_EMBED_NORM_FORWARD
#undef EMBED_NORM_PARAMETERS

/// Backward of embed_norm_forward's norm: d_out [T, W] behind the dropout; d_sum [T, W] in float, for the tables;
/// partials [P, 2, W]: norm_weight, norm_bias.
#define EMBED_NORM_PARAMETERS                                                                                          \
    const T *__restrict__ d_out, const T *__restrict__ sum, const float *__restrict__ mean,                            \
        const float *__restrict__ rstd, const float *__restrict__ norm_weight, bool normalises, DROPOUT_PARAMETERS,    \
        float *__restrict__ d_sum, float *__restrict__ partials, int tokens, int width, int rows_per_block
TYPED_KERNEL(embed_norm_backward, 256, EMBED_NORM_PARAMETERS) {
    __shared__ NormScratch scratch;
    __shared__ float column_sums[256 * LANES<T>];
    norm_backward<false>(scratch, column_sums, d_out, sum, mean, rstd, norm_weight, normalises, DROPOUT,
                         static_cast<u32*>(nullptr), tokens, width, rows_per_block, d_sum, static_cast<T*>(nullptr),
                         partials);
}

/// The same for whole, aligned rows of at most WHOLE_WIDTH elements.
TYPED_RESIDENT_KERNEL(embed_norm_backward_whole, 128, WHOLE_BACKWARD_BLOCKS, EMBED_NORM_PARAMETERS) {
    __shared__ WholeNormScratch scratch;
    whole_norm_backward<false>(scratch, d_out, sum, mean, rstd, norm_weight, normalises, DROPOUT,
                               static_cast<u32*>(nullptr), tokens, width, rows_per_block, d_sum,
                               static_cast<T*>(nullptr), partials);
}
#undef EMBED_NORM_PARAMETERS
