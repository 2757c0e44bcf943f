// Norms of rows that are whole vectors of eight elements and aligned: every load of a row is under way before the first
// is waited for, and a row is read once. norm.cuh has the same for any other row. Included once for each type.

/// The most elements of such a row; `op/norm/launch.rs` knows it too.
constexpr int WHOLE_WIDTH = 1024;

/// Resident blocks that registers shall leave room for: of the forward kernels by V, of those with lookups, and of the
/// backward ones. One more, and some spill.
template <int V>
constexpr int WHOLE_BLOCKS = V == 1 ? 12 : V == 2 ? 8 : V == 3 ? 6 : sizeof(T) == 2 ? 5 : 4;
template <int V>
constexpr int WHOLE_LOOKUP_BLOCKS = V == 1 ? 12 : V == 2 ? 8 : V == 3 ? 5 : 4;
constexpr int WHOLE_BACKWARD_BLOCKS = sizeof(T) == 2 ? 4 : 2;

/// Where the lanes of a warp stand in a row of at most 256 V elements: lane l takes vectors l, 32 + l, ... Only the last
/// of a lane may be beyond the row: that is read at the row's end, counts as zeros and is not written.
template <int V>
struct Lanes {
    int width;

    __device__ __forceinline__ int column(int v) const { return (32 * v + static_cast<int>(threadIdx.x % 32)) * EIGHT; }
    __device__ __forceinline__ bool inside(int v) const { return v < V - 1 || column(v) < width; }
    __device__ __forceinline__ int readable(int v) const {
        return v < V - 1 ? column(v) : min(column(v), width - EIGHT);
    }

    template <class E>
    __device__ __forceinline__ void fetch_row(const E* row, Packed<E> (&to)[V]) const {
#pragma unroll
        for (int v = 0; v < V; v++) to[v] = fetch(row + readable(v));
    }
};

/// The forward pass of a norm over a row in the registers of one warp, as norm_row: values are what was stored.
template <int V>
__device__ __forceinline__ void whole_norm_row(const Lanes<V>& lanes, float (&row)[V][EIGHT],
                                               const float* norm_weight, const float* norm_bias, float epsilon,
                                               const Dropout& behind, MaskRow mask, float* mean_out, float* rstd_out,
                                               T* out) {
    float mean = 0.0f, rstd = 1.0f;
    if (epsilon >= 0.0f) {
        float sum = 0.0f;
#pragma unroll
        for (int v = 0; v < V; v++) {
#pragma unroll
            for (int i = 0; i < EIGHT; i++) sum += lanes.inside(v) ? row[v][i] : 0.0f;
        }
        mean = warp_sum(sum) / lanes.width;
        float squares = 0.0f;
#pragma unroll
        for (int v = 0; v < V; v++) {
#pragma unroll
            for (int i = 0; i < EIGHT; i++) {
                const float centred = lanes.inside(v) ? row[v][i] - mean : 0.0f;
                squares += centred * centred;
            }
        }
        rstd = rsqrtf(warp_sum(squares) / lanes.width + epsilon);
    }
    if (threadIdx.x % 32 == 0) *mean_out = mean, *rstd_out = rstd;
#pragma unroll
    for (int v = 0; v < V; v++) {
        float weight[EIGHT], bias[EIGHT];
        load_whole(norm_weight + lanes.readable(v), weight);
        load_whole(norm_bias + lanes.readable(v), bias);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) row[v][i] = (row[v][i] - mean) * rstd * weight[i] + bias[i];
        behind.apply(mask, lanes.column(v), row[v]);
        if (lanes.inside(v)) store_whole(out + lanes.column(v), row[v]);
    }
}

/// Rows of a block that a thread of the backward pass reads at a time.
constexpr int NORM_TILE = 4;

struct WholeNormScratch {
    float mean[NORM_ROWS], rstd[NORM_ROWS];
    MaskRow mask[NORM_ROWS];
    /// Of each warp, the sums of d * weight and of d * weight * normalised of each row of the tile; twice, so that a tile
    /// does not wait for the readers of the one before.
    __align__(16) float projections[2][WHOLE_WIDTH / EIGHT / 32][2 * NORM_TILE];
};

/// What a thread has of a tile.
struct NormTile {
    Packed<T> d[NORM_TILE], sum[NORM_TILE];

    __device__ __forceinline__ void fetch_rows(const T* d_out, const T* sum_in, int row, int last, int width,
                                               int column) {
#pragma unroll
        for (int r = 0; r < NORM_TILE; r++) {
            // Beyond the block's rows the last one stands in.
            const size_t at = static_cast<size_t>(min(row + r, last)) * width + column;
            d[r] = fetch(d_out + at);
            sum[r] = fetch(sum_in + at);
        }
    }
};

/// Backward of a norm over one block's rows, as norm_backward: each thread goes down eight columns and keeps their sums;
/// the next rows are on their way while these are worked on. As many threads as vectors, rounded up to whole warps.
template <bool BRANCH, class D>
__device__ __forceinline__ void whole_norm_backward(WholeNormScratch& scratch, const T* d_out, const T* sum,
                                                    const float* means, const float* rstds, const float* norm_weight,
                                                    bool normalises, const Dropout& dropout, const u32* row_tokens,
                                                    int rows, int width, int rows_per_block, D* d_sum, T* d_branch,
                                                    float* partials) {
    constexpr int SUMS = BRANCH ? 3 : 2;
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const int first = blockIdx.x * rows_per_block;
    const int count = min(rows_per_block, rows - first), last = first + count - 1;
    const bool works = thread * EIGHT < width;
    const int column = min(thread * EIGHT, width - EIGHT);
    const Dropout behind = BRANCH ? no_dropout() : dropout;

    NormTile tile;
    tile.fetch_rows(d_out, sum, first, last, width, column);
    float weight[EIGHT];
    load_whole(norm_weight + column, weight);
#pragma unroll
    for (int i = 0; i < EIGHT; i++) weight[i] = works ? weight[i] : 0.0f;
    for (int i = thread; i < count; i += blockDim.x) {
        const int row = first + i;
        scratch.mean[i] = means[row];
        scratch.rstd[i] = rstds[row];
        scratch.mask[i] = dropout.row(row_tokens ? row_tokens[row] : row, width);
    }
    __syncthreads();

    const float share = 1.0f / width;
    float sums[SUMS][EIGHT] = {};
    int parity = 0;
#pragma unroll 1
    for (int start = 0; start < count; start += NORM_TILE) {
        NormTile next = tile;
        if (start + NORM_TILE < count) {
            next.fetch_rows(d_out, sum, first + start + NORM_TILE, last, width, column);
        }
        float projected[2 * NORM_TILE] = {};
        if (normalises) {
#pragma unroll
            for (int r = 0; r < NORM_TILE; r++) {
                const int i = min(start + r, count - 1);
                const float mean = scratch.mean[i], rstd = scratch.rstd[i];
                float d[EIGHT], x[EIGHT];
                unpack(tile.d[r], d);
                unpack(tile.sum[r], x);
                if (!BRANCH) behind.apply(scratch.mask[i], column, d);
#pragma unroll
                for (int j = 0; j < EIGHT; j++) {
                    const float scaled = d[j] * weight[j];
                    projected[2 * r] += scaled;
                    projected[2 * r + 1] += scaled * ((x[j] - mean) * rstd);
                }
            }
            const float mine = warp_sums(projected);
            if (lane % 4 == 0) scratch.projections[parity][warp][lane / 4] = mine;
            __syncthreads();
            load_whole(scratch.projections[parity][0], projected);
#pragma unroll
            for (int other = 1; other < WHOLE_WIDTH / EIGHT / 32; other++) {
                if (other < static_cast<int>(blockDim.x) / 32) {
                    float theirs[2 * NORM_TILE];
                    load_whole(scratch.projections[parity][other], theirs);
#pragma unroll
                    for (int j = 0; j < 2 * NORM_TILE; j++) projected[j] += theirs[j];
                }
            }
            parity ^= 1;
        } else {
            // Threads beyond the row have read its end, which another of their warp writes below where d_sum is d_out.
            __syncwarp();
        }
#pragma unroll
        for (int r = 0; r < NORM_TILE; r++) {
            const int i = start + r;
            if (i < count) {
                const float mean = scratch.mean[i], rstd = scratch.rstd[i];
                const float projected_mean = projected[2 * r] * share, along = projected[2 * r + 1] * share;
                const size_t at = static_cast<size_t>(first + i) * width + column;
                float d[EIGHT], x[EIGHT];
                unpack(tile.d[r], d);
                unpack(tile.sum[r], x);
                if (!BRANCH) behind.apply(scratch.mask[i], column, d);
#pragma unroll
                for (int j = 0; j < EIGHT; j++) {
                    const float normalised = (x[j] - mean) * rstd;
                    sums[0][j] += d[j] * normalised;
                    sums[1][j] += d[j];
                    d[j] = rstd * (d[j] * weight[j] - projected_mean - normalised * along);
                }
                if (works) store_whole(d_sum + at, d);
                if (BRANCH) {
                    dropout.apply(scratch.mask[i], column, d);
                    if (works) store_whole(d_branch + at, d);
#pragma unroll
                    for (int j = 0; j < EIGHT; j++) sums[SUMS - 1][j] += d[j];
                }
            }
        }
        tile = next;
    }
    if (!works) return;
#pragma unroll
    for (int which = 0; which < SUMS; which++) {
        store_whole(partials + (static_cast<size_t>(blockIdx.x) * SUMS + which) * width + column, sums[which]);
    }
}
