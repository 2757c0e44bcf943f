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
