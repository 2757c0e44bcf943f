// Bias, dropout, residual and layer norm in one pass over each row, forward and backward; and a norm alone.

/// sum = dropout(branch + branch_bias) + residual, out = norm(sum) * norm_weight + norm_bias.
///
/// branch [R, W]: the branch in, the sum out; residual, out [R, W]; branch_bias, norm_weight, norm_bias [W]; mean and
/// rstd [R] out. epsilon: as in row_statistics. row_tokens [R] numbers the rows for the mask; null: row r is token r.
/// One warp a row; shared memory: a row of floats a warp, its width rounded up to whole vectors.
TYPED_KERNEL(residual_norm_forward, 256, T* __restrict__ branch, const float* __restrict__ branch_bias,
             const T* __restrict__ residual, const float* __restrict__ norm_weight, const float* __restrict__ norm_bias,
             float epsilon, DROPOUT_PARAMETERS, const u32* __restrict__ row_tokens, float* __restrict__ means,
             float* __restrict__ rstds, T* __restrict__ out, int rows, int width) {
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
        store(branch + first + column, rows_whole, count, value);
        store_whole(kept + column, value);
    }
    norm_row(kept, norm_weight, norm_bias, epsilon, no_dropout(), {}, means + row, rstds + row, out + first, width);
}

/// Backward of residual_norm_forward.
///
/// d_out, sum [R, W]; d_sum [R, W] out, the gradient in the residual, may be d_out itself; d_branch [R, W] out;
/// partials [P, 3, W] out: sums over blocks of rows_per_block rows for the gradients of norm_weight, norm_bias,
/// branch_bias.
TYPED_KERNEL(residual_norm_backward, 256, const T* d_out, const T* __restrict__ sum, const float* __restrict__ mean,
             const float* __restrict__ rstd, const float* __restrict__ norm_weight, bool normalises,
             DROPOUT_PARAMETERS, const u32* __restrict__ row_tokens, T* d_sum, T* __restrict__ d_branch,
             float* __restrict__ partials, int rows, int width, int rows_per_block) {
    __shared__ NormScratch scratch;
    __shared__ float column_sums[256 * LANES<T>];
    norm_backward<true>(scratch, column_sums, d_out, sum, mean, rstd, norm_weight, normalises, DROPOUT, row_tokens, rows,
                        width, rows_per_block, d_sum, d_branch, partials);
}

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
