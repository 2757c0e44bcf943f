// The embeddings of three neighbours side by side (Sun et al., 2020), forward and backward: a gather each way. Agrees with
// cpu/op/trigram.rs.

/// Whether this token and the next are of one text, within which positions [T] ascend.
__device__ __forceinline__ bool goes_on(const u32* positions, int token, int tokens) {
    return token + 1 < tokens && positions[token] < positions[token + 1];
}

/// Of each token the next one's row, its own, that of the one before; zeros where its text ends: x [T, W], out [T, 3, W].
TYPED_KERNEL(trigram_forward, 256, const T* __restrict__ x, const u32* __restrict__ positions, T* __restrict__ out,
             int tokens, int width) {
    each_vector(3 * tokens, width, [&](int row, int column, bool whole, int count) {
        const int token = row / 3, from = token + 1 - row % 3;
        const bool there = from == token || (from > token ? goes_on(positions, token, tokens)
                                                          : from >= 0 && goes_on(positions, from, tokens));
        float value[LANES<T>] = {};
        if (there) load(x + static_cast<size_t>(from) * width + column, whole, count, value);
        store(out + static_cast<size_t>(row) * width + column, whole, count, value);
    });
}

/// Backward: d_out [T, 3, W]; d_x [T, W] out, added to what stands there if `adds`.
TYPED_KERNEL(trigram_backward, 256, const T* __restrict__ d_out, const u32* __restrict__ positions, bool adds,
             T* __restrict__ d_x, int tokens, int width) {
    each_vector(tokens, width, [&](int token, int column, bool whole, int count) {
        T* destination = d_x + static_cast<size_t>(token) * width + column;
        float sum[LANES<T>] = {};
        if (adds) load(destination, whole, count, sum);
        // The token is the next one of that before it, and the one before of the next.
#pragma unroll
        for (int other = -1; other <= 1; other++) {
            if (other < 0 && !(token > 0 && goes_on(positions, token - 1, tokens))) continue;
            if (other > 0 && !goes_on(positions, token, tokens)) continue;
            float value[LANES<T>];
            const size_t row = 3 * static_cast<size_t>(token + other) + 1 + other;
            load(d_out + row * width + column, whole, count, value);
#pragma unroll
            for (int i = 0; i < LANES<T>; i++) sum[i] += value[i];
        }
        store(destination, whole, count, sum);
    });
}
