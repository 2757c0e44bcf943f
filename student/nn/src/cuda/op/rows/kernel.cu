// Moving whole rows, dropping elements of rows, and casting to and fro.

/// to[r] = from[which[r]]: from [., W], which [R], to [R, W].
TYPED_KERNEL(gather_rows, 256, const T* __restrict__ from, const u32* __restrict__ which, T* __restrict__ to,
             int rows, int width) {
    each_vector(rows, width, [&](int row, int column, bool whole, int count) {
        float value[LANES<T>];
        load(from + static_cast<size_t>(which[row]) * width + column, whole, count, value);
        store(to + static_cast<size_t>(row) * width + column, whole, count, value);
    });
}

/// to[which[r]] += from[r]: from [R, W], which [R] without repetition, to [., W].
TYPED_KERNEL(scatter_add_rows, 256, const T* __restrict__ from, const u32* __restrict__ which, T* __restrict__ to,
             int rows, int width) {
    each_vector(rows, width, [&](int row, int column, bool whole, int count) {
        float value[LANES<T>], sum[LANES<T>];
        T* destination = to + static_cast<size_t>(which[row]) * width + column;
        load(from + static_cast<size_t>(row) * width + column, whole, count, value);
        load(destination, whole, count, sum);
#pragma unroll
        for (int i = 0; i < LANES<T>; i++) sum[i] += value[i];
        store(destination, whole, count, sum);
    });
}

/// x *= mask: x [R, W]. row_tokens [R] numbers the rows for the mask; null: one by one.
TYPED_KERNEL(dropout_rows, 256, T* __restrict__ x, DROPOUT_PARAMETERS, const u32* __restrict__ row_tokens, int rows,
             int width) {
    const Dropout dropout = DROPOUT;
    each_vector(rows, width, [&](int row, int column, bool whole, int count) {
        float value[LANES<T>];
        T* destination = x + static_cast<size_t>(row) * width + column;
        load(destination, whole, count, value);
        dropout.apply(dropout.row(row_tokens ? row_tokens[row] : row, width), column, value);
        store(destination, whole, count, value);
    });
}

/// to = from, rounded to T: [count].
TYPED_KERNEL(cast, 256, const float* __restrict__ from, T* __restrict__ to, long long count) {
    constexpr int N = LANES<T>;
    const long long at = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (at >= count) return;
    const long long left = count - at;
    const bool whole = left >= N;
    const int few = whole ? N : static_cast<int>(left);
    float value[N];
    load(from + at, whole && aligned16(from), few, value);
    store(to + at, whole && aligned16(to), few, value);
}

/// to = from, in float: [count].
TYPED_KERNEL(widen, 256, const T* __restrict__ from, float* __restrict__ to, long long count) {
    constexpr int N = LANES<T>;
    const long long at = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (at >= count) return;
    const long long left = count - at;
    const bool whole = left >= N;
    const int few = whole ? N : static_cast<int>(left);
    float value[N];
    load(from + at, whole, few, value);
    store(to + at, whole, few, value);
}
