// The largest logits of each row and what the others add to the softmax: what a cache stores of a vocabulary. The order is
// the cache's own: falling, of equal logits the first first.

constexpr int TOP_THREADS = 256;
constexpr int TOP_DIGIT_BITS = 6;
constexpr int TOP_DIGITS = 1 << TOP_DIGIT_BITS;
/// Logits that are sorted: at least one more than the most that are asked for (256).
constexpr int TOP_ROOM = 1024;
/// Temperatures in one pass over a row.
constexpr int TOP_TEMPERATURES = 4;

/// Larger for what stands further in front. No two columns of a row have the same. What is no number or infinite comes
/// first of all, so that whoever reads the first one knows of it.
__device__ __forceinline__ u64 top_order(float logit, int column) {
    const u32 bits = float_to_bits(logit);
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    const u32 rank = !finite ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
    return static_cast<u64>(rank) << 32 | ~static_cast<u32>(column);
}

__device__ __forceinline__ int top_column(u64 order) { return static_cast<int>(~static_cast<u32>(order)); }

__device__ __forceinline__ u32 warp_count(u32 x) {
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(~0u, x, bits);
    return x;
}

/// The K largest logits of each row, falling, of equal ones the first first, with their columns; and of the others the
/// largest, and at each temperature the sums of e^x and of x e^x, x = (logit - their largest) / temperature.
///
/// logits [R, C], K < C; temperatures [N]; values, columns [R, K] out; rest [R, 1 + 2 N] out. One block a row.
///
/// The place of the K + 1st in the order is narrowed down digit by digit, by counts of each thread's own, until so few are
/// left at or in front of it that they can be sorted. Of normal logits that takes two digits; equal logits are told apart by their
/// columns' digits.
KERNEL(top_k, 256, const float* __restrict__ logits, const float* __restrict__ temperatures,
       float* __restrict__ values, u32* __restrict__ columns, float* __restrict__ rest, int width, int k, int count) {
    __shared__ unsigned short counts[TOP_DIGITS][TOP_THREADS];
    __shared__ u32 totals[TOP_DIGITS];
    __shared__ u64 front[TOP_ROOM];
    __shared__ u32 warp_counts[TOP_THREADS / 32];
    __shared__ float sums[TOP_THREADS / 32][2 * TOP_TEMPERATURES];
    const int me = threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const size_t row = blockIdx.x;
    logits += row * width;

    // The K + 1st has the `decided` bits of `from`; `above` are in front of all that have, `mine` of them this thread's.
    u64 from = 0, decided = 0;
    u32 above = 0, mine = 0;
    for (int shift = 64 - TOP_DIGIT_BITS;; shift -= TOP_DIGIT_BITS) {
        for (int digit = 0; digit < TOP_DIGITS; digit++) counts[digit][me] = 0;
#pragma unroll 4
        for (int column = me; column < width; column += TOP_THREADS) {
            const u64 order = top_order(logits[column], column);
            if ((order & decided) == from) counts[order >> shift & (TOP_DIGITS - 1)][me]++;
        }
        __syncthreads();
        for (int digit = warp; digit < TOP_DIGITS; digit += TOP_THREADS / 32) {
            u32 total = 0;
#pragma unroll
            for (int thread = lane; thread < TOP_THREADS; thread += 32) total += counts[digit][thread];
            total = warp_count(total);
            if (lane == 0) totals[digit] = total;
        }
        __syncthreads();
        int digit = TOP_DIGITS - 1;
        for (; above + totals[digit] <= static_cast<u32>(k); digit--) above += totals[digit], mine += counts[digit][me];
        from |= static_cast<u64>(digit) << shift;
        decided = ~0ull << shift;
        // With the last digits undecided no more are left than those can tell apart, and there is room.
        if (above + totals[digit] <= TOP_ROOM) {
            above += totals[digit], mine += counts[digit][me];
            break;
        }
    }

    // What is not behind `from`, in any order.
    u32 before = 0;
    for (int other = 0; other < 32; other++) {
        const u32 theirs = __shfl_sync(~0u, mine, other);
        before += other < lane ? theirs : 0;
    }
    const u32 ours = warp_count(mine);
    if (lane == 0) warp_counts[warp] = ours;
    __syncthreads();
    for (int other = 0; other < warp; other++) before += warp_counts[other];
#pragma unroll 4
    for (int column = me; column < width; column += TOP_THREADS) {
        const u64 order = top_order(logits[column], column);
        if (order >= from) front[before++] = order;
    }
    int size = 2;
    while (size < static_cast<int>(above)) size *= 2;
    for (int i = above + me; i < size; i += TOP_THREADS) front[i] = 0;
    __syncthreads();

    // Bitonic, falling.
    for (int run = 2; run <= size; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            for (int i = me; i < size / 2; i += TOP_THREADS) {
                const int one = 2 * i - (i & (step - 1)), other = one + step;
                const u64 first = front[one], second = front[other];
                if ((first < second) == ((one & run) == 0)) front[one] = second, front[other] = first;
            }
            __syncthreads();
        }
    }
    for (int i = me; i < k; i += TOP_THREADS) {
        const int column = top_column(front[i]);
        values[row * k + i] = logits[column];
        columns[row * k + i] = column;
    }

    // Sums are taken against the rest's own largest: against the largest of all, a rest far below would vanish.
    const u64 last = front[k];
    const float top = logits[top_column(last)];
    rest += row * (1 + 2 * count);
    if (me == 0) rest[0] = top;
    for (int begin = 0; begin < count; begin += TOP_TEMPERATURES) {
        float rates[TOP_TEMPERATURES], masses[TOP_TEMPERATURES], weighted[TOP_TEMPERATURES];
#pragma unroll
        for (int t = 0; t < TOP_TEMPERATURES; t++) {
            rates[t] = begin + t < count ? 1.0f / temperatures[begin + t] : 0.0f;
            masses[t] = weighted[t] = 0.0f;
        }
#pragma unroll 2
        for (int column = me; column < width; column += TOP_THREADS) {
            const float logit = logits[column];
            if (top_order(logit, column) > last) continue;
#pragma unroll
            for (int t = 0; t < TOP_TEMPERATURES; t++) {
                if (begin + t >= count) continue;
                // Below -87 a power is next to nothing; times a logit that masks it would be something again.
                const float scaled = fmaxf((logit - top) * rates[t], -87.0f);
                const float power = expf(scaled);
                masses[t] += power;
                weighted[t] += power * scaled;
            }
        }
#pragma unroll
        for (int t = 0; t < TOP_TEMPERATURES; t++) {
            const float mass = warp_sum(masses[t]), product = warp_sum(weighted[t]);
            if (lane == 0) sums[warp][2 * t] = mass, sums[warp][2 * t + 1] = product;
        }
        __syncthreads();
        if (me < 2 * TOP_TEMPERATURES && 2 * begin + me < 2 * count) {
            float sum = 0.0f;
#pragma unroll
            for (int other = 0; other < TOP_THREADS / 32; other++) sum += sums[other][me];
            rest[1 + 2 * begin + me] = sum;
        }
        __syncthreads();
    }
}
