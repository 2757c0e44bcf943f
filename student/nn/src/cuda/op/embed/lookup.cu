// The gradients of table rows that tokens looked up, added up in the tokens' order.

/// table_gradient[row] += the sum of the gradients of the tokens that looked row up.
///
/// d [T, W]; order [T]: token numbers sorted by what they looked up; segments [U + 1]: where in order each looked-up
/// row begins; table_rows [U]. blockIdx.x is the segment, blockIdx.y a tile of 128 columns; warp w of the block takes
/// every (number of warps)th token from w on.
KERNEL(lookup_gradient, 1024, const float* __restrict__ d, const u32* __restrict__ order,
       const u32* __restrict__ segments, const u32* __restrict__ table_rows, float* __restrict__ table_gradient,
       int width) {
    __shared__ __align__(16) float sums[32][128];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const u32 first = segments[blockIdx.x], last = segments[blockIdx.x + 1];
    const int column = blockIdx.y * 128 + lane * 4, count = width - column;
    float* destination = table_gradient + static_cast<size_t>(table_rows[blockIdx.x]) * width + column;
    const bool whole = width % 4 == 0;
    const bool works = count > 0;
    float sum[4] = {};
    if (works) {
#pragma unroll 4
        for (u32 i = first + warp; i < last; i += warps) {
            float value[4];
            load(d + static_cast<size_t>(order[i]) * width + column, whole, count, value);
#pragma unroll
            for (int j = 0; j < 4; j++) sum[j] += value[j];
        }
    }
    const int busy = min(warps, static_cast<int>(last - first));
    if (busy > 1) {
        if (warp < busy) store_whole(&sums[warp][lane * 4], sum);
        __syncthreads();
    }
    if (warp == 0 && works) {
        for (int other = 1; other < busy; other++) {
            float value[4];
            load_whole(&sums[other][lane * 4], value);
#pragma unroll
            for (int j = 0; j < 4; j++) sum[j] += value[j];
        }
        float value[4];
        const bool aligned = whole && aligned16(destination);
        load(destination, aligned, count, value);
#pragma unroll
        for (int j = 0; j < 4; j++) value[j] += sum[j];
        store(destination, aligned, count, value);
    }
}
