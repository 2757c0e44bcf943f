// Attention on tensor cores, bfloat16, for heads of 32, 64 and 128: the mathematics, shapes and mask of kernel.cu,
// with scores that never leave the registers (Dao et al., 2022, "FlashAttention").
//
// A warp owns 16 rows, a block up to four warps' rows of one head of one sequence, in shared memory with rows 16 bytes
// longer than they need to be, so that eight of them lie in different banks. The forward pass goes over tiles of 64
// keys and rescales what it has when it meets a larger score. In the backward pass a block is first the owner of keys,
// with scores transposed so that they are at once the left operand of d_key and d_value, then the owner of queries, for
// d_query: scores are computed twice, and in return no block adds to what another one writes. Where one block holds a
// whole sequence, as it does of nearly all text, scores are computed once, and their gradients go through shared memory
// from the owners of keys to those of queries.
//
// Fragments of mma_16x8x16: with group = lane / 4 and pair = lane % 4 * 2, element i of an accumulator stands in row
// group + 8 (i / 2) and column pair + i % 2; two neighbouring accumulators, packed, are a left operand.

constexpr int KEY_TILE = 64;
constexpr float LOG2_E = 1.44269504f;
constexpr float LN_2 = 0.69314718f;

/// Which rows of which head of which sequence a block works on.
struct TileSequence {
    u32 first, first_query;
    int length, queries, head, tile, rows;
    const u32* query_tokens;

    __device__ __forceinline__ TileSequence(const u32* starts, const u32* query_starts, const u32* query_tokens)
        : query_tokens(query_tokens) {
        first = starts[blockIdx.z];
        length = starts[blockIdx.z + 1] - first;
        first_query = query_starts[blockIdx.z];
        queries = query_starts[blockIdx.z + 1] - first_query;
        head = blockIdx.y;
        rows = blockDim.x / 2;
        tile = blockIdx.x * rows;
    }

    /// Which token of the batch this query of the sequence is; any where there is none.
    __device__ __forceinline__ u32 token(int query) const {
        return query_tokens && query < queries ? query_tokens[first_query + query] : first_query + query;
    }
};

__device__ __forceinline__ int whole_steps(int rows) { return (rows + 15) / 16 * 16; }

/// A matrix' rows, `stride` elements apart.
struct Rows {
    const bf16* at;
    int stride;
};

/// Rows of a head, from row `first` on, begin to travel to shared memory, with rows of zeros up to a multiple of 16.
template <int D>
__device__ __forceinline__ void load_tile(bf16* tile, Rows matrix, size_t first, int head, int rows) {
    constexpr int CHUNKS = D / 8;
    const bf16* from = matrix.at + first * matrix.stride + head * D;
    const int all = whole_steps(rows) * CHUNKS;
    for (int i = threadIdx.x; i < all; i += blockDim.x) {
        const int row = i / CHUNKS, column = i % CHUNKS * 8;
        bf16* to = tile + row * (D + 8) + column;
        if (row < rows) {
            copy16_async(to, from + static_cast<size_t>(row) * matrix.stride + column);
        } else {
            store16(to, {0, 0, 0, 0});
        }
    }
}

__device__ __forceinline__ void tiles_arrive() {
    copies_commit();
    copies_wait();
    __syncthreads();
}

/// A left operand: 16 rows, 16 columns.
template <int D>
__device__ __forceinline__ void load_left(const bf16* rows, int column, unsigned (&a)[4]) {
    const int lane = threadIdx.x % 32;
    load_matrices(rows + lane % 16 * (D + 8) + column + lane / 16 * 8, a);
}

/// A right operand of two products: element [k][n] is row n, column k of these 16 rows.
template <int D>
__device__ __forceinline__ void load_right(const bf16* rows, int column, unsigned (&low)[2], unsigned (&high)[2]) {
    const int lane = threadIdx.x % 32;
    unsigned b[4];
    load_matrices(rows + (lane / 16 * 8 + lane % 8) * (D + 8) + column + lane / 8 % 2 * 8, b);
    low[0] = b[0], low[1] = b[1], high[0] = b[2], high[1] = b[3];
}

/// The same where element [k][n] is row k, column n.
template <int D>
__device__ __forceinline__ void load_right_rows(const bf16* rows, int column, unsigned (&low)[2], unsigned (&high)[2]) {
    const int lane = threadIdx.x % 32;
    unsigned b[4];
    load_matrices_transposed(rows + lane % 16 * (D + 8) + column + lane / 16 * 8, b);
    low[0] = b[0], low[1] = b[1], high[0] = b[2], high[1] = b[3];
}

/// sum [16, D] += left [16, 16] rows [16, D]
template <int D>
__device__ __forceinline__ void add_product(float (&sum)[D / 8][4], const unsigned (&left)[4], const bf16* rows) {
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
        unsigned low[2], high[2];
        load_right_rows<D>(rows, 16 * d, low, high);
        mma_16x8x16(sum[2 * d], left, low);
        mma_16x8x16(sum[2 * d + 1], left, high);
    }
}

/// Two neighbouring accumulators as a left operand.
__device__ __forceinline__ void pack_left(const float (&low)[4], const float (&high)[4], unsigned (&left)[4]) {
    left[0] = pack_bf16(low[0], low[1]);
    left[1] = pack_bf16(low[2], low[3]);
    left[2] = pack_bf16(high[0], high[1]);
    left[3] = pack_bf16(high[2], high[3]);
}

/// Writes the first `rows` of a warp's 16 rows, each half times its factor. Lanes exchange pairs, so that four of them
/// write 32 bytes in a row.
template <int D>
__device__ __forceinline__ void store_tile(bf16* to, int stride, int rows, const float (&values)[D / 8][4],
                                           float upper_factor, float lower_factor) {
    const int lane = threadIdx.x % 32, group = lane / 4, odd = lane % 2;
    const int column = odd * 8 + (lane % 4 - odd) * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float factor = half ? lower_factor : upper_factor;
        const int row = group + 8 * half;
        bf16* row_to = to + static_cast<size_t>(row) * stride + column;
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            const float(&low)[4] = values[2 * d];
            const float(&high)[4] = values[2 * d + 1];
            const unsigned first = pack_bf16(low[2 * half] * factor, low[2 * half + 1] * factor);
            const unsigned second = pack_bf16(high[2 * half] * factor, high[2 * half + 1] * factor);
            const unsigned other = __shfl_xor_sync(~0u, odd ? first : second, 1);
            if (row < rows) store8(row_to + 16 * d, odd ? other : first, odd ? second : other);
        }
    }
}

template <int D>
__device__ __forceinline__ void forward_tiles(bf16* shared, Rows query, Rows key, Rows value, const TileSequence& at,
                                              int heads, float scale, const Dropout& dropout, int max_length,
                                              int key_rows, bf16* context, float* lse) {
    constexpr int STRIDE = D + 8;
    if (at.tile >= at.queries) return;
    const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4 * 2;
    const int mine = threadIdx.x / 32 * 16;
    const int hidden = heads * D;
    const bool busy = at.tile + mine < at.queries;
    const float to_log2 = scale * LOG2_E;
    bf16* queries = shared;
    bf16* keys = queries + at.rows * STRIDE;
    bf16* values = keys + key_rows * STRIDE;
    load_tile<D>(queries, query, at.first_query + at.tile, at.head, min(at.rows, at.queries - at.tile));

    unsigned left[D / 16][4] = {};
    float out[D / 8][4] = {};
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    MaskRow mask[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        mask[half] = dropout.row(at.token(at.tile + mine + group + 8 * half), max_length, heads, at.head);
    }
    for (int base = 0; base < at.length; base += KEY_TILE) {
        const int count = min(KEY_TILE, at.length - base);
        if (base > 0) __syncthreads();
        load_tile<D>(keys, key, at.first + base, at.head, count);
        load_tile<D>(values, value, at.first + base, at.head, count);
        tiles_arrive();
        if (!busy) continue;
        if (base == 0) {
#pragma unroll
            for (int k = 0; k < D / 16; k++) load_left<D>(queries + mine * STRIDE, 16 * k, left[k]);
        }
        float scores[KEY_TILE / 8][4];
        float tile_largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int j = 0; j < KEY_TILE / 16; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) scores[2 * j][i] = scores[2 * j + 1][i] = 0.0f;
            if (16 * j < count) {
#pragma unroll
                for (int k = 0; k < D / 16; k++) {
                    unsigned low[2], high[2];
                    load_right<D>(keys + 16 * j * STRIDE, 16 * k, low, high);
                    mma_16x8x16(scores[2 * j], left[k], low);
                    mma_16x8x16(scores[2 * j + 1], left[k], high);
                }
            }
#pragma unroll
            for (int n = 2 * j; n < 2 * j + 2; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if (8 * n + pair + i % 2 >= count) scores[n][i] = -INFINITY;
                    tile_largest[i / 2] = fmaxf(tile_largest[i / 2], scores[n][i]);
                }
            }
        }
        float offset[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = tile_largest[half];
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            most = fmaxf(most, largest[half]);
            const float correction = exp2_fast((largest[half] - most) * to_log2);
            largest[half] = most;
            offset[half] = most * to_log2;
            sum[half] *= correction;
#pragma unroll
            for (int d = 0; d < D / 8; d++) out[d][2 * half] *= correction, out[d][2 * half + 1] *= correction;
        }
#pragma unroll
        for (int j = 0; j < KEY_TILE / 16; j++) {
            if (16 * j >= count) break;
#pragma unroll
            for (int n = 2 * j; n < 2 * j + 2; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float probability = exp2_fast(scores[n][i] * to_log2 - offset[i / 2]);
                    sum[i / 2] += probability;
                    if (dropout.threshold) probability *= dropout.factor(mask[i / 2], base + 8 * n + pair + i % 2);
                    scores[n][i] = probability;
                }
            }
            unsigned probabilities[4];
            pack_left(scores[2 * j], scores[2 * j + 1], probabilities);
            add_product<D>(out, probabilities, values + 16 * j * STRIDE);
        }
    }
    if (!busy) return;
    const int rows = at.queries - at.tile - mine;
    const size_t first_row = at.first_query + at.tile + mine;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
        sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
        const int row = group + 8 * half;
        if (lane % 4 == 0 && row < rows) {
            lse[(first_row + row) * heads + at.head] = largest[half] * scale + logf(sum[half]);
        }
    }
    store_tile<D>(context + first_row * hidden + at.head * D, hidden, rows, out, 1.0f / sum[0], 1.0f / sum[1]);
}

/// For `rows` queries of the sequence from `first` on: the log-sum-exp in powers of two; what softmax's backward pass
/// subtracts, the scalar product of d_context and context; and which tokens they are. Rows up to a multiple of 16 get
/// values that make their probabilities zero.
template <int D>
__device__ __forceinline__ void load_row_terms(float* log_sums, float* projections, u32* tokens, const bf16* context,
                                               const bf16* d_context, const float* lse, const TileSequence& at,
                                               int first, int rows, int heads) {
    constexpr int CHUNKS = D / 8;
    const int chunk = threadIdx.x % CHUNKS * 8;
    const int all = whole_steps(rows);
    const size_t row = at.first_query + first;
    for (int base = 0; base < all; base += blockDim.x / CHUNKS) {
        const int i = base + threadIdx.x / CHUNKS;
        float projection = 0.0f;
        if (i < rows) {
            const size_t place = ((row + i) * heads + at.head) * D + chunk;
            float a[8], b[8];
            load_whole(context + place, a);
            load_whole(d_context + place, b);
#pragma unroll
            for (int j = 0; j < 8; j++) projection += a[j] * b[j];
        }
#pragma unroll
        for (int bits = CHUNKS / 2; bits > 0; bits /= 2) projection += __shfl_xor_sync(~0u, projection, bits);
        if (chunk == 0 && i < all) {
            projections[i] = projection;
            log_sums[i] = i < rows ? lse[(row + i) * heads + at.head] * LOG2_E : INFINITY;
            tokens[i] = at.token(first + i);
        }
    }
}

/// Left operands of 16 rows: in registers where there are enough, else read again at every use.
template <int D>
struct LeftRows {
    static constexpr bool KEPT = D <= 64;
    const bf16* rows;
    unsigned kept[KEPT ? D / 16 : 1][4];

    __device__ __forceinline__ void begin(const bf16* from) {
        rows = from;
        if constexpr (KEPT) {
#pragma unroll
            for (int k = 0; k < D / 16; k++) load_left<D>(rows, 16 * k, kept[k]);
        }
    }

    /// product [16, 16] = these rows times the transpose of `right`'s 16 rows
    __device__ __forceinline__ void times(const bf16* right, float (&product)[2][4]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) product[0][i] = product[1][i] = 0.0f;
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            unsigned low[2], high[2];
            load_right<D>(right, 16 * k, low, high);
            if constexpr (KEPT) {
                mma_16x8x16(product[0], kept[k], low);
                mma_16x8x16(product[1], kept[k], high);
            } else {
                unsigned left[4];
                load_left<D>(rows, 16 * k, left);
                mma_16x8x16(product[0], left, low);
                mma_16x8x16(product[1], left, high);
            }
        }
    }
};

template <int D>
__device__ __forceinline__ void backward_tiles(bf16* shared, Rows query, Rows key, Rows value, const TileSequence& at,
                                               int heads, float scale, const Dropout& dropout, int max_length,
                                               const bf16* context, const bf16* d_context, const float* lse,
                                               bf16* d_query, int d_query_stride, bf16* d_key, int d_key_stride,
                                               bf16* d_value, int d_value_stride) {
    constexpr int STRIDE = D + 8;
    const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4 * 2;
    const int mine = threadIdx.x / 32 * 16;
    const float to_log2 = scale * LOG2_E;
    bf16* keys = shared;
    bf16* values = keys + at.rows * STRIDE;
    bf16* queries = values + at.rows * STRIDE;
    bf16* d_contexts = queries + at.rows * STRIDE;
    float* log_sums = reinterpret_cast<float*>(d_contexts + at.rows * STRIDE);
    float* projections = log_sums + at.rows;
    u32* tokens = reinterpret_cast<u32*>(projections + at.rows);
    const bool one_tile = at.length <= at.rows && at.queries <= at.rows;

    const auto load_keys = [&](int base) {
        const int count = min(at.rows, at.length - base);
        load_tile<D>(keys, key, at.first + base, at.head, count);
        load_tile<D>(values, value, at.first + base, at.head, count);
    };
    const auto load_queries = [&](int base) {
        const int count = min(at.rows, at.queries - base);
        const size_t row = at.first_query + base;
        load_tile<D>(queries, query, row, at.head, count);
        load_tile<D>(d_contexts, {d_context, heads * D}, row, at.head, count);
        load_row_terms<D>(log_sums, projections, tokens, context, d_context, lse, at, base, count, heads);
    };

    if (at.tile < at.length) {
        // Owner of keys: rows are keys, columns queries.
        const bool busy = at.tile + mine < at.length;
        LeftRows<D> my_keys, my_values;
        float d_keys[D / 8][4] = {}, d_values[D / 8][4] = {};
        // A sequence may have no queries; its gradients are zero then.
        if (at.queries > 0) load_keys(at.tile);
        for (int base = 0; base < at.queries; base += at.rows) {
            if (base > 0) __syncthreads();
            load_queries(base);
            tiles_arrive();
            if (!busy) continue;
            if (base == 0) {
                my_keys.begin(keys + mine * STRIDE);
                my_values.begin(values + mine * STRIDE);
            }
            const int count = min(at.rows, at.queries - base);
#pragma unroll 1
            for (int step = 0; step < count; step += 16) {
                float scores[2][4], d_scores[2][4];
                my_keys.times(queries + step * STRIDE, scores);
                my_values.times(d_contexts + step * STRIDE, d_scores);
#pragma unroll
                for (int n = 0; n < 2; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int column = step + 8 * n + pair + i % 2;
                        const float probability = exp2_fast(scores[n][i] * to_log2 - log_sums[column]);
                        float factor = 1.0f;
                        if (dropout.threshold) {
                            const MaskRow mask = dropout.row(tokens[column], max_length, heads, at.head);
                            factor = dropout.factor(mask, at.tile + mine + group + i / 2 * 8);
                        }
                        scores[n][i] = probability * factor;
                        d_scores[n][i] = probability * (d_scores[n][i] * factor - projections[column]);
                    }
                }
                unsigned left[4];
                pack_left(scores[0], scores[1], left);
                add_product<D>(d_values, left, d_contexts + step * STRIDE);
                pack_left(d_scores[0], d_scores[1], left);
                add_product<D>(d_keys, left, queries + step * STRIDE);
            }
        }
        if (busy) {
            const int rows = at.length - at.tile - mine;
            const size_t row = at.first + at.tile + mine;
            store_tile<D>(d_key + row * d_key_stride + at.head * D, d_key_stride, rows, d_keys, scale, scale);
            store_tile<D>(d_value + row * d_value_stride + at.head * D, d_value_stride, rows, d_values, 1.0f, 1.0f);
        }
    }

    if (at.tile < at.queries) {
        // Owner of queries: rows are queries, columns keys.
        const bool busy = at.tile + mine < at.queries;
        LeftRows<D> my_queries, my_d_contexts;
        float d_queries[D / 8][4] = {};
        float log_sum[2], projection[2];
        MaskRow mask[2];
        if (!one_tile) {
            __syncthreads();
            load_queries(at.tile);
        }
        for (int base = 0; base < at.length; base += at.rows) {
            if (!one_tile) {
                if (base > 0) __syncthreads();
                load_keys(base);
                tiles_arrive();
            }
            if (!busy) continue;
            if (base == 0) {
                my_queries.begin(queries + mine * STRIDE);
                my_d_contexts.begin(d_contexts + mine * STRIDE);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int row = mine + group + 8 * half;
                    log_sum[half] = log_sums[row];
                    projection[half] = projections[row];
                    mask[half] = dropout.row(tokens[row], max_length, heads, at.head);
                }
            }
            const int count = min(at.rows, at.length - base);
#pragma unroll 1
            for (int step = 0; step < count; step += 16) {
                float scores[2][4], d_scores[2][4];
                my_queries.times(keys + step * STRIDE, scores);
                my_d_contexts.times(values + step * STRIDE, d_scores);
#pragma unroll
                for (int n = 0; n < 2; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int column = step + 8 * n + pair + i % 2;
                        const float probability = exp2_fast(scores[n][i] * to_log2 - log_sum[i / 2]);
                        float d = d_scores[n][i];
                        if (dropout.threshold) d *= dropout.factor(mask[i / 2], base + column);
                        d_scores[n][i] = column < count ? probability * (d - projection[i / 2]) : 0.0f;
                    }
                }
                unsigned left[4];
                pack_left(d_scores[0], d_scores[1], left);
                add_product<D>(d_queries, left, keys + step * STRIDE);
            }
        }
        if (busy) {
            const size_t row = at.first_query + at.tile + mine;
            bf16* to = d_query + row * d_query_stride + at.head * D;
            store_tile<D>(to, d_query_stride, at.queries - at.tile - mine, d_queries, scale, scale);
        }
    }
}

/// A sequence that one block holds as a whole, a warp each 16 of its rows. A block has warps for the batch's longest
/// sequence; of a shorter one it takes as many heads as they are enough for, and blocks without a head end at once.
struct alignas(16) WholeSequence {
    u32 first, first_query;
    /// `row`: the first one of this warp; `first_strip`: which warp has the first ones of its head.
    int length, queries, first_head, head, row, first_strip, steps;
    bool busy;

    __device__ __forceinline__ WholeSequence(const u32* starts, const u32* query_starts, int heads) {
        first = starts[blockIdx.z];
        length = starts[blockIdx.z + 1] - first;
        first_query = query_starts[blockIdx.z];
        queries = query_starts[blockIdx.z + 1] - first_query;
        steps = max(1, whole_steps(length) / 16);
        const int warp = threadIdx.x / 32, together = blockDim.x / 32 / steps, which = warp / steps;
        first_head = blockIdx.y * together;
        head = first_head + which;
        busy = which < together && head < heads;
        first_strip = which * steps;
        row = (warp - first_strip) * 16;
    }

    /// Keys, or queries, of this warp.
    __device__ __forceinline__ int keys_here() const { return min(16, length - row); }
    __device__ __forceinline__ int queries_here() const { return min(16, queries - row); }
};

/// A warp's 16 rows of a head begin to travel to shared memory, `count` of them, zeros for the others.
template <int D>
__device__ __forceinline__ void load_strip(bf16* strip, Rows matrix, size_t first, int head, int count) {
    constexpr int CHUNKS = D / 8;
    const int lane = threadIdx.x % 32, column = lane % CHUNKS * 8;
    const bf16* from = matrix.at + first * matrix.stride + head * D + column;
#pragma unroll
    for (int i = 0; i < CHUNKS / 2; i++) {
        const int row = i * (32 / CHUNKS) + lane / CHUNKS;
        bf16* to = strip + row * (D + 8) + column;
        if (row < count) {
            copy16_async(to, from + static_cast<size_t>(row) * matrix.stride);
        } else {
            store16(to, {0, 0, 0, 0});
        }
    }
}

/// Tokens of the longest sequence that one block holds, and elements from row to row of its scores in shared memory.
constexpr int WHOLE = 128, SCORE_STRIDE = WHOLE + 8;
/// Keys that the forward pass takes at a time then; more would take registers from other blocks.
constexpr int WHOLE_TILE = 32;
/// The forward pass leaves the mask of such sequences for the backward pass, four words for each query and head: in the
/// order that a warp computes probabilities in, key k is bit k / 8 * 2 + k % 2 of word k % 8 / 2.
constexpr int SURVIVOR_WORDS = WHOLE / 32;

/// What a block of the forward pass keeps of the 16 rows of each warp.
template <int D>
struct alignas(16) ForwardStrip {
    static constexpr int TILE = 16 * (D + 8);
    bf16 queries[TILE], keys[TILE], values[TILE];
};

/// The forward pass of sequences that one block holds: all of it is asked for at once.
template <int D>
__device__ __forceinline__ void forward_whole(void* shared, Rows query, Rows key, Rows value, const WholeSequence& at,
                                              const u32* query_tokens, int heads, float scale, const Dropout& dropout,
                                              int max_length, bf16* context, float* lse, u32* survivors) {
    if (at.first_head >= heads) return;
    const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4 * 2;
    const float to_log2 = scale * LOG2_E;
    ForwardStrip<D>* strips = static_cast<ForwardStrip<D>*>(shared) + at.first_strip;
    ForwardStrip<D>& mine = strips[at.row / 16];
    const int rows = at.queries_here();
    const size_t first_query = at.first_query + at.row;
    if (at.busy) {
        if (rows > 0) load_strip<D>(mine.queries, query, first_query, at.head, rows);
        load_strip<D>(mine.keys, key, at.first + at.row, at.head, at.keys_here());
        load_strip<D>(mine.values, value, at.first + at.row, at.head, at.keys_here());
    }
    // While it travels, which probabilities the mask leaves.
    u32 bits[2] = {0, 0};
    if (dropout.threshold && at.busy && rows > 0) {
        MaskRow mask[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = min(group + 8 * half, rows - 1);
            const u32 token = query_tokens ? query_tokens[first_query + row] : static_cast<u32>(first_query) + row;
            mask[half] = dropout.row(token, max_length, heads, at.head);
        }
#pragma unroll 2
        for (int n = 0; 8 * n < at.length; n++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const u32 low = dropout.keeps(mask[half], 8 * n + pair);
                const u32 high = dropout.keeps(mask[half], 8 * n + pair + 1);
                bits[half] |= (low | high << 1) << 2 * n;
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = group + 8 * half;
            if (survivors && row < rows) {
                survivors[((first_query + row) * heads + at.head) * SURVIVOR_WORDS + lane % 4] = bits[half];
            }
        }
    }
    tiles_arrive();
    if (!at.busy || rows <= 0) return;

    float out[D / 8][4] = {};
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    const ForwardStrip<D>* from = strips;
#pragma unroll 1
    for (int count = at.length; count > 0; count -= WHOLE_TILE, from += WHOLE_TILE / 16) {
        // Behind an odd number of steps the last one again, with no weight.
        const ForwardStrip<D>* second = from + (count > 16);
        float scores[WHOLE_TILE / 8][4] = {};
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            unsigned left[4], low[2], high[2];
            load_left<D>(mine.queries, 16 * k, left);
            load_right<D>(from->keys, 16 * k, low, high);
            mma_16x8x16(scores[0], left, low);
            mma_16x8x16(scores[1], left, high);
            load_right<D>(second->keys, 16 * k, low, high);
            mma_16x8x16(scores[2], left, low);
            mma_16x8x16(scores[3], left, high);
        }
        float tile_largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int n = 0; n < WHOLE_TILE / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (8 * n + pair + i % 2 >= count) scores[n][i] = -INFINITY;
                tile_largest[i / 2] = fmaxf(tile_largest[i / 2], scores[n][i]);
            }
        }
        float offset[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = tile_largest[half];
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            most = fmaxf(most, largest[half]);
            const float correction = exp2_fast((largest[half] - most) * to_log2);
            largest[half] = most;
            offset[half] = most * to_log2;
            sum[half] *= correction;
#pragma unroll
            for (int d = 0; d < D / 8; d++) out[d][2 * half] *= correction, out[d][2 * half + 1] *= correction;
        }
#pragma unroll
        for (int j = 0; j < WHOLE_TILE / 16; j++) {
#pragma unroll
            for (int n = 2 * j; n < 2 * j + 2; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    scores[n][i] = exp2_fast(scores[n][i] * to_log2 - offset[i / 2]);
                    sum[i / 2] += scores[n][i];
                }
            }
            if (dropout.threshold) {
#pragma unroll
                for (int n = 2 * j; n < 2 * j + 2; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        if (!(bits[i / 2] & 1u << (2 * n + i % 2))) scores[n][i] = 0.0f;
                    }
                }
            }
            unsigned probabilities[4];
            pack_left(scores[2 * j], scores[2 * j + 1], probabilities);
            add_product<D>(out, probabilities, (j ? second : from)->values);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) bits[half] >>= WHOLE_TILE / 4;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
        sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
        const int row = group + 8 * half;
        if (lane % 4 == 0 && row < rows) {
            lse[(first_query + row) * heads + at.head] = largest[half] * scale + logf(sum[half]);
        }
    }
    const int hidden = heads * D;
    store_tile<D>(context + first_query * hidden + at.head * D, hidden, rows, out, dropout.scale / sum[0],
                  dropout.scale / sum[1]);
}

/// What a block of the backward pass keeps of the 16 rows of each warp.
template <int D>
struct alignas(16) BackwardStrip {
    static constexpr int TILE = 16 * (D + 8);
    bf16 keys[TILE], queries[TILE];
    union {
        bf16 d_contexts[TILE];
        /// The sums over the warp's rows of d_query, d_key and d_value, at the end.
        float totals[3 * D];
    };
    /// Values, which the warp itself alone reads, and then in their place the gradients of its keys' scores.
    bf16 values[16 * SCORE_STRIDE];
    /// Of each query the log-sum-exp in powers of two, and what softmax's backward pass subtracts.
    float sums[2 * 16];
    /// Of each query which probabilities dropout left.
    u32 survivors[16 * SURVIVOR_WORDS];
    /// Here, since the loop over queries takes all registers.
    WholeSequence at;
};
static_assert(sizeof(BackwardStrip<64>) == 16 * (3 * (64 + 8) + SCORE_STRIDE) * 2 + 432, "as launch.rs counts");

/// Of a warp's queries d_context, sums and mask. Rows up to the 16th get values that make their probabilities zero.
template <int D>
__device__ __forceinline__ void load_query_terms(BackwardStrip<D>& mine, const bf16* context, const bf16* d_context,
                                                 const float* lse, const u32* survivors, const WholeSequence& at,
                                                 int heads) {
    constexpr int CHUNKS = D / 8, LOADS = CHUNKS / 2;
    const int count = at.queries_here();
    const int lane = threadIdx.x % 32, column = lane % CHUNKS * 8;
    const size_t first = at.first_query + at.row;
    Bytes16 a[LOADS], b[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const int row = i * (32 / CHUNKS) + lane / CHUNKS;
        a[i] = b[i] = {0, 0, 0, 0};
        if (row < count) {
            const size_t from = ((first + row) * heads + at.head) * D + column;
            a[i] = load16(context + from);
            b[i] = load16(d_context + from);
        }
    }
    if (lane < 16) {
        const bool there = lane < count;
        const size_t place = (first + lane) * heads + at.head;
        mine.sums[2 * lane] = there ? lse[place] * LOG2_E : INFINITY;
        u32* to = mine.survivors + lane * SURVIVOR_WORDS;
        if (survivors && there) {
            copy16_async(to, survivors + place * SURVIVOR_WORDS);
        } else {
            store16(to, {~0u, ~0u, ~0u, ~0u});
        }
    }
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const int row = i * (32 / CHUNKS) + lane / CHUNKS;
        store16(mine.d_contexts + row * (D + 8) + column, b[i]);
        const u32 left[4] = {a[i].x, a[i].y, a[i].z, a[i].w}, right[4] = {b[i].x, b[i].y, b[i].z, b[i].w};
        float projection = 0.0f;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            projection += bits_to_float(left[j] << 16) * bits_to_float(right[j] << 16);
            projection += bits_to_float(left[j] & 0xffff0000u) * bits_to_float(right[j] & 0xffff0000u);
        }
#pragma unroll
        for (int bits = CHUNKS / 2; bits > 0; bits /= 2) projection += __shfl_xor_sync(~0u, projection, bits);
        if (lane % CHUNKS == 0) mine.sums[2 * row + 1] = projection;
    }
}

/// The sums over the first `rows` of a warp's 16 rows, of two columns a lane: those from 8 group + pair on, or of 32
/// columns from 8 (group / 2) + pair on.
template <int D>
__device__ __forceinline__ void column_totals(const float (&values)[D / 8][4], int rows, float (&totals)[2]) {
    const int lane = threadIdx.x % 32, group = lane / 4;
    float sums[D / 8][2];
#pragma unroll
    for (int d = 0; d < D / 8; d++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sums[d][i] = (group < rows ? values[d][i] : 0.0f) + (group + 8 < rows ? values[d][2 + i] : 0.0f);
        }
    }
    // Of two lanes each goes on with half of the columns.
    int bits = 16;
#pragma unroll
    for (int half = D / 16; half > 0; half /= 2, bits /= 2) {
        const bool upper = lane & bits;
#pragma unroll
        for (int d = 0; d < half; d++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float other = __shfl_xor_sync(~0u, upper ? sums[d][i] : sums[d + half][i], bits);
                sums[d][i] = (upper ? sums[d + half][i] : sums[d][i]) + other;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        totals[i] = sums[0][i];
        if (D == 32) totals[i] += __shfl_xor_sync(~0u, totals[i], 4);
    }
}

/// The backward pass of sequences that one block holds: scores, transposed, are computed once, by the owner of the
/// keys. Their gradients then stand in shared memory, from where the owner of the queries sums up d_query.
template <int D>
__device__ __forceinline__ void backward_whole(void* shared, Rows query, Rows key, Rows value,
                                               const WholeSequence& begin, int heads, float scale,
                                               float dropout_scale, const bf16* context, const bf16* d_context,
                                               const float* lse, const u32* survivors,
                                               bf16* d_query, int d_query_stride, bf16* d_key, int d_key_stride,
                                               bf16* d_value, int d_value_stride, float* partials) {
    if (begin.first_head >= heads) return;
    const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4 * 2;
    const float to_log2 = scale * LOG2_E;
    BackwardStrip<D>* strips = static_cast<BackwardStrip<D>*>(shared);
    BackwardStrip<D>& mine = strips[threadIdx.x / 32];
    strips += begin.first_strip;
    if (lane == 0) mine.at = begin;
    if (begin.busy) {
        const size_t first = begin.first + begin.row, first_query = begin.first_query + begin.row;
        load_strip<D>(mine.keys, key, first, begin.head, begin.keys_here());
        load_strip<D>(mine.values, value, first, begin.head, begin.keys_here());
        if (begin.queries_here() > 0) {
            load_strip<D>(mine.queries, query, first_query, begin.head, begin.queries_here());
            load_query_terms<D>(mine, context, d_context, lse, survivors, begin, heads);
        }
    }
    tiles_arrive();
    const WholeSequence& at = mine.at;
    float key_totals[2], value_totals[2], query_totals[2] = {0.0f, 0.0f};
    if (at.busy) {
        LeftRows<D> my_keys, my_values;
        my_keys.begin(mine.keys);
        my_values.begin(mine.values);
        __syncwarp();
        float d_values[D / 8][4] = {};
        const int keys = at.keys_here(), first_bit = at.row / 4 + group % 2;
#pragma unroll 1
        for (int step = 0; step < at.queries; step += 16) {
            const BackwardStrip<D>* from = strips + step / 16;
            float scores[2][4], d_scores[2][4];
            my_keys.times(from->queries, scores);
            my_values.times(from->d_contexts, d_scores);
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const int column = 8 * n + pair;
                const Bytes16 sums = load16(from->sums + 2 * column);
                const float log_sums[2] = {bits_to_float(sums.x), bits_to_float(sums.z)};
                const float projections[2] = {bits_to_float(sums.y), bits_to_float(sums.w)};
                u32 bits[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    bits[i] = from->survivors[(column + i) * SURVIVOR_WORDS + group / 2] >> first_bit;
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float probability = exp2_fast(scores[n][i] * to_log2 - log_sums[i % 2]);
                    const float factor = bits[i % 2] & (i / 2 ? 4 : 1) ? dropout_scale : 0.0f;
                    scores[n][i] = probability * factor;
                    d_scores[n][i] = probability * (d_scores[n][i] * factor - projections[i % 2]);
                }
            }
            unsigned left[4];
            pack_left(d_scores[0], d_scores[1], left);
            // What is computed of keys that there are not may be anything.
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = group + i % 2 * 8;
                store4(mine.values + row * SCORE_STRIDE + step + i / 2 * 8 + pair, row < keys ? left[i] : 0);
            }
            pack_left(scores[0], scores[1], left);
            add_product<D>(d_values, left, from->d_contexts);
        }
        const size_t row = at.first + at.row;
        store_tile<D>(d_value + row * d_value_stride + at.head * D, d_value_stride, keys, d_values, 1.0f, 1.0f);
        if (partials) column_totals<D>(d_values, keys, value_totals);
        __syncwarp();
        float d_keys[D / 8][4] = {};
#pragma unroll 2
        for (int step = 0; step < at.queries; step += 16) {
            unsigned left[4];
            load_matrices(mine.values + lane % 16 * SCORE_STRIDE + step + lane / 16 * 8, left);
            add_product<D>(d_keys, left, strips[step / 16].queries);
        }
        store_tile<D>(d_key + row * d_key_stride + at.head * D, d_key_stride, keys, d_keys, scale, scale);
        if (partials) column_totals<D>(d_keys, keys, key_totals);
    }
    __syncthreads();
    if (at.busy && at.queries_here() > 0) {
        float d_queries[D / 8][4] = {};
        const int place = (lane / 16 * 8 + lane % 8) * SCORE_STRIDE + at.row + lane / 8 % 2 * 8;
#pragma unroll 2
        for (int step = 0; step < at.steps; step++) {
            unsigned left[4];
            load_matrices_transposed(strips[step].values + place, left);
            add_product<D>(d_queries, left, strips[step].keys);
        }
        bf16* to = d_query + (at.first_query + at.row) * static_cast<size_t>(d_query_stride) + at.head * D;
        store_tile<D>(to, d_query_stride, at.queries_here(), d_queries, scale, scale);
        if (partials) column_totals<D>(d_queries, at.queries_here(), query_totals);
    }
    if (!partials) return;
    // The rows of the three gradients, summed up: of each warp, then of the sequence. Of 32 columns two lanes have the same.
    if (at.busy && (D == 64 || group % 2 == 0)) {
        const int column = D == 64 ? 8 * group + pair : 8 * (group / 2) + pair;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            mine.totals[column + i] = query_totals[i] * scale;
            mine.totals[D + column + i] = key_totals[i] * scale;
            mine.totals[2 * D + column + i] = value_totals[i];
        }
    }
    __syncthreads();
    if (at.busy) {
        for (int i = 2 * at.row + lane; i < 3 * D; i += 32 * at.steps) {
            float total = 0.0f;
            for (int step = 0; step < at.steps; step++) total += strips[step].totals[i];
            partials[(blockIdx.z * 3 + i / D) * static_cast<size_t>(heads * D) + at.head * D + i % D] = total;
        }
    }
}

/// context and lse of every query. blockIdx.x counts tiles of a sequence's queries, blockIdx.y heads, blockIdx.z
/// sequences; a block has a warp for each 16 queries of a tile. Shared memory: the queries of a tile, and twice
/// key_rows: 64, or the longest sequence up to a multiple of 16.
#define FORWARD_TILES(D, BLOCKS)                                                                                       \
    RESIDENT_KERNEL(attention_forward_tiles_##D, 128, BLOCKS, ATTENTION_PARAMETERS(bf16), bf16* __restrict__ context,  \
                    float* __restrict__ lse) {                                                                         \
        DYNAMIC_SHARED(shared);                                                                                        \
        forward_tiles<D>(reinterpret_cast<bf16*>(shared), {query, query_stride}, {key, key_stride},                    \
                         {value, value_stride}, TileSequence(starts, query_starts, query_tokens), heads, scale,        \
                         DROPOUT, max_length, min(KEY_TILE, whole_steps(longest)), context, lse);                      \
    }

/// d_query, d_key and d_value. blockIdx.x counts tiles of a sequence's keys and queries, the rest as above. Shared
/// memory: four tiles, and three words a row of a tile.
#define BACKWARD_TILES(D, BLOCKS)                                                                                      \
    RESIDENT_KERNEL(attention_backward_tiles_##D, 128, BLOCKS, ATTENTION_BACKWARD_PARAMETERS(bf16)) {                  \
        DYNAMIC_SHARED(shared);                                                                                        \
        backward_tiles<D>(reinterpret_cast<bf16*>(shared), {query, query_stride}, {key, key_stride},                   \
                          {value, value_stride}, TileSequence(starts, query_starts, query_tokens), heads, scale,       \
                          DROPOUT, max_length, context, d_context, lse, d_query, d_query_stride, d_key, d_key_stride,  \
                          d_value, d_value_stride);                                                                    \
    }

/// d_query, d_key and d_value of sequences of at most 128 tokens; survivors as the forward pass left them, null without
/// a mask. partials [sequences, 3 * heads * D], if not null: of each sequence the sums over rows of these gradients,
/// side by side. blockIdx.y counts groups of heads, blockIdx.z sequences; a block has a warp for each 16 tokens of the
/// longest, or more. Shared memory: a strip a warp.
#define BACKWARD_WHOLE(D, BLOCKS)                                                                                      \
    RESIDENT_KERNEL(attention_backward_whole_##D, 256, BLOCKS, ATTENTION_BACKWARD_PARAMETERS(bf16)) {                  \
        DYNAMIC_SHARED(shared);                                                                                        \
        backward_whole<D>(shared, {query, query_stride}, {key, key_stride}, {value, value_stride},                     \
                          WholeSequence(starts, query_starts, heads), heads, scale, dropout_scale, context, d_context, \
                          lse, survivors, d_query, d_query_stride, d_key, d_key_stride, d_value, d_value_stride,       \
                          partials);                                                                                   \
    }

/// context, lse and, under a mask, survivors of sequences of at most 128 tokens; grid and shared memory as above.
#define FORWARD_WHOLE(D, BLOCKS)                                                                                       \
    RESIDENT_KERNEL(attention_forward_whole_##D, 256, BLOCKS, ATTENTION_PARAMETERS(bf16), bf16* __restrict__ context,  \
                    float* __restrict__ lse) {                                                                         \
        DYNAMIC_SHARED(shared);                                                                                        \
        forward_whole<D>(shared, {query, query_stride}, {key, key_stride}, {value, value_stride},                      \
                         WholeSequence(starts, query_starts, heads), query_tokens, heads, scale, DROPOUT, max_length,  \
                         context, lse, survivors);                                                                     \
    }

FORWARD_TILES(32, 5)
FORWARD_TILES(64, 4)
FORWARD_TILES(128, 2)
BACKWARD_TILES(32, 5)
BACKWARD_TILES(64, 3)
BACKWARD_TILES(128, 2)
BACKWARD_WHOLE(32, 2)
BACKWARD_WHOLE(64, 2)
FORWARD_WHOLE(32, 3)
FORWARD_WHOLE(64, 3)
