// Sums of columns of activations, as partial sums. partials.cu adds these up.

/// Sums of the columns of x [R, N], rows `stride` apart: partials [P, N] out, over blocks of rows_per_block rows.
TYPED_KERNEL(column_sum, 128, const T* __restrict__ x, int stride, float* __restrict__ partials, int rows, int width,
             int rows_per_block) {
    constexpr int N = LANES<T>;
    const bool rows_whole = width % N == 0 && stride % N == 0 && aligned16(x);
    const auto visit = [&](int row, int column, bool whole, float(&sums)[N]) {
        float value[N];
        load(x + static_cast<size_t>(row) * stride + column, whole, width - column, value);
#pragma unroll
        for (int i = 0; i < N; i++) sums[i] += value[i];
    };
    sum_columns(rows, width, rows_per_block, rows_whole, partials, visit);
}

/// The same for whole, aligned rows.
TYPED_KERNEL(column_sum_whole, 128, const T* __restrict__ x, int stride, float* __restrict__ partials, int rows,
             int width, int rows_per_block) {
    const auto read = [&](int row, int column) { return fetch(x + static_cast<size_t>(row) * stride + column); };
    const auto visit = [&](int row, int column, const Packed<T>& packed, float(&sums)[EIGHT]) {
        float value[EIGHT];
        unpack(packed, value);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) sums[i] += value[i];
    };
    sum_whole_columns<8>(rows, width, rows_per_block, partials, read, visit);
}
