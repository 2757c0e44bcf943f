// Looking up embeddings with the norm behind them. Agrees with cpu/op/embed.rs; the norm is as in norm.cuh. Tables are read
// from the master weights, in float.

/// sum = word[id] + position + type, out = dropout(norm(sum) * norm_weight + norm_bias).
///
/// ids, types, positions [T]; types and type_table may be null; tables [rows, W]; sum, out [T, W]; mean, rstd [T].
/// One warp a token; shared memory as residual_norm_forward.
TYPED_KERNEL(embed_norm_forward, 256, const u32* __restrict__ ids, const float* __restrict__ word,
             const u32* __restrict__ positions, const float* __restrict__ position_table,
             const u32* __restrict__ types, const float* __restrict__ type_table,
             const float* __restrict__ norm_weight, const float* __restrict__ norm_bias, float epsilon,
             DROPOUT_PARAMETERS, T* __restrict__ sum, float* __restrict__ means, float* __restrict__ rstds,
             T* __restrict__ out, int tokens, int width) {
    constexpr int N = LANES<T>;
    DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int token = blockIdx.x * (blockDim.x / 32) + warp;
    if (token >= tokens) return;
    float* kept = reinterpret_cast<float*>(shared) + warp * ((width + N - 1) / N * N);
    const bool typed = types != nullptr && type_table != nullptr;
    const bool rows_whole = width % N == 0;
    const bool tables_whole = rows_whole && aligned16(word) && aligned16(position_table) && aligned16(type_table);
    const bool vectors_whole = rows_whole && aligned16(norm_weight) && aligned16(norm_bias);
    const size_t first = static_cast<size_t>(token) * width;
    const Dropout dropout = DROPOUT;
    const MaskRow mask = dropout.row(token, width);
    const float* word_row = word + static_cast<size_t>(ids[token]) * width;
    const float* position_row = position_table + static_cast<size_t>(positions[token]) * width;
    const float* type_row = typed ? type_table + static_cast<size_t>(types[token]) * width : nullptr;

    for (int column = lane * N; column < width; column += 32 * N) {
        const int count = width - column;
        float value[N], other[N];
        load(word_row + column, tables_whole, count, value);
        load(position_row + column, tables_whole, count, other);
#pragma unroll
        for (int i = 0; i < N; i++) value[i] += other[i];
        if (typed) {
            load(type_row + column, tables_whole, count, other);
#pragma unroll
            for (int i = 0; i < N; i++) value[i] += other[i];
        }
#pragma unroll
        for (int i = 0; i < N; i++) value[i] = stored<T>(value[i]);
        store(sum + first + column, rows_whole, count, value);
        store_whole(kept + column, value);
    }
    float mean, rstd;
    row_statistics(kept, width, epsilon, mean, rstd);
    if (lane == 0) means[token] = mean, rstds[token] = rstd;
    for (int column = lane * N; column < width; column += 32 * N) {
        const int count = width - column;
        float value[N], weight[N], bias[N];
        load_whole(kept + column, value);
        load(norm_weight + column, vectors_whole, count, weight);
        load(norm_bias + column, vectors_whole, count, bias);
#pragma unroll
        for (int i = 0; i < N; i++) value[i] = (value[i] - mean) * rstd * weight[i] + bias[i];
        dropout.apply(mask, column, value);
        store(out + first + column, rows_whole, count, value);
    }
}

/// Backward of embed_norm_forward's norm: d_out [T, W] behind the dropout; d_sum [T, W] in float, for the tables;
/// partials [P, 2, W]: norm_weight, norm_bias.
TYPED_KERNEL(embed_norm_backward, 256, const T* __restrict__ d_out, const T* __restrict__ sum,
             const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ norm_weight,
             DROPOUT_PARAMETERS, float* __restrict__ d_sum, float* __restrict__ partials, int tokens, int width,
             int rows_per_block) {
    __shared__ NormScratch scratch;
    __shared__ float column_sums[256 * LANES<T>];
    norm_backward<false>(scratch, column_sums, d_out, sum, mean, rstd, norm_weight, DROPOUT, static_cast<u32*>(nullptr),
                         tokens, width, rows_per_block, d_sum, static_cast<T*>(nullptr), partials);
}
