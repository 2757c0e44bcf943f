// How kernels add up columns, for one reduction to finish. Included once for each type.

/// Adds up the columns of the block's rows, which `visit(row, column, whole, sums)` reads: blockIdx.x counts tiles of
/// columns, one vector a thread, blockIdx.y blocks of rows. partials [P, N].
template <class Visit>
__device__ __forceinline__ void sum_columns(int rows, int width, int rows_per_block, bool whole, float* partials,
                                            const Visit& visit) {
    constexpr int N = LANES<T>;
    const int column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (column >= width) return;
    const int first = blockIdx.y * rows_per_block;
    const int last = min(first + rows_per_block, rows);
    float sums[N] = {};
    // Two loops, so that the usual one has no branches in it.
    if (whole) {
#pragma unroll 4
        for (int row = first; row < last; row++) visit(row, column, true, sums);
    } else {
#pragma unroll 1
        for (int row = first; row < last; row++) visit(row, column, false, sums);
    }
    float* destination = partials + static_cast<size_t>(blockIdx.y) * width + column;
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (column + i < width) destination[i] = sums[i];
    }
}

/// The same where rows are whole vectors of eight elements and aligned: `fetch(row, column)` for AHEAD rows at a time,
/// then `visit(row, column, fetched, sums)` for each.
template <int AHEAD, class Fetch, class Visit>
__device__ __forceinline__ void sum_whole_columns(int rows, int width, int rows_per_block, float* partials,
                                                  const Fetch& fetch, const Visit& visit) {
    const int column = (blockIdx.x * blockDim.x + threadIdx.x) * EIGHT;
    if (column >= width) return;
    const int first = blockIdx.y * rows_per_block;
    const int last = min(first + rows_per_block, rows);
    float sums[EIGHT] = {};
#pragma unroll 1
    for (int row = first; row < last; row += AHEAD) {
        decltype(fetch(0, 0)) fetched[AHEAD];
#pragma unroll
        // Beyond the block's rows the last one stands in.
        for (int r = 0; r < AHEAD; r++) fetched[r] = fetch(min(row + r, last - 1), column);
#pragma unroll
        for (int r = 0; r < AHEAD; r++) {
            if (row + r < last) visit(row + r, column, fetched[r], sums);
        }
    }
    store_whole(partials + static_cast<size_t>(blockIdx.y) * width + column, sums);
}
