// Sums in a fixed order of what other kernels left: many partial sums, or few columns.

/// destination[n] += the sum of partials[p][n] over p: partials [P, N], destination [N]. 32 columns a block, whose
/// eight warps share the rows.
KERNEL(reduce_partials, 256, const float* __restrict__ partials, float* __restrict__ destination, int count,
       int width) {
    __shared__ float sums[8][33];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int column = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (column < width) {
#pragma unroll 4
        for (int p = warp; p < count; p += 8) sum += partials[static_cast<size_t>(p) * width + column];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && column < width) {
        sum = 0.0f;
#pragma unroll
        for (int w = 0; w < 8; w++) sum += sums[w][lane];
        destination[column] += sum;
    }
}

/// The same with as many warps as rows are worth, up to 32, that have eight rows each under way.
KERNEL(reduce_partials_wide, 1024, const float* __restrict__ partials, float* __restrict__ destination, int count,
       int width) {
    __shared__ float sums[32][33];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int column = blockIdx.x * 32 + lane;
    const bool works = column < width;
    // Read before it is needed.
    const float before = warp == 0 && works ? destination[column] : 0.0f;
    float sum = 0.0f;
    if (works) {
        const float* from = partials + static_cast<size_t>(warp) * width + column;
        const size_t step = static_cast<size_t>(warps) * width;
        int p = warp;
#pragma unroll 1
        for (; p + 7 * warps < count; p += 8 * warps, from += 8 * step) {
            float values[8];
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = from[i * step];
#pragma unroll
            for (int i = 0; i < 8; i++) sum += values[i];
        }
        float values[7];
#pragma unroll
        for (int i = 0; i < 7; i++) values[i] = p + i * warps < count ? from[i * step] : 0.0f;
#pragma unroll
        for (int i = 0; i < 7; i++) sum += values[i];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && works) {
        sum = 0.0f;
#pragma unroll
        for (int w = 0; w < 32; w++) sum += w < warps ? sums[w][lane] : 0.0f;
        destination[column] = before + sum;
    }
}

/// sums[c] += the sum of x[r][c] over rows: x [R, C], sums [C]. One block; a warp a column in turn.
KERNEL(sum_rows, 256, const float* __restrict__ x, float* __restrict__ sums, int rows, int columns) {
    for (int column = threadIdx.x / 32; column < columns; column += blockDim.x / 32) {
        float sum = 0.0f;
        for (int row = threadIdx.x % 32; row < rows; row += 32) sum += x[static_cast<size_t>(row) * columns + column];
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) sums[column] += sum;
    }
}
