// Bias, dropout, residual and layer norm in one pass over each row, forward and backward; and a norm alone.

#define RESIDUAL_NORM_PARAMETERS                                                                                       \
    T *__restrict__ branch, const float *__restrict__ branch_bias, const T *__restrict__ residual, bool keeps_sum,     \
        const float *__restrict__ norm_weight, const float *__restrict__ norm_bias, float epsilon, DROPOUT_PARAMETERS, \
        const u32 *__restrict__ row_tokens, float *__restrict__ means, float *__restrict__ rstds, T *__restrict__ out, \
        int rows, int width

/// sum = dropout(branch + branch_bias) + residual, out = norm(sum) * norm_weight + norm_bias.
///
/// branch [R, W]: the branch in, with keeps_sum the sum out; residual, out [R, W]; branch_bias, norm_weight, norm_bias
/// [W]; mean and rstd [R] out. epsilon: as in row_statistics. row_tokens [R] numbers the rows for the mask; null: row r
/// is token r. One warp a row; shared memory: a row of floats a warp, its width rounded up to whole vectors.
TYPED_KERNEL(residual_norm_forward, 256, RESIDUAL_NORM_PARAMETERS) {
    constexpr int N = LANES<T>;
    DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row = blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= rows) return;
    float* kept = reinterpret_cast<float*>(shared) + warp * ((width + N - 1) / N * N);
    const bool rows_whole = width % N == 0;
    const bool vectors_whole = rows_whole && aligned16(branch_bias);
    const size_t first = static_cast<size_t>(row) * width;
    const Dropout dropout = DROPOUT;
    const MaskRow mask = dropout.row(row_tokens ? row_tokens[row] : row, width);

    for (int column = lane * N; column < width; column += 32 * N) {
        const int count = width - column;
        float value[N], bias[N], other[N];
        load(branch + first + column, rows_whole, count, value);
        load(residual + first + column, rows_whole, count, other);
        load(branch_bias + column, vectors_whole, count, bias);
#pragma unroll
        for (int i = 0; i < N; i++) value[i] += bias[i];
        dropout.apply(mask, column, value);
#pragma unroll
        for (int i = 0; i < N; i++) value[i] = stored<T>(value[i] + other[i]);
        if (keeps_sum) store(branch + first + column, rows_whole, count, value);
        store_whole(kept + column, value);
    }
    norm_row(kept, norm_weight, norm_bias, epsilon, no_dropout(), {}, means + row, rstds + row, out + first, width);
}

/// The same for whole, aligned rows of at most 256 V elements.
template <int V>
__device__ __forceinline__ void whole_residual_norm_forward(RESIDUAL_NORM_PARAMETERS) {
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const Lanes<V> lanes{width};
    const size_t first = static_cast<size_t>(row) * width;
    Packed<T> branches[V], residuals[V];
    Packed<float> biases[V];
    lanes.fetch_row(branch + first, branches);
    lanes.fetch_row(residual + first, residuals);
    lanes.fetch_row(branch_bias, biases);
    // Lanes beyond the row have read its end, which another lane writes below.
    __syncwarp();
    const Dropout dropout = DROPOUT;
    const MaskRow mask = dropout.row(row_tokens ? row_tokens[row] : row, width);
    float sum[V][EIGHT];
#pragma unroll
    for (int v = 0; v < V; v++) {
        float bias[EIGHT], other[EIGHT];
        unpack(branches[v], sum[v]);
        unpack(biases[v], bias);
        unpack(residuals[v], other);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) sum[v][i] += bias[i];
        dropout.apply(mask, lanes.column(v), sum[v]);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) sum[v][i] = stored<T>(sum[v][i] + other[i]);
        if (keeps_sum && lanes.inside(v)) store_whole(branch + first + lanes.column(v), sum[v]);
    }
    whole_norm_row(lanes, sum, norm_weight, norm_bias, epsilon, no_dropout(), {}, means + row, rstds + row,
                   out + first);
}

/// `residual_norm_forward_V_T`, of 128 threads, for V from 1 to 4.
#define WHOLE_RESIDUAL_NORM_FORWARD(name, V)                                                                           \
    TYPED_RESIDENT_KERNEL(name, 128, WHOLE_BLOCKS<V>, RESIDUAL_NORM_PARAMETERS) {                                                                \
        whole_residual_norm_forward<V>(branch, branch_bias, residual, keeps_sum, norm_weight, norm_bias, epsilon,      \
                                       DROPOUT_ARGUMENTS, row_tokens, means, rstds, out, rows, width);                 \
    }
WHOLE_RESIDUAL_NORM_FORWARD(residual_norm_forward_1, 1)
WHOLE_RESIDUAL_NORM_FORWARD(residual_norm_forward_2, 2)
WHOLE_RESIDUAL_NORM_FORWARD(residual_norm_forward_3, 3)
WHOLE_RESIDUAL_NORM_FORWARD(residual_norm_forward_4, 4)
#undef WHOLE_RESIDUAL_NORM_FORWARD
#undef RESIDUAL_NORM_PARAMETERS

/// Backward of residual_norm_forward.
///
/// d_out, sum [R, W]; d_sum [R, W] out, the gradient in the residual, may be d_out itself; d_branch [R, W] out;
/// partials [P, 3, W] out: sums over blocks of rows_per_block rows for the gradients of norm_weight, norm_bias,
/// branch_bias.
#define RESIDUAL_NORM_PARAMETERS                                                                                       \
    const T *d_out, const T *__restrict__ sum, const float *__restrict__ mean, const float *__restrict__ rstd,         \
        const float *__restrict__ norm_weight, bool normalises, DROPOUT_PARAMETERS,                                    \
        const u32 *__restrict__ row_tokens, T *d_sum, T *__restrict__ d_branch, float *__restrict__ partials,          \
        int rows, int width, int rows_per_block
TYPED_KERNEL(residual_norm_backward, 256, RESIDUAL_NORM_PARAMETERS) {
    __shared__ NormScratch scratch;
    __shared__ float column_sums[256 * LANES<T>];
    norm_backward<true>(scratch, column_sums, d_out, sum, mean, rstd, norm_weight, normalises, DROPOUT, row_tokens, rows,
                        width, rows_per_block, d_sum, d_branch, partials);
}

/// The same for whole, aligned rows of at most WHOLE_WIDTH elements.
TYPED_RESIDENT_KERNEL(residual_norm_backward_whole, 128, WHOLE_BACKWARD_BLOCKS, RESIDUAL_NORM_PARAMETERS) {
    __shared__ WholeNormScratch scratch;
    whole_norm_backward<true>(scratch, d_out, sum, mean, rstd, norm_weight, normalises, DROPOUT, row_tokens, rows, width,
                              rows_per_block, d_sum, d_branch, partials);
}
#undef RESIDUAL_NORM_PARAMETERS

/// out = norm(x) * norm_weight + norm_bias: x, out [R, W]; the rest as above.
TYPED_KERNEL(norm_forward, 256, const T* __restrict__ x, const float* __restrict__ norm_weight,
             const float* __restrict__ norm_bias, float epsilon, float* __restrict__ means, float* __restrict__ rstds,
             T* __restrict__ out, int rows, int width) {
    constexpr int N = LANES<T>;
    DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row = blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= rows) return;
    float* kept = reinterpret_cast<float*>(shared) + warp * ((width + N - 1) / N * N);
    const size_t first = static_cast<size_t>(row) * width;
    for (int column = lane * N; column < width; column += 32 * N) {
        float value[N];
        load(x + first + column, width % N == 0, width - column, value);
        store_whole(kept + column, value);
    }
    norm_row(kept, norm_weight, norm_bias, epsilon, no_dropout(), {}, means + row, rstds + row, out + first, width);
}

/// The same for whole, aligned rows of at most 256 V elements.
template <int V>
__device__ __forceinline__ void whole_norm_forward(const T* __restrict__ x, const float* __restrict__ norm_weight,
                                                   const float* __restrict__ norm_bias, float epsilon,
                                                   float* __restrict__ means, float* __restrict__ rstds,
                                                   T* __restrict__ out, int rows, int width) {
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const Lanes<V> lanes{width};
    const size_t first = static_cast<size_t>(row) * width;
    Packed<T> packed[V];
    lanes.fetch_row(x + first, packed);
    float value[V][EIGHT];
#pragma unroll
    for (int v = 0; v < V; v++) unpack(packed[v], value[v]);
    whole_norm_row(lanes, value, norm_weight, norm_bias, epsilon, no_dropout(), {}, means + row, rstds + row,
                   out + first);
}

/// `norm_forward_V_T`, as above.
#define WHOLE_NORM_FORWARD(name, V)                                                                                    \
    TYPED_RESIDENT_KERNEL(name, 128, WHOLE_BLOCKS<V>, const T* __restrict__ x, const float* __restrict__ norm_weight,                            \
                 const float* __restrict__ norm_bias, float epsilon, float* __restrict__ means,                        \
                 float* __restrict__ rstds, T* __restrict__ out, int rows, int width) {                                \
        whole_norm_forward<V>(x, norm_weight, norm_bias, epsilon, means, rstds, out, rows, width);                     \
    }
WHOLE_NORM_FORWARD(norm_forward_1, 1)
WHOLE_NORM_FORWARD(norm_forward_2, 2)
WHOLE_NORM_FORWARD(norm_forward_3, 3)
WHOLE_NORM_FORWARD(norm_forward_4, 4)
#undef WHOLE_NORM_FORWARD

/// Backward of norm_forward: d_x [R, W] out, may be d_out itself; partials [P, 2, W] out, for norm_weight and norm_bias.
TYPED_KERNEL(norm_backward, 256, const T* d_out, const T* __restrict__ x, const float* __restrict__ mean,
             const float* __restrict__ rstd, const float* __restrict__ norm_weight, bool normalises, T* d_x,
             float* __restrict__ partials, int rows, int width, int rows_per_block) {
    __shared__ NormScratch scratch;
    __shared__ float column_sums[256 * LANES<T>];
    norm_backward<false>(scratch, column_sums, d_out, x, mean, rstd, norm_weight, normalises, no_dropout(),
                         static_cast<u32*>(nullptr), rows, width, rows_per_block, d_x, static_cast<T*>(nullptr),
                         partials);
}

/// The same for whole, aligned rows of at most WHOLE_WIDTH elements.
TYPED_RESIDENT_KERNEL(norm_backward_whole, 128, WHOLE_BACKWARD_BLOCKS, const T* d_out, const T* __restrict__ x, const float* __restrict__ mean,
             const float* __restrict__ rstd, const float* __restrict__ norm_weight, bool normalises, T* d_x,
             float* __restrict__ partials, int rows, int width, int rows_per_block) {
    __shared__ WholeNormScratch scratch;
    whole_norm_backward<false>(scratch, d_out, x, mean, rstd, norm_weight, normalises, no_dropout(),
                               static_cast<u32*>(nullptr), rows, width, rows_per_block, d_x, static_cast<T*>(nullptr),
                               partials);
}
